"""A message that the watcher's fold cannot take: left out by one rule, told as a fact, never with a tenant's words."""

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.loops.windows import LoopDetector
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch import poison_messages
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.poison_messages import LeftOutMessages

REF = ContentRef(author="tool_executor", sha256="0" * 64, size_bytes=1)
SECRET = "what the tenant said"


@pytest.fixture(autouse=True)
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that has one: an act that names it makes it raise."""
    take = LoopDetector.fold_act

    def raises(self: LoopDetector, act: object) -> object:
        if "boom" in str(getattr(act, "arguments", "")):
            raise KeyError(SECRET)
        return take(self, act)  # type: ignore[arg-type]

    monkeypatch.setattr(LoopDetector, "fold_act", raises)


def said(*arguments: str) -> list[StoredMessage]:
    """A journal of one task: one call for each, answered at once."""
    found: list[StoredMessage] = []

    def say(body: Body, way: str) -> None:
        sequence = len(found) + 1
        found.append(
            StoredMessage(
                f"mesh.{way}.3.acme.t1.-",
                {"ce-type": body.ce_type(), "ce-id": f"m{sequence}"},
                body.encode(),
                sequence,
                1_000 + sequence,
            )
        )

    for number, one in enumerate(arguments):
        asked = ToolCallRequested(
            call_id=f"c{number}", step_id="s1", attempt=1, tool="look", arguments_json=one, deadline_unix_ms=1
        )
        say(asked, "worker.tool_executor")
        say(
            ToolCallReplied(call_id=f"c{number}", step_id="s1", outcome="succeeded", content=REF),
            "tool_executor.worker",
        )
    return found


def fold(journal: list[StoredMessage], known: LeftOutMessages) -> WatchFold | None:
    """One begun anew; None when it ended by the bug."""
    watching = WatchFold(DEFAULT, known)
    for stored in journal:
        try:
            watching.fold_message(stored)
        except KeyError as error:
            known.blame_message(error)
            return None
    known.clear_blame()
    return watching


def test_what_makes_a_second_fold_raise_is_left_out_and_told_and_the_rest_is_folded() -> None:
    known, journal = LeftOutMessages(), said("1", "boom", "2", "2", "2", "2")
    assert fold(journal, known) is None and "KeyError in" in known.degraded and "raises" in known.degraded
    assert fold(journal, known) is None
    found = fold(journal, known)
    assert found is not None and found.folded == len(journal) - 1
    (left_out, *others) = found.due.values()
    assert [one.detector for one in others] == ["loop.repeat", "loop.repeat"], "the loop behind it is found"
    assert (left_out.detector, left_out.level, left_out.lineage) == ("watch.left_out", "warn", "acme/t1")
    assert left_out.evidence == ("m4",) and "mesh.tool.call_replied" in left_out.what and "KeyError" in left_out.what
    assert SECRET not in f"{left_out} {known.degraded}" and "leaves out 1 message" in known.degraded
    other = LeftOutMessages()
    for _ in range(2):
        assert fold(journal, other) is None
    again = fold(journal, other)
    assert again is not None and list(again.due) == list(found.due), "every replica comes to the same ids"


def test_what_a_fresh_fold_takes_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known, journal = LeftOutMessages(), said("1", "boom")
    assert fold(journal, known) is None
    monkeypatch.undo()
    found = fold(journal, known)
    assert found is not None and not found.due and not known.degraded
    known.folding = journal[-1]
    assert not known.blame_message(KeyError()), "it counts anew"


def test_a_fold_that_takes_next_to_nothing_stays_away_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison_messages, "MAX_LEFT_OUT", 2)
    known, journal = LeftOutMessages(), said("boom 1", "boom 2", "boom 3")
    assert [fold(journal, known) for _ in range(9)] == [None] * 9
    assert "finds nothing now" in known.degraded and known.trip_for(journal[-1]) is None


def test_an_error_of_no_message_leaves_none_out() -> None:
    known = LeftOutMessages()
    assert not known.blame_message(ZeroDivisionError()) and not known.blame_message(ZeroDivisionError())
    assert "ZeroDivisionError" in known.degraded
    known.clear_blame()
    assert not known.degraded


def test_a_message_of_no_task_is_told_where_facts_of_no_task_are(monkeypatch: pytest.MonkeyPatch) -> None:
    known, odd = LeftOutMessages(), StoredMessage("mesh.x.worker.t1", {}, b"{}", 7, 5)
    for _ in range(2):
        known.folding = odd
        known.blame_message(ValueError(SECRET))
    trip = known.trip_for(odd)
    assert trip is not None and trip.lineage == "_/halts" and "message 7" in trip.what
