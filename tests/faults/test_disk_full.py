"""The disk fills up in the middle of tasks and has room again: nothing that was acknowledged is lost.

While it is full nothing is accepted, and everybody who asks is told why: the submitter, the supervisor, `doctor`. A
broker whose disk was full needs a restart (FACTS); the supervisor gives it one as soon as there is room.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bulkhead.bus.port import BusUnavailable
from bulkhead.client.errors import Refused
from bulkhead_infra.local import rundir
from bulkhead_infra.local.rundir import DirectoryUnfit
from bulkhead_infra.local.supervisor import BROKER, LocalMesh
from tests.e2e.fixtures.world import World, until
from tests.faults.fixtures.disk import Disk
from tests.faults.fixtures.errand import TENANT, Errand, ingest, missing_in_journal, nothing_waits
from tests.faults.fixtures.standing import short_waits

pytestmark = [pytest.mark.nightly, pytest.mark.needs("loop-mounts")]
TAKEN_MAX = 20
ANSWERED_S = 12.0
"""A submitter hears within this what is wrong; the client tries again meanwhile."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "disk.img", tmp_path / "world" / "mesh") as found, short_waits():
        yield found


async def test_a_full_disk_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    async with World(tmp_path / "world") as world:
        await ingest(world)
        await Errand(world).run()
        broker = world.mesh.units[BROKER]
        pid = broker.pid
        caught = [Errand(world) for _ in range(2)]
        async with world.counter.held() as arrived:
            for errand in caught:
                await errand.submit()
                await arrived()
            disk.fill()
        # The writes are done; their records do not fit, at the latest when begun blocks are full.
        late = await _refused(world, caught)
        assert await _why_unready(world)
        await until(lambda: _told(world), "the supervisor says what is wrong", 60)
        code, said, _ = await world.command("doctor", "--json")
        problems = {one["what"]: one for one in json.loads(said) if one["level"] == "problem"}
        assert code == 1 and "disk" in problems and "restart" in problems["disk"]["todo"], said
        assert broker.pid == pid, "a restart would not help while there is no room"
        disk.free()
        await until(lambda: _restarted(world, pid), "the supervisor restarts the broker", 60)
        for errand in caught:
            assert errand.task is not None
            await world.finish(errand.task)
        await nothing_waits(world)
        await _whole_journal(world)
        for errand in caught:
            await errand.ends_rightly()
        # The same key: whether it was taken or not, it is one task.
        await late.submit()
        await late.ends_rightly()
        await nothing_waits(world)
        code, said, _ = await world.command("doctor", "--json")
        assert not [one for one in json.loads(said) if one["level"] == "problem" and one["what"] != "disk"], said


async def test_a_disk_that_is_full_at_the_start_is_told_and_what_the_mesh_held_is_kept(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "world" / "mesh"
    async with World(tmp_path / "world") as world:
        await ingest(world)
        errand = Errand(world)
        before = await errand.run()
    disk.fill()
    with pytest.raises(DirectoryUnfit, match=r"only 0 MiB are free.*move the whole folder to a larger disk"):
        await LocalMesh(point).__aenter__()
    # It had room when that was looked at, and fills up while keys are handed over.
    monkeypatch.setattr(rundir, "disk_problem", lambda _: "")
    mesh = LocalMesh(point)
    with pytest.raises(DirectoryUnfit, match=r"the disk that holds .* is full; free some there") as told:
        await mesh.__aenter__()
    assert isinstance(told.value.__cause__, OSError) and not mesh.units
    monkeypatch.undo()
    disk.free()
    async with World(tmp_path / "world") as world:
        assert errand.task is not None
        after = await world.client(TENANT).task(errand.task.id).show()
        assert (after["status"], after["answer"]) == ("succeeded", before["answer"])


async def _refused(world: World, taken: list[Errand]) -> Errand:
    """The first that is not accepted; those before it are added to `taken`."""
    for _ in range(TAKEN_MAX):
        errand = Errand(world)
        try:
            async with asyncio.timeout(ANSWERED_S):
                await errand.submit()
        except Refused as error:
            assert error.status == 503 and "disk" in error.hint, error
            return errand
        taken.append(errand)
    raise AssertionError(f"a full disk takes more than {TAKEN_MAX} tasks")


async def _why_unready(world: World) -> str:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{world.mesh.url}/readyz")
    assert answer.status_code == 503, answer.text
    return str(answer.json()["reason"])


async def _told(world: World) -> bool:
    return any(BROKER in line and "free" in line for line in world.said)


async def _whole_journal(world: World) -> None:
    """It is written without fsync and can lose what it had while there was no room: it is made again then."""
    gone: list[str] = []

    async def whole() -> bool:
        with contextlib.suppress(BusUnavailable):  # In the moment in which it is made.
            gone[:] = await missing_in_journal(world)
            return not gone
        return False

    try:
        await until(whole, "the journal has everything", 60)
    except AssertionError:
        raise AssertionError(f"the journal has gaps after a full disk: {gone}; said: {world.said}") from None


async def _restarted(world: World, pid: int | None) -> bool:
    unit = world.mesh.units[BROKER]
    return unit.pid not in (None, pid) and unit.state == "ready"
