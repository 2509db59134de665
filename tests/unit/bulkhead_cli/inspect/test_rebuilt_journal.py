"""A journal that was made again: readers of a task's history tell the times and the order in which things were said."""

from dataclasses import replace

import pytest

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.streams import Stream
from bulkhead.bus.port import StoredMessage
from bulkhead.journal import timeline
from bulkhead.journal.history import build_entries
from bulkhead.journal.order import BEHIND_MS, reorder_by_originals
from bulkhead.journal.reader import read_journal
from bulkhead.journal.why.reasons import explain_task
from bulkhead.runtime.decider.history import TaskHistory, at_its_source
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_cli.inspect.analyze import analyze_trace
from bulkhead_cli.inspect.trace_files import OpenedTrace
from bulkhead_cli.replay.export import export_task
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.task import TaskEnded, TaskRequested
from tests.paths import HISTORIES

NAMES = ("fan_out_join", "draft_rejected", "deadline")
LAG_MS, DAY_MS = 3, 24 * 3600 * 1000


class Restored:
    """A recorded task in the inboxes of a mesh whose journal has followed them, and may be made again."""

    def __init__(self, name: str) -> None:
        [path] = HISTORIES.glob(f"{name}.jsonl*")
        self.recorded = load_history(path)
        self.broker = MemoryBroker.for_mesh()
        self.bus = MemoryBus(self.broker, "operator")
        self.task = self.recorded.task
        for at in sorted(range(len(self.recorded.messages)), key=lambda at: self.recorded.messages[at].sequence):
            self._take(at)
        for stored in self._by_time():
            self._copy(stored, stored.time_unix_ms + LAG_MS)

    def _take(self, at: int) -> None:
        one = self.recorded.messages[at]
        inbox = self.broker.get_stream(subjects.inbox_stream(one.receiver))
        inbox.append(one.subject, one.headers, one.body, one.time_unix_ms)

    def _inboxes(self) -> dict[str, list[StoredMessage]]:
        return {
            name: self.broker.get_stream(subjects.inbox_stream(name)).read("mesh.>", 0, 1_000)
            for name in catalog.INBOXES
        }

    def _by_time(self) -> list[StoredMessage]:
        """As the record has them."""
        places = {(one.subject, one.ce_id, one.body): at for at, one in enumerate(self.recorded.messages)}
        every = [one for inbox in self._inboxes().values() for one in inbox]
        return sorted(every, key=lambda one: places[one.subject, one.ce_id, one.body])

    def _copy(self, stored: StoredMessage, now_ms: int) -> None:
        source = f"{subjects.inbox_stream(stored.subject.split('.')[2])} {stored.sequence} > >"
        journal = self.broker.get_stream("JOURNAL")
        journal.append(stored.subject, {**stored.headers, "Nats-Stream-Source": source}, stored.body, now_ms)

    def make_journal_again(self) -> None:
        """One inbox behind the other, a day later, all in the same millisecond."""
        self.broker._streams["JOURNAL"] = Stream(self.broker.get_stream("JOURNAL").config)
        now_ms = DAY_MS + max(one.time_unix_ms for one in self.recorded.messages)
        for inbox in self._inboxes().values():
            for stored in inbox:
                self._copy(stored, now_ms)

    async def read(self) -> list[StoredMessage]:
        return await read_journal(self.bus, self.task)


def rows(found: list[StoredMessage]) -> dict[str, tuple[int, int | None]]:
    return {one["id"]: (one["offset_ms"], one["took_ms"]) for one in timeline.as_json(build_entries(found))}


@pytest.mark.parametrize("name", NAMES)
async def test_a_timeline_tells_the_times_and_the_order_in_which_it_was_said(name: str) -> None:
    mesh = Restored(name)
    before = await mesh.read()
    assert before == await read_journal(mesh.bus, mesh.task, as_it_lies=True), "a journal that kept up is left as it is"
    mesh.make_journal_again()
    assert (await read_journal(mesh.bus, mesh.task, as_it_lies=True))[-1].time_unix_ms - DAY_MS > 0
    after = await mesh.read()
    assert rows(after) == rows(before), "offsets and how long each reply took"
    told, order = build_entries(after), [one.ce_id for one in after]
    assert all(order.index(one.cause) < order.index(one.id) for one in told if one.cause in order)
    assert {one.time_unix_ms for one in after} == {one.time_unix_ms - LAG_MS for one in before}
    for inbox in catalog.INBOXES:
        mine = [at_its_source(one).sequence for one in after if one.receiver == inbox]
        assert mine == sorted(mine)
    [heads] = {str(timeline.build_tree(mesh.task, build_entries(found)).label) for found in (before, after)}
    assert "succeeded" in heads or "failed" in heads
    [end] = {one.at_unix_ms for one in explain_task(told, mesh.task, 2**50) if one.kind == "ended"}
    assert end == next(one.time_unix_ms for one in after if one.ce_type == TaskEnded.ce_type())


@pytest.mark.parametrize("name", NAMES)
async def test_an_export_replays_and_is_judged_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.blobs.FOLLOWER_LAGS_S", ())  # Its contents lie in the record alone.
    mesh = Restored(name)
    before = await export_task(mesh.bus, mesh.task)
    mesh.make_journal_again()
    found = await export_task(mesh.bus, mesh.task)
    whole = TaskHistory(found.tenant, found.task, found.messages, mesh.recorded.contents)
    report = await replay_history(whole)
    assert report.divergences == [] and report.compared
    first, last = (f(one.time_unix_ms for one in found.messages) for f in (min, max))
    assert (first, last) == tuple(f(one.time_unix_ms for one in mesh.recorded.messages) for f in (min, max))
    judged = [
        analyze_trace(OpenedTrace("bulkhead", None, replace(one, contents=mesh.recorded.contents)))
        for one in (before, whole)
    ]
    assert judged[0].events == judged[1].events > 0
    assert [one.detector for one in judged[0].trips] == [one.detector for one in judged[1].trips]


def said(
    name: str, to: str, said_ms: int, stored_ms: int, sequence: int, cause: str = "", by: str = "planner"
) -> StoredMessage:
    head = envelope.Envelope(name, TaskRequested.ce_type(), by, said_ms, cause).to_headers()
    source = {"Nats-Stream-Source": f"INBOX_{to.upper()} {sequence} > >"}
    return StoredMessage(f"mesh.{by}.{to}.1.t.t.-", head | source, b"{}", sequence, stored_ms)


AGAIN = 9_000_000
"""When the journal was made again."""


def order(found: list[StoredMessage]) -> list[tuple[str, int]]:
    return [(one.ce_id, one.time_unix_ms) for one in found]


def test_an_author_has_no_say_in_when_it_was_said_while_its_original_is_there() -> None:
    """A publisher's own clock, its lies, and a cause that comes later than what it is said to have caused."""
    found = [
        said("early", "gateway", 5, AGAIN, 1, by="pub_x"),
        said("late", "gateway", AGAIN * 9, AGAIN, 2, by="pub_x"),
        said("behind", "gateway", 7, AGAIN, 3, cause="far", by="pub_x"),
        said("far", "worker", 7, AGAIN, 1),
    ]
    taken = {0: 1_000, 1: 2_000, 2: 3_000, 3: 3_000 + BEHIND_MS + 1}
    assert order(reorder_by_originals(found, taken)) == [
        ("early", 1_000),
        ("late", 2_000),
        ("behind", 3_000),
        ("far", taken[3]),
    ]


def test_without_its_original_it_was_said_when_its_author_says_and_never_later_than_it_was_stored() -> None:
    found = [
        said("a", "gateway", 1, AGAIN, 1),
        said("b", "worker", 2_000, AGAIN, 1),
        said("c", "worker", AGAIN * 2, AGAIN, 2),
        replace(said("d", "checker", 0, AGAIN, 1), headers={}),
    ]
    assert order(reorder_by_originals(found[:3], {0: 1_500})) == [("a", 1_500), ("b", 2_000), ("c", AGAIN)]
    assert reorder_by_originals(found, {0: 1_500})[-1].time_unix_ms == AGAIN, "nothing tells when"


def test_what_is_said_stands_behind_its_cause_also_at_one_time_and_a_circle_ends() -> None:
    found = [
        said("verdict", "planner", 1, AGAIN, 1, cause="draft"),
        said("draft", "worker", 1, AGAIN, 1, cause="plan"),
        said("plan", "checker", 1, AGAIN, 1),
    ]
    assert [name for name, _ in order(reorder_by_originals(found, {0: 5, 1: 5, 2: 5}))] == ["plan", "draft", "verdict"]
    skewed = order(reorder_by_originals(found, {0: 3, 1: 4, 2: 5}))
    assert skewed == [("plan", 5), ("draft", 5), ("verdict", 5)], "nothing is answered before it is asked"
    circle = [*found[:2], said("plan", "checker", 1, AGAIN, 1, cause="verdict")]
    assert [name for name, _ in order(reorder_by_originals(circle, {0: 5, 1: 6, 2: 7}))] == ["verdict", "plan", "draft"]


def test_a_decider_that_was_down_has_not_said_it_while_it_was() -> None:
    """It says by its envelope when its cause was said; the inboxes took it later, and so did the journal."""
    found = [said("asked", "planner", 1_000, 1_003, 1), said("told", "worker", 1_000, 700_003, 1, cause="asked")]
    assert reorder_by_originals(found, {0: 1_000, 1: 700_000}) is found
