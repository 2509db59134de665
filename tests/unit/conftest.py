"""No test here waits for time or disks: in virtual time, for modules that say so, a redelivery or a deadline takes no
time of ours, and files need not survive a power cut."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping

import pytest

from bulkhead.runtime.context import unix_ms
from bulkhead.testing.mesh import MemoryMesh
from tests.simulation.mesh.loop import LoopClock, SimulationLoop


def _virtual(item: pytest.Item) -> bool:
    return item.get_closest_marker("virtual_time") is not None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """See pytest-asyncio."""
    return {"virtual": SimulationLoop} if _virtual(item) else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _mesh_in_virtual_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker and the services read the loop's clock."""
    if not _virtual(request.node):
        return
    plain = MemoryMesh.__init__

    def begin(mesh, builds, **more):
        loop = asyncio.get_running_loop()
        plain(mesh, builds, **{"clock": LoopClock(loop, unix_ms()), **more})

    monkeypatch.setattr(MemoryMesh, "__init__", begin)


@pytest.fixture(autouse=True, scope="session")
def _files_are_left_to_the_system() -> Iterator[None]:
    """Only a power cut shows whether a file was synced (tests/faults/test_power_cut.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
