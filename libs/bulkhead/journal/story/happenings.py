"""What of a task went out of the ordinary, and what led to an end that is no success. Pure.

In: the task's facts in journal order, its calls. Out: rows with the ids of the messages that show them.
"""

from collections.abc import Iterator, Sequence

from bulkhead.amounts import seconds
from bulkhead.journal import approvals
from bulkhead.journal.history import Entry
from bulkhead.journal.story.model import Call, Happened
from bulkhead.pause_status import when_over
from bulkhead_contracts.budget import TaskHalted, Tripped
from bulkhead_contracts.plan import PlanRejected
from bulkhead_contracts.task import StepEnded, TaskCancelRequested, TaskEnded, TaskPaused
from bulkhead_contracts.verdict import VerdictReached

MAX_HAPPENED = 200
MAX_CAUSES = 8
SLOW_MS = 1_000
"""A wait for a provider that is worth a line."""
_DECIDED = {"granted": "approved", "denied": "denied", "expired": "expired"}


def happened(told: Sequence[Entry], made: Sequence[Call]) -> tuple[Happened, ...]:
    """In the order of time."""
    rows = [*_of_messages(told), *(row for call in made for row in _of_call(call))]
    once: dict[tuple[str, str, str], Happened] = {}
    for row in sorted(rows, key=lambda row: row.at_unix_ms):
        once.setdefault((row.kind, row.step_id, row.what), row)
    return tuple(once.values())[:MAX_HAPPENED]


def _of_messages(told: Sequence[Entry]) -> Iterator[Happened]:
    asked = approvals.questions(told)
    for entry in told:
        at, proof = entry.at_unix_ms, (entry.id,)
        match entry.body:
            case PlanRejected() as body:
                why = "; ".join(note.message for note in body.notes if note.severity == "error")
                yield Happened(at, "refused", f"the plan checker refused draft {body.draft}: {why}", "", proof)
            case VerdictReached() as body if not body.accepted:
                why = "; ".join(note.message for note in body.notes if note.blocking) or "no reason was given"
                what = f"the checker did not accept attempt {body.attempt}: {why}"
                yield Happened(at, "refused", what, body.step_id, proof)
            case StepEnded() as body if body.result is not None and body.result.standing == "degraded":
                yield Happened(at, "degraded", body.result.standing_reason or "degraded", body.step_id, proof)
            case TaskPaused() as body if body.active:
                yield Happened(at, "paused", when_over(body.reason), body.step_id, proof)
            case None if entry.problem:
                yield Happened(at, "unreadable", entry.problem, "", proof)
        if (question := asked.get(entry.id)) is not None:
            kind = _DECIDED.get(question.state, "paused")
            what = f"{question.asked.tool}: {approvals.answer(question)}"
            yield Happened(at, kind, what, question.asked.step_id, proof)


def _of_call(call: Call) -> Iterator[Happened]:
    at, proof = call.asked_unix_ms, (call.message,)
    what = f"{call.name} of {call.by}" if call.kind == "model" else call.name
    if call.retried and call.attempts > 1:
        codes = ", ".join(call.retried)
        yield Happened(at, "retried", f"{what}: {call.attempts} attempts; {codes}", call.step_id, proof)
    if call.put_off:
        yield Happened(at, "put_off", f"{what}: {call.put_off[-1]}", call.step_id, proof)
    if call.waited_ms >= SLOW_MS:
        waited = f"{what}: {seconds(call.waited_ms)} waiting for {call.waited_for or 'a provider'}"
        yield Happened(at, "put_off", waited, call.step_id, proof)
    if call.chosen_as not in ("", "first"):
        yield Happened(at, "fallback", f"{what}: {call.model} answered ({call.chosen_as})", call.step_id, proof)
    if call.outcome in ("refused", "failed", "uncertain"):
        yield Happened(at, "refused" if call.outcome == "refused" else "failed", _failed(call), call.step_id, proof)


def _failed(call: Call) -> str:
    return f"{call.name}: {call.failure or call.outcome}"


def cause(told: Sequence[Entry], made: Sequence[Call]) -> tuple[Happened, ...]:
    """What led to the end, the last first: the end, what stopped the task, the step, its calls."""
    found: list[Happened] = []
    end = next(one for one in told if isinstance(one.body, TaskEnded))
    assert isinstance(end.body, TaskEnded)
    failure = end.body.failure
    what = f"{when_over(failure.message)} ({failure.code})" if failure else f"it was {end.body.status}"
    found.append(Happened(end.at_unix_ms, end.body.status, what, "", (end.id,)))
    for entry in told:
        body = entry.body
        if isinstance(body, TaskHalted):
            found.append(Happened(entry.at_unix_ms, "halted", f"budget halted it: {body.reason}", "", (entry.id,)))
        elif isinstance(body, Tripped) and body.level == "stop":
            proof = (entry.id, *body.evidence)
            found.append(Happened(entry.at_unix_ms, "halted", f"{body.detector}: {body.what}", "", proof))
        elif isinstance(body, TaskCancelRequested) and entry.sender == "gateway" and entry.receiver == "planner":
            why = f": {body.reason}" if body.reason else ""
            found.append(Happened(entry.at_unix_ms, "cancelled", f"{entry.actor} asked for it{why}", "", (entry.id,)))
    ends = [one for one in told if isinstance(one.body, StepEnded) and one.body.outcome != "accepted"]
    for entry in reversed(ends):
        assert isinstance(entry.body, StepEnded)
        step = entry.body
        what = f"attempt {step.attempt} of plan {step.plan_version}: {'; '.join(step.reasons) or 'no reason was given'}"
        found.append(Happened(entry.at_unix_ms, "failed", what, step.step_id, (entry.id,)))
    steps = {row.step_id for row in found} - {""}
    bad = [call for call in made if call.outcome in ("failed", "refused", "uncertain")]
    for call in reversed([call for call in bad if call.step_id in steps or not steps]):
        found.append(Happened(call.asked_unix_ms, call.outcome, _failed(call), call.step_id, (call.message,)))
    return tuple(dict.fromkeys(found))[:MAX_CAUSES]
