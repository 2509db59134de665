"""A data directory that something has damaged: what is wrong, where, and what to do; and doing it helps."""

import asyncio
import shutil
from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable
from bulkhead_contracts import subjects
from bulkhead_infra.local.rundir import DirectoryUnfit
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.processes.child import StartFailed
from tests.integration.local.test_supervisor import small

STREAMS = Path("data") / "nats" / "store" / "jetstream" / "MESH" / "streams"


@pytest.mark.parametrize("name", ["nats", "nats/store", "redis", "logs", "run", "identity", "rag"])
async def test_a_file_where_a_folder_belongs_is_named(tmp_path, name):
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(DirectoryUnfit, match=rf"{name} is no folder.*move it away.*backup.*--data"):
        await small(tmp_path).__aenter__()
    path.unlink()
    async with small(tmp_path) as mesh:
        assert {row.state for row in mesh.rows()} == {"ready"}


async def say(mesh: LocalMesh, count: int, task: str = "t") -> None:
    bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
    for number in range(count):
        await bus.publish(subjects.mesh_subject("planner", "worker", "demo", task), b"{}", {}, f"{task}-{number}")
    await bus.close()


async def held(mesh: LocalMesh, stream: str) -> int:
    bus = await JetStreamBus.connect(mesh.nats_url, service="operator", nkey_seed=mesh.nkey_seed("operator"))
    try:
        return len(await bus.read(stream, "mesh.>"))
    except BusUnavailable:
        return -1  # It is being made.
    finally:
        await bus.close()


@pytest.mark.parametrize(
    ("stream", "says", "left"), [("JOURNAL", "nothing is lost with it", 3), ("INBOX_WORKER", "what it held is lost", 0)]
)
async def test_a_stream_that_cannot_be_read_is_named_with_its_folder(tmp_path, monkeypatch, stream, says, left):
    async with small(tmp_path) as mesh:
        await say(mesh, 3)
    folder = tmp_path / STREAMS / stream
    (folder / "meta.inf").write_bytes(b"garbage")
    monkeypatch.setattr("bulkhead_infra.local.supervisor.INFRASTRUCTURE_TIMEOUT_S", 2.0)
    with pytest.raises(StartFailed) as refused:
        await small(tmp_path).__aenter__()
    said = str(refused.value)
    assert f"cannot read its stream {stream}" in said and str(folder) in said and "backup" in said and says in said
    monkeypatch.undo()
    shutil.move(folder, tmp_path / "aside")
    async with small(tmp_path) as mesh:
        assert {row.state for row in mesh.rows()} == {"ready"}
        assert await held(mesh, "INBOX_WORKER") == left
        async with asyncio.timeout(10):
            # What only the journal had goes: it would take what is said from now on for what it had.
            while await held(mesh, "JOURNAL") != left:
                await asyncio.sleep(0.05)


async def test_a_damaged_ledger_file_is_told_to_be_a_cache(tmp_path):
    async with small(tmp_path):
        pass
    files = tmp_path / "data" / "redis"
    for path in [*files.rglob("*.manifest")] or [*files.rglob("*.aof")]:  # Before Redis 7 there is one file.
        path.write_text("garbage\n")
    with pytest.raises(StartFailed, match=r"(?s)redis exited with 1.*They are a cache: move .*redis away"):
        await small(tmp_path).__aenter__()
    shutil.move(tmp_path / "data" / "redis", tmp_path / "aside")
    async with small(tmp_path) as mesh:
        assert {row.state for row in mesh.rows()} == {"ready"}
