"""Backups against real brokers: positions, timers, other layouts, and what happens when a restore cannot go on.

No services: what is looked at is what the broker gives back. tests/e2e/failures/test_backup.py drills the whole mesh.
"""

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusDelivery, Consumer, Schedule
from bulkhead_contracts import subjects
from bulkhead_infra.backup import locations, restore
from bulkhead_infra.backup.archive import (
    ArchivePart,
    ArchiveReader,
    ArchiveWriter,
    BackupError,
    BackupManifest,
    StreamCopy,
)
from bulkhead_infra.backup.locations import RemoteMesh
from bulkhead_infra.backup.stream_copies import BackupConnection, CopyRefused
from bulkhead_infra.identity import keys
from bulkhead_infra.identity.policy import load_policy
from bulkhead_infra.local.rundir import RESTORING_FILE, DirectoryUnfit, RunDir
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.nats.streams import Layout
from tests.e2e.fixtures.world import until
from tests.integration.broker.bare_broker import bus_of as bus

INBOX, PLANNER = "INBOX_WORKER", "INBOX_PLANNER"
SUBJECT = subjects.mesh_subject("planner", "worker", "demo", "t1")


def silent(progress: object) -> None:
    """Nobody follows."""


async def begun(data: Path, *, timers: bool = False) -> None:
    """A mesh without services: of five messages three were handled, and of three timers one has fired."""
    async with LocalMesh(data, services=(), durability="process") as mesh:
        async with bus(mesh.nats_url, mesh.directory / "identity", "planner") as planner:
            for number in range(5):
                await planner.publish(SUBJECT, b"%d" % number, {"ce-id": f"m{number}"}, f"m{number}")
            if timers:
                await _timers(planner)
        async with bus(mesh.nats_url, mesh.directory / "identity", "worker") as worker:
            consumer = await worker.open_consumer(INBOX, "worker-0")
            for one in await _handed(consumer, 3):
                await one.ack()
            # What is handed out after an ack was sent comes after it.
            await _handed(consumer, 2)


async def _timers(planner: JetStreamBus) -> None:
    now = time.time_ns() // 1_000_000
    target = subjects.timer_fired("planner", "demo", "t1")
    for key, delay_ms in (("fired", 0), ("overdue", 2_000), ("ahead", 6_000)):
        timer = subjects.timer_set("planner", "demo", "t1", key)
        await planner.schedule(Schedule(timer, target, now + delay_ms, b"{}", {"ce-id": key}), key)
    assert await until(lambda: _heard(planner), "the first has fired") == ["fired"]


async def _heard(planner: JetStreamBus) -> list[str]:
    return [one.ce_id for one in await planner.read(PLANNER, "mesh.planner.planner.>")]


async def _handed(consumer: Consumer, count: int) -> list[BusDelivery]:
    """So many messages, and not one more."""
    found: list[BusDelivery] = []
    while len(found) < count:
        more = await consumer.fetch(count - len(found), timeout_s=5)
        assert more, f"only {len(found)} of {count} came"
        found += more
    return found


async def left(url: str, identity: Path, shard: int = 0) -> list[tuple[int, bytes]]:
    """What the worker is handed now, by sequence."""
    async with bus(url, identity, "worker") as worker:
        consumer = await worker.open_consumer(INBOX, subjects.durable_name("worker", shard))
        found = await _handed(consumer, 2)
        assert not await consumer.fetch(1, timeout_s=0.2)
        return [(one.stored.sequence, one.stored.body) for one in found]


async def test_positions_and_timers_go_on_where_they_were(tmp_path: Path) -> None:
    """Also of a mesh that is stopped: its broker is started for the copy, and stopped again."""
    await begun(tmp_path / "a", timers=True)
    manifest = await locations.back_up_local(tmp_path / "a", tmp_path / "file", "", silent)
    assert {one.durable: one.floor for one in manifest.positions}["worker-0"] == 3
    shutil.copytree(tmp_path / "a" / "identity", tmp_path / "b" / "identity")
    with ArchiveReader(tmp_path / "file") as reader:
        await locations.restore_local(reader, tmp_path / "b", "", silent)
    async with LocalMesh(tmp_path / "b", services=(), durability="process") as mesh:
        assert await left(mesh.nats_url, mesh.directory / "identity") == [(4, b"3"), (5, b"4")]
        async with bus(mesh.nats_url, mesh.directory / "identity", "planner") as planner:

            async def all_fired() -> bool:
                return "ahead" in await _heard(planner)

            await until(all_fired, "the last timer fires")
            assert sorted(await _heard(planner)) == ["ahead", "fired", "overdue"], "each is heard once"


async def test_another_broker_and_another_number_of_shards(tmp_path: Path) -> None:
    """The slowest shard's position counts for all when their number changes; nothing is skipped."""
    await begun(tmp_path / "a")
    await locations.back_up_local(tmp_path / "a", tmp_path / "file", "", silent)
    with ArchiveReader(tmp_path / "file") as reader:
        from bulkhead_infra.backup.restore import durable_start_sequences

        assert durable_start_sequences(reader.manifest, Layout({"worker": 3}))["worker-2"] == 4
        more = reader.manifest.model_copy(
            update={
                "positions": tuple(
                    one.model_copy(update={"durable": f"worker-{shard}", "floor": floor})
                    for one in reader.manifest.positions
                    if one.durable == "worker-0"
                    for shard, floor in enumerate((9, 2, 5))
                )
            }
        )
        assert durable_start_sequences(more, Layout({"worker": 3}))["worker-2"] == 6
        assert {durable_start_sequences(more, Layout({"worker": 2}))[f"worker-{shard}"] for shard in (0, 1)} == {3}
        broker, divided = RunDir(tmp_path / "c"), {"worker": 2}
        async with locations._own_broker(broker, Layout(divided), load_policy()) as url:
            remote = RemoteMesh(url, tmp_path / "c" / "identity", tmp_path / "c" / "rag")
            await locations.restore_remote(reader, remote, "", silent, divided)
            assert await left(url, remote.identity, shard=subjects.partition_of("t1") % 2) == [(4, b"3"), (5, b"4")]
            with pytest.raises(BackupError, match="has a mesh already"):
                await locations.restore_remote(reader, remote, "", silent)
            # And back from there, by its address.
            again = await locations.back_up_remote(remote, tmp_path / "again", "", silent)
            with ArchiveReader(tmp_path / "again") as second:
                assert durable_start_sequences(second.manifest, Layout())["worker-0"] <= 4, (
                    "what is left is handed out there, too"
                )
        broker.close()
        assert again.streams == reader.manifest.streams and again.shards == divided


def forged(source: Path, target: Path) -> Path:
    """The same backup with other bytes in one stream, and digests that fit: only the broker can tell."""
    with ArchiveReader(source) as reader, ArchiveWriter(target) as file:
        for name in reader.manifest.parts:
            if name == "format.json":
                continue
            data = b"".join(reader.read_chunks(name))
            file.put(name, [b"\0" * len(data)] if name == f"streams/{INBOX}" else [data])
        file.finish(reader.manifest.model_copy(update={"parts": dict(file.parts)}))
    return target


async def test_a_restore_that_fails_leaves_nothing_that_could_be_taken_for_a_mesh(tmp_path: Path) -> None:
    await begun(tmp_path / "a")
    file, data = tmp_path / "file", tmp_path / "b"
    await locations.back_up_local(tmp_path / "a", file, "", silent)
    with ArchiveReader(forged(file, tmp_path / "forged")) as reader, pytest.raises((BackupError, ProvisionError)):
        await locations.restore_local(reader, data, "", silent)
    assert (data / RESTORING_FILE).exists()
    with pytest.raises(DirectoryUnfit, match="run the same `bulkhead restore` again"):
        RunDir(data)
    with ArchiveReader(file) as reader:
        await locations.restore_local(reader, data, "", silent)
        assert not (data / RESTORING_FILE).exists()
        RunDir(data).close()
        with pytest.raises(BackupError, match="holds a mesh already"):
            await locations.restore_local(reader, data, "", silent)
    newer = StreamCopy(name="INBOX_ORACLE", messages=0, bytes=0, first_seq=1, last_seq=0)
    with (
        ArchiveReader(named(file, tmp_path / "newer", newer)) as reader,
        pytest.raises(BackupError, match="INBOX_ORACLE"),
    ):
        await locations.restore_local(reader, tmp_path / "c", "", silent)
    older = changed(file, tmp_path / "older", store_format=0)
    with ArchiveReader(older) as reader, pytest.raises(BackupError, match="a store of format 0 and this version"):
        await locations.restore_local(reader, tmp_path / "c", "", silent)
    assert not (tmp_path / "c").exists(), "what cannot be restored begins nothing"


async def test_a_copy_that_the_broker_gives_up_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await begun(tmp_path / "a")
    await locations.back_up_local(tmp_path / "a", tmp_path / "file", "", silent)
    send, sent = BackupConnection._send_piece, Counter[str]()

    async def give_up(self: BackupConnection, subject: str, stream: str, piece: bytes) -> None:
        sent[stream] += 1
        if stream == INBOX and sent[stream] == 1:
            # As a broker to which no piece comes for 5 s: what it has of the copy is no archive.
            await send(self, subject, stream, b"")
            raise CopyRefused("io: read/write on closed pipe")
        await send(self, subject, stream, piece)

    monkeypatch.setattr(BackupConnection, "_send_piece", give_up)
    monkeypatch.setattr(restore, "COPY_PAUSE_S", 0.1)
    with ArchiveReader(tmp_path / "file") as reader:
        await locations.restore_local(reader, tmp_path / "b", "", silent)
    assert sent[INBOX] > 1
    async with LocalMesh(tmp_path / "b", services=(), durability="process") as mesh:
        assert len(await left(mesh.nats_url, mesh.directory / "identity")) == 2


def changed(source: Path, target: Path, **fields: int) -> Path:
    """The same backup with other facts about it."""
    with ArchiveReader(source) as reader, ArchiveWriter(target) as file:
        for name in reader.manifest.parts:
            if name != "format.json":
                file.put(name, list(reader.read_chunks(name)))
        file.finish(reader.manifest.model_copy(update={**fields, "parts": dict(file.parts)}))
    return target


def named(source: Path, target: Path, copy: StreamCopy) -> Path:
    """A backup of a version that has one stream more."""
    with ArchiveReader(source) as reader, ArchiveWriter(target) as file:
        for name in reader.manifest.parts:
            if name != "format.json":
                file.put(name, list(reader.read_chunks(name)))
        file.put(f"streams/{copy.name}", [b""])
        manifest: BackupManifest = reader.manifest
        parts: dict[str, ArchivePart] = dict(file.parts)
        file.finish(manifest.model_copy(update={"streams": (*manifest.streams, copy), "parts": parts}))
    return target


async def test_what_is_no_mesh_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no mesh has run"):
        await locations.back_up_local(tmp_path, tmp_path / "file", "", silent)
    run = RunDir(tmp_path / "empty")
    async with locations._own_broker(run, Layout(), load_policy()) as url:
        with pytest.raises(BackupError, match="no whole mesh"):
            await locations.back_up_remote(RemoteMesh(url, run.identity), tmp_path / "file", "", silent)
        keys.replace_file(run.identity / "backup.nkey", keys.nkey_seed(run.identity, "worker"))
        with pytest.raises(BackupError, match="accounts of another version"):
            await locations.back_up_remote(RemoteMesh(url, run.identity), tmp_path / "file", "", silent)
    run.close()
    assert not (tmp_path / "file").exists()
