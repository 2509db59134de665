"""While a step waits for a person, the timeline leaves out what stands still, and nothing else."""

from bulkhead.journal.approvals import covered_entries
from bulkhead.journal.history import JournalEntry
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepPaused
from bulkhead_contracts.types import Body

AT = 1_800_000_000_000


def _entry(name: str, body: Body, cause: str = "") -> JournalEntry:
    return JournalEntry(1, AT, "worker", "worker", "acme", f"{body.TYPE}.v1", name, cause, body)


def test_anothers_timer_is_told_while_a_step_waits() -> None:
    paused = StepPaused(step_id="a", attempt=1, plan_version=1, until_unix_ms=AT + 9)
    asked = ModelCallRequested(call_id="c", step_id="b", prompt_id="worker.step", deadline_unix_ms=AT + 9)
    found = [
        _entry("pause", paused),
        _entry("idle", TimerFired(key=f"steps-{AT}", due_unix_ms=AT)),
        _entry("again", TimerFired(key="again-c", due_unix_ms=AT)),
        _entry("call", asked, cause="again"),
    ]
    hidden = covered_entries(found, ())
    assert [entry.id for entry in found if id(entry) not in hidden] == ["again", "call"]
