"""The journal lacks what it will never get, on a real broker: the supervisor sees it and has it made again."""

import asyncio
import json
import shutil
import stat
from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.journal import reader as journal_reader
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import subjects
from bulkhead_infra.identity.rights import inbox_prefix
from bulkhead_infra.local.supervisor import BROKER, LocalMesh
from bulkhead_infra.nats import stream_sizes
from bulkhead_infra.nats.journal import JournalComparison, JournalReport, keep_journal_whole
from bulkhead_infra.nats.stream_reads import StreamReads
from bulkhead_infra.nats.streams import LEAST_DUPLICATE_WINDOW_S, Layout
from tests.eventually import until
from tests.integration.local.test_damage import STREAMS, held, say
from tests.integration.local.test_supervisor import small

GONE = "messages that the journal has are gone from their inboxes (INBOX_WORKER 5; of tasks t)"
MADE_AGAIN = "the journal is rebuilt from the inboxes"


async def _purge(mesh: LocalMesh, stream: str, **what) -> None:
    """As a purge that was cut off, or a disk that was full, leaves a stream."""
    bus = await JetStreamBus.connect(
        mesh.nats_url,
        service="provisioner",
        nkey_seed=mesh.nkey_seed("provisioner"),
        inbox_prefix=inbox_prefix("provisioner"),
    )
    answer = await bus.request(f"$JS.API.STREAM.PURGE.{stream}", json.dumps(what).encode())
    assert json.loads(answer.body)["success"]
    await bus.close()


async def _has(mesh: LocalMesh, count: int) -> bool:
    return await held(mesh, "JOURNAL") == count


async def _look(mesh: LocalMesh) -> JournalReport:
    return await keep_journal_whole(mesh.nats_url, mesh.nkey_seed, Layout(), mesh.directory / "lost")


async def _comes_back(mesh: LocalMesh) -> None:
    await mesh.kill_broker()
    await mesh.restart_broker()


async def test_what_is_missing_is_sourced_again(tmp_path: Path) -> None:
    said: list[str] = []
    async with small(tmp_path, on_event=said.append) as mesh:
        await say(mesh, 5)
        await until(lambda: _has(mesh, 5), "the journal has all five")
        await _purge(mesh, "JOURNAL", seq=4)
        assert await held(mesh, "JOURNAL") == 2
        await _comes_back(mesh)
        await until(lambda: _has(mesh, 5), "it has what it lacked")
        assert [line for line in said if MADE_AGAIN in line and "lacks 3 of the messages of INBOX_WORKER" in line], said
        said.clear()
        await _comes_back(mesh)
        assert await _look(mesh) == JournalReport()
        await until(lambda: _has(mesh, 5), "a whole journal is left alone")
    assert not [line for line in said if MADE_AGAIN in line], said


async def test_what_an_inbox_says_anew_under_old_numbers_is_not_missed(tmp_path: Path) -> None:
    said: list[str] = []
    async with small(tmp_path) as mesh:
        await say(mesh, 5)
        await until(lambda: _has(mesh, 5), "the journal has all five")
    shutil.move(tmp_path / STREAMS / "INBOX_WORKER", tmp_path / "aside")
    async with small(tmp_path, on_event=said.append) as mesh:
        await until(lambda: _has(mesh, 0), "what only the journal had goes")
        await say(mesh, 2)
        await until(lambda: _has(mesh, 2), "what is said now is there")
        [line] = [line for line in said if GONE in line]
        [file] = (mesh.directory / "lost").iterdir()
        assert str(file) in line and "restore its directory from a backup" in line
        rows = [json.loads(row) for row in file.read_text().splitlines()]
        assert [(row["stream"], row["sequence"], row["subject"]) for row in rows] == [
            ("INBOX_WORKER", number, subjects.mesh_subject("planner", "worker", "demo", "t")) for number in range(1, 6)
        ]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [line for line in said if MADE_AGAIN in line and "INBOX_WORKER up to number 5" in line], said


async def test_another_message_under_a_known_number_is_not_missed(tmp_path: Path, monkeypatch) -> None:
    """As after a full disk: what was on the way was never stored, and its number was given again; counts agree."""
    async with small(tmp_path) as mesh:
        await say(mesh, 5)
        await until(lambda: _has(mesh, 5), "the journal has all five")
    shutil.move(tmp_path / STREAMS / "INBOX_WORKER", tmp_path / "aside")
    monkeypatch.setattr("bulkhead_infra.local.supervisor.JournalKeeper.start", lambda keeper: None)
    async with small(tmp_path) as mesh:
        await say(mesh, 5, task="u")
        found = await _look(mesh)
        assert "something else stands in INBOX_WORKER under number" in found.fault and GONE in found.lost, found
        await until(lambda: _has(mesh, 5), "what stands in the inbox is sourced")
        assert await _look(mesh) == JournalReport()


@pytest.mark.parametrize("index", ["kept", "gone"])
async def test_garbage_in_the_files_of_an_inbox_is_told(tmp_path: Path, index: str) -> None:
    """The broker makes nothing of it but fewer messages, and is healthy."""
    said: list[str] = []
    async with small(tmp_path) as mesh:
        await say(mesh, 5)
        await until(lambda: _has(mesh, 5), "the journal has all five")
    [block] = (tmp_path / STREAMS / "INBOX_WORKER" / "msgs").glob("*.blk")
    block.write_bytes(bytes(block.stat().st_size))
    if index == "gone":
        (block.parent / "index.db").unlink()

    async def told() -> bool:
        return any(GONE in line for line in said)

    async with small(tmp_path, on_event=said.append) as mesh:
        await until(told, "people are told")
        assert ("in the journal (`bulkhead timeline TASK`)" in said[0]) == (index == "kept"), said


async def test_a_purge_that_was_cut_off_hides_nothing(tmp_path: Path) -> None:
    """Of one task more than its inbox has, of another less: the counts alone are the same."""
    async with small(tmp_path) as mesh:
        await say(mesh, 3)
        planner = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        for number in range(4):
            await planner.publish(subjects.mesh_subject("planner", "worker", "demo", "u"), b"{}", {}, f"u-{number}")
        await planner.close()
        await until(lambda: _has(mesh, 7), "the journal has all seven")
        await _purge(mesh, "INBOX_WORKER", filter=subjects.mesh_subject("planner", "worker", "demo", "u"))
        assert (await _look(mesh)).fault == "", "the journal may have more"
        await _purge(mesh, "JOURNAL", seq=3)
        assert "it lacks 2 of the messages of INBOX_WORKER" in (await _look(mesh)).fault
        await until(lambda: _has(mesh, 3), "what is in the inbox is in the journal, and nothing else")


async def test_of_a_full_journal_only_what_came_after_its_first_is_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(stream_sizes.DEFAULT_BYTES, "JOURNAL", 2048)
    async with small(tmp_path) as mesh:
        await say(mesh, 40)
        newest = await _settled(mesh)
        assert 2 < newest < 40
        assert await _look(mesh) == JournalReport(), "it drops its oldest by itself"
        assert await held(mesh, "JOURNAL") == newest


async def _settled(mesh: LocalMesh) -> int:
    async def newest_is_there() -> bool:
        bus = await JetStreamBus.connect(mesh.nats_url, service="operator", nkey_seed=mesh.nkey_seed("operator"))
        found = await bus.last("JOURNAL", "mesh.>")
        await bus.close()
        return found is not None and " 40 " in f" {found.headers.get('Nats-Stream-Source', '')} "

    await until(newest_is_there, "the journal has the newest")
    return await held(mesh, "JOURNAL")


async def test_an_inbox_that_is_not_read_any_more_is_told(tmp_path: Path) -> None:
    """A source that does not go on, while its inbox has more."""
    async with small(tmp_path) as mesh:
        await say(mesh, 3)
        await until(lambda: _has(mesh, 3), "the journal has all three")

        class Deaf(StreamReads):
            async def last_copied_sequence(self, name: str) -> int:
                return 1 if name == "worker" else await super().last_copied_sequence(name)

        async with _two(mesh) as (reader, maker):
            assert "does not go on to 3" in await JournalComparison(Deaf(reader, maker), stalled_s=0.3).find_fault()
            assert await JournalComparison(StreamReads(reader, maker), stalled_s=0.3).find_fault() == ""
            await JournalComparison(StreamReads(reader, maker)).drop_journal()
            assert await JournalComparison(StreamReads(reader, maker)).find_fault() == "it is not there"
        assert mesh.units[BROKER].state == "ready"


class _two:
    """Operator and provisioner, connected."""

    def __init__(self, mesh: LocalMesh) -> None:
        self._mesh, self._open = mesh, []

    async def __aenter__(self):
        for name in ("operator", "provisioner"):
            bus = await JetStreamBus.connect(
                self._mesh.nats_url, service=name, nkey_seed=self._mesh.nkey_seed(name), inbox_prefix=inbox_prefix(name)
            )
            self._open.append(bus)
        return self._open

    async def __aexit__(self, *_):
        for bus in self._open:
            await bus.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch) -> None:
    monkeypatch.setattr("bulkhead_infra.nats.journal.PAUSE_S", 0.02)


async def _both(mesh: LocalMesh) -> None:
    """Two inboxes have something of one task, in turns."""
    planner = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
    for number in range(3):
        for to in ("worker", "gateway"):
            await planner.publish(subjects.mesh_subject("planner", to, "demo", "t"), b"{}", {}, f"{to}-{number}")
    await planner.close()


async def test_readers_wait_for_a_journal_that_is_made_again_and_mix_no_two(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(journal_reader, "BATCH", 2)
    async with small(tmp_path) as mesh:
        await _both(mesh)
        await until(lambda: _has(mesh, 6), "the journal has all six")
        async with _two(mesh) as (reader, maker):
            assert len(await journal_reader.read_journal(reader, "t")) == 6
            reading = journal_reader.read_pages(reader, "mesh.>")
            assert len(await anext(reading)) == 2
            await JournalComparison(StreamReads(reader, maker)).drop_journal()
            with monkeypatch.context() as hasty:
                hasty.setattr(journal_reader, "PATIENCE_S", 0.2)
                with pytest.raises(journal_reader.JournalBehind, match="made again of the inboxes; try again"):
                    await journal_reader.read_journal(reader, "t")
            waiting = asyncio.create_task(journal_reader.read_journal(reader, "t"))
            assert await _look(mesh) == JournalReport("it is not there")
            assert len(await waiting) == 6
            await _purge(mesh, "JOURNAL", seq=3)
            with pytest.raises(journal_reader.JournalRenumbered):
                await anext(reading)


async def test_an_author_cannot_say_where_a_message_came_from(tmp_path, monkeypatch) -> None:
    """Believed, it would have the journal made again at every look, and timelines in an order of the author's."""
    monkeypatch.setattr("bulkhead_infra.local.supervisor.JournalKeeper.start", lambda keeper: None)
    async with small(tmp_path) as mesh:
        await say(mesh, 2)
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        subject, forged = subjects.mesh_subject("planner", "worker", "demo", "t"), "INBOX_WORKER 999999 > > >"
        with pytest.raises(PublishRefused, match="source header is not allowed"):
            await bus.publish(subject, b"{}", {"Nats-Stream-Source": forged}, "forged")
        # In another case it is a header like any other to the broker.
        await bus.publish(subject, b"{}", {"nats-stream-source": forged}, "forged too")
        await bus.close()
        await until(lambda: _has(mesh, 3), "the journal has all three")
        reader = await JetStreamBus.connect(mesh.nats_url, service="operator", nkey_seed=mesh.nkey_seed("operator"))
        copied = await reader.read("JOURNAL", "mesh.>")
        await reader.close()
        assert [at_its_source(one).sequence for one in copied] == [1, 2, 3]
        assert await _look(mesh) == JournalReport()


async def test_who_uses_one_id_twice_does_not_hide_what_he_says(tmp_path, monkeypatch) -> None:
    """The broker keeps the second out of the journal: later than at once it is there, and at once it is told."""
    monkeypatch.setattr("bulkhead_infra.local.supervisor.JournalKeeper.start", lambda keeper: None)
    async with small(tmp_path) as mesh:
        bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=mesh.nkey_seed("planner"))
        worker, checker = (subjects.mesh_subject("planner", one, "demo", "t") for one in ("worker", "checker"))
        await bus.publish(worker, b"{}", {}, "first")
        await until(lambda: _has(mesh, 1), "the journal has what was said")
        await asyncio.sleep(2 * LEAST_DUPLICATE_WINDOW_S)  # Not a wait for anything: this is the time that is meant.
        await bus.publish(checker, b"{}", {}, "first")
        await until(lambda: _has(mesh, 2), "the journal has what was said later")
        await asyncio.gather(*(bus.publish(one, b"{}", {}, "second") for one in (worker, checker)))
        await bus.publish(worker, b"{}", {}, "third")
        await bus.publish(checker, b"{}", {}, "fourth")
        await bus.close()
        await until(lambda: _has(mesh, 5), "the journal has all but what it was kept from")
        report = await _look(mesh)
    assert (report.fault, report.lost) == ("", "") and "planner: 1, as INBOX_" in report.hidden, report
