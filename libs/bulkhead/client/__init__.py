"""The mesh from Python: over HTTP (`Mesh`, or `SyncMesh` without `await`), or straight onto the bus (`Mesh.on_bus`)."""

from bulkhead.client.errors import Closed, MeshError, Refused, Unfit, Unreachable
from bulkhead.client.mesh import Mesh
from bulkhead.client.on_bus import BusPublisher
from bulkhead.client.result import TaskResult
from bulkhead.client.sync import SyncMesh, SyncTask
from bulkhead.client.task import Task
from bulkhead.client.transport import TaskEvent

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
