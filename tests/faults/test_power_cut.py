"""The power goes: what was acknowledged before is there afterwards, and ends well.

The store of the broker, Redis and all files of the mesh lie on an image of their own. It is copied while everything
runs: that is what a power cut leaves, since what nobody has fsynced is in no image. kill -9 would prove nothing here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fixtures.gate import GatedCounter
from tests.e2e.fixtures.world import World, until
from tests.faults.fixtures.disk import Disk
from tests.faults.fixtures.errand import TENANT, Errand, ingest, missing_in_journal, nothing_waits
from tests.faults.fixtures.standing import short_waits

pytestmark = [pytest.mark.nightly, pytest.mark.needs("loop-mounts")]
BEFORE, IN_HAND = 2, 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "disk.img", tmp_path / "world" / "mesh") as found, short_waits():
        yield found


def _pids(world: World) -> list[int]:
    return [unit.pid for unit in world.mesh.units.values() if unit.pid is not None]


@pytest.mark.parametrize("settled", [False, True], ids=["at-once", "after-a-while"])
async def test_what_was_acknowledged_survives(tmp_path: Path, disk: Disk, settled: bool) -> None:
    """At once: even what describes the journal was never written. After a while: its end was not."""
    with GatedCounter() as counter:
        async with World(tmp_path / "world", counter=counter) as first:
            await ingest(first)
            done = [Errand(first) for _ in range(BEFORE)]
            for errand in done:
                await errand.run()
            if settled:
                disk.settle()
            async with counter.held() as arrived:
                caught = [Errand(first) for _ in range(IN_HAND)]
                for errand in caught:
                    await errand.submit()
                    await arrived()
                late = Errand(first)
                (disk.point / "never-fsynced").write_text("nobody asked for it to stay")
                await late.submit()
                # Acknowledged a moment ago, and two writes are under way.
                kept = disk.cut(_pids(first))
                for unit in first.mesh.units.values():
                    await unit.kill_process(hold=True)
        disk.replace(kept)
        assert not (disk.point / "never-fsynced").exists() or not (disk.point / "never-fsynced").read_text(), (
            "the image holds what nobody fsynced: it is not what a power cut leaves"
        )
        async with World(tmp_path / "world", counter=counter) as second:
            for errand in (*done, *caught, late):
                assert errand.task is not None
                errand.world, errand.task = second, second.client(TENANT).task(errand.task.id)
                await errand.ends_rightly()
            await nothing_waits(second)
            await Errand(second).run()
            await until(lambda: _journal_is_whole(second), "what the journal lost is read again from the inboxes")


async def _journal_is_whole(world: World) -> bool:
    return not await missing_in_journal(world)
