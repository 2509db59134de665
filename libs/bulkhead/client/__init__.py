"""The mesh from Python: over HTTP (`Mesh`, or `SyncMesh` without `await`), or straight onto the bus (`Mesh.on_bus`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkhead.client.errors import Closed, MeshError, Refused, Unfit, Unreachable
    from bulkhead.client.mesh import Mesh
    from bulkhead.client.on_bus import BusPublisher
    from bulkhead.client.result import TaskResult
    from bulkhead.client.sync import SyncMesh, SyncTask
    from bulkhead.client.task import Task
    from bulkhead.client.transport import TaskEvent

_MODULES = {
    "BusPublisher": "on_bus",
    "Mesh": "mesh",
    "SyncMesh": "sync",
    "SyncTask": "sync",
    "Task": "task",
    "TaskEvent": "transport",
    "TaskResult": "result",
}
__all__ = [
    "BusPublisher",
    "Closed",
    "Mesh",
    "MeshError",
    "Refused",
    "SyncMesh",
    "SyncTask",
    "Task",
    "TaskEvent",
    "TaskResult",
    "Unfit",
    "Unreachable",
]


def __getattr__(name: str) -> Any:
    """A name of the package, with its module: who asks for one needs none of the others (the bus, for example)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
