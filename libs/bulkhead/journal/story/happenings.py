"""Happenings of a task out of the ordinary, and what led to an end that is no success. Pure.

In: the task's facts in journal order, its calls. Out: rows with the ids of the messages that show them.
"""

from collections.abc import Iterator, Sequence

from bulkhead.journal import approvals
from bulkhead.journal.history import JournalEntry
from bulkhead.journal.pause_status import when_over
from bulkhead.journal.story.model import Call, Happened
from bulkhead.text.amounts import format_duration
from bulkhead_contracts.budget import TaskHalted, Tripped
from bulkhead_contracts.plan import PlanRejected
from bulkhead_contracts.task import StepEnded, TaskCancelRequested, TaskEnded, TaskPaused
from bulkhead_contracts.verdict import VerdictReached

MAX_HAPPENED = 200
MAX_CAUSES = 8
SLOW_MS = 1_000
"""A wait for a provider that is worth a line."""
_DECIDED = {"granted": "approved", "denied": "denied", "expired": "expired"}


def find_happenings(entries: Sequence[JournalEntry], calls: Sequence[Call]) -> tuple[Happened, ...]:
    """In the order of time."""
    rows = [*_message_happenings(entries), *(row for call in calls for row in _call_happenings(call))]
    once: dict[tuple[str, str, str], Happened] = {}
    for row in sorted(rows, key=lambda row: row.at_unix_ms):
        once.setdefault((row.kind, row.step_id, row.what), row)
    return tuple(once.values())[:MAX_HAPPENED]


def _message_happenings(entries: Sequence[JournalEntry]) -> Iterator[Happened]:
    questions = approvals.find_questions(entries)
    for entry in entries:
        at_unix_ms, proof = entry.at_unix_ms, (entry.id,)
        match entry.body:
            case PlanRejected() as body:
                reasons = "; ".join(note.message for note in body.notes if note.severity == "error")
                yield Happened(
                    at_unix_ms, "refused", f"the plan checker refused draft {body.draft}: {reasons}", "", proof
                )
            case VerdictReached() as body if not body.accepted:
                reasons = "; ".join(note.message for note in body.notes if note.blocking) or "no reason was given"
                description = f"the checker did not accept attempt {body.attempt}: {reasons}"
                yield Happened(at_unix_ms, "refused", description, body.step_id, proof)
            case StepEnded() as body if body.result is not None and body.result.standing == "degraded":
                yield Happened(at_unix_ms, "degraded", body.result.standing_reason or "degraded", body.step_id, proof)
            case TaskPaused() as body if body.active:
                yield Happened(at_unix_ms, "paused", when_over(body.reason), body.step_id, proof)
            case None if entry.problem:
                yield Happened(at_unix_ms, "unreadable", entry.problem, "", proof)
        if (question := questions.get(entry.id)) is not None:
            kind = _DECIDED.get(question.state, "paused")
            description = f"{question.asked.tool}: {approvals.describe_answer(question)}"
            yield Happened(at_unix_ms, kind, description, question.asked.step_id, proof)


def _call_happenings(call: Call) -> Iterator[Happened]:
    at_unix_ms, proof = call.asked_unix_ms, (call.message,)
    description = f"{call.name} of {call.by}" if call.kind == "model" else call.name
    if call.retried and call.attempts > 1:
        codes = ", ".join(call.retried)
        yield Happened(at_unix_ms, "retried", f"{description}: {call.attempts} attempts; {codes}", call.step_id, proof)
    if call.put_off:
        yield Happened(at_unix_ms, "put_off", f"{description}: {call.put_off[-1]}", call.step_id, proof)
    if call.waited_ms >= SLOW_MS:
        waited = f"{description}: {format_duration(call.waited_ms)} waiting for {call.waited_for or 'a provider'}"
        yield Happened(at_unix_ms, "put_off", waited, call.step_id, proof)
    if call.chosen_as not in ("", "first"):
        yield Happened(
            at_unix_ms, "fallback", f"{description}: {call.model} answered ({call.chosen_as})", call.step_id, proof
        )
    if call.outcome in ("refused", "failed", "uncertain"):
        yield Happened(
            at_unix_ms,
            "refused" if call.outcome == "refused" else "failed",
            _describe_failure(call),
            call.step_id,
            proof,
        )


def _describe_failure(call: Call) -> str:
    return f"{call.name}: {call.failure or call.outcome}"


def find_causes(entries: Sequence[JournalEntry], calls: Sequence[Call]) -> tuple[Happened, ...]:
    """Happenings that led to the end, the last first: the end, what stopped the task, the step, its calls."""
    causes: list[Happened] = []
    end = next(entry for entry in entries if isinstance(entry.body, TaskEnded))
    assert isinstance(end.body, TaskEnded)
    failure = end.body.failure
    description = f"{when_over(failure.message)} ({failure.code})" if failure else f"it was {end.body.status}"
    causes.append(Happened(end.at_unix_ms, end.body.status, description, "", (end.id,)))
    for entry in entries:
        body = entry.body
        if isinstance(body, TaskHalted):
            causes.append(Happened(entry.at_unix_ms, "halted", f"budget halted it: {body.reason}", "", (entry.id,)))
        elif isinstance(body, Tripped) and body.level == "stop":
            proof = (entry.id, *body.evidence)
            causes.append(Happened(entry.at_unix_ms, "halted", f"{body.detector}: {body.what}", "", proof))
        elif isinstance(body, TaskCancelRequested) and entry.sender == "gateway" and entry.receiver == "planner":
            reason = f": {body.reason}" if body.reason else ""
            causes.append(
                Happened(entry.at_unix_ms, "cancelled", f"{entry.actor} asked for it{reason}", "", (entry.id,))
            )
    ends = [entry for entry in entries if isinstance(entry.body, StepEnded) and entry.body.outcome != "accepted"]
    for entry in reversed(ends):
        assert isinstance(entry.body, StepEnded)
        step = entry.body
        description = (
            f"attempt {step.attempt} of plan {step.plan_version}: {'; '.join(step.reasons) or 'no reason was given'}"
        )
        causes.append(Happened(entry.at_unix_ms, "failed", description, step.step_id, (entry.id,)))
    steps = {row.step_id for row in causes} - {""}
    bad = [call for call in calls if call.outcome in ("failed", "refused", "uncertain")]
    for call in reversed([call for call in bad if call.step_id in steps or not steps]):
        causes.append(
            Happened(call.asked_unix_ms, call.outcome, _describe_failure(call), call.step_id, (call.message,))
        )
    return tuple(dict.fromkeys(causes))[:MAX_CAUSES]
