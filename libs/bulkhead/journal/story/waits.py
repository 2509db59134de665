"""Times in which steps and calls of a task stood still, and what for. Pure.

In: facts of one step or of one call, in journal order. Out: waits and attempts, for a common axis of time.
"""

from collections.abc import Iterator, Sequence

from bulkhead.journal.history import JournalEntry, Requested
from bulkhead.journal.story.model import AttemptTold, Call, WaitKind, WaitTold
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.step import StepAssigned, StepPaused
from bulkhead_contracts.task import StepEnded, StepStarted, TaskEnded, TaskPaused, TaskQueued, TaskReleased

MAX_WAITS = 16
"""Of one step or call: the last ones."""
ASKED_AGAIN_MS = 1_000
KINDS: dict[str, WaitKind] = {
    "approval_wanted": "approval",
    "halted_by_operator": "halt",
    "budget_exceeded": "budget",
    "breaker_open": "breaker",
}
"""Codes of what holds work back."""
BEGINNINGS = (StepAssigned, StepStarted)
"""Of an attempt; one that waits for a time is handed to nobody."""


def waits_of_call(call: Call, askings: Sequence[JournalEntry], paid: Sequence[Settled]) -> tuple[WaitTold, ...]:
    """askings: its requests and deferrals. A deferral lasts until the call is asked for again, or ends."""
    end_unix_ms = call.asked_unix_ms + call.took_ms if call.took_ms is not None else None
    waits: list[WaitTold] = []
    for place, entry in enumerate(askings):
        if isinstance(entry.body, CallDeferred):
            until_unix_ms = next(
                (later.at_unix_ms for later in askings[place:] if isinstance(later.body, Requested)), end_unix_ms
            )
            wait = _make_wait(KINDS.get(entry.body.code, "queued"), entry.at_unix_ms, until_unix_ms)
            last = waits.pop() if waits and _goes_on(waits[-1], wait) else wait
            waits.append(_make_wait(wait.kind, last.at_unix_ms, until_unix_ms))
    at_unix_ms = waits[-1].at_unix_ms + (waits[-1].took_ms or 0) if waits else call.asked_unix_ms
    if call.waited_ms:
        waits.append(WaitTold("queued", at_unix_ms, call.waited_ms, call.waited_for))
        at_unix_ms += call.waited_ms
    # Nothing was tried again after the last one.
    if failed_ms := sum(settlement.wall_ms for settlement in paid[:-1] if settlement.failed):
        waits.append(WaitTold("retried", at_unix_ms, failed_ms))
    return tuple(waits[-MAX_WAITS:])


def _goes_on(wait: WaitTold, following: WaitTold) -> bool:
    """True if a deferral follows another at once: a call that is held back is asked for again and again."""
    end_unix_ms = wait.at_unix_ms + (wait.took_ms or 0)
    return wait.kind == following.kind and following.at_unix_ms - end_unix_ms <= ASKED_AGAIN_MS


def waits_of_task(entries: Sequence[JournalEntry]) -> tuple[WaitTold, ...]:
    """The wait for a place to run."""
    queued = next((entry.at_unix_ms for entry in entries if isinstance(entry.body, TaskQueued)), None)
    released = next((entry.at_unix_ms for entry in entries if isinstance(entry.body, TaskReleased | TaskEnded)), None)
    return () if queued is None else (_make_wait("queued", queued, released),)


def waits_of_step(step_entries: Sequence[JournalEntry], planned_unix_ms: int) -> tuple[WaitTold, ...]:
    """planned_unix_ms: when its plan began; what it builds on is awaited from then on, 0 for a step without inputs."""
    return tuple(sorted(_step_waits(step_entries, planned_unix_ms), key=lambda wait: wait.at_unix_ms)[-MAX_WAITS:])


def _step_waits(step_entries: Sequence[JournalEntry], planned_unix_ms: int) -> Iterator[WaitTold]:
    assigned = next((entry.at_unix_ms for entry in step_entries if isinstance(entry.body, BEGINNINGS)), None)
    if planned_unix_ms and (assigned is None or assigned > planned_unix_ms):
        yield _make_wait("step", planned_unix_ms, assigned)
    open_waits: dict[str, WaitTold] = {}
    for entry in step_entries:
        match entry.body:
            case StepStarted(until_unix_ms=until) if until:
                open_waits.setdefault("time", WaitTold("time", entry.at_unix_ms))
            case StepPaused(active=True) as body:
                open_waits.setdefault("pause", WaitTold(KINDS.get(body.code, "queued"), entry.at_unix_ms))
            case StepPaused():
                yield from _close_wait(open_waits, "pause", entry)
            case TaskPaused(active=True, code="step_failed"):
                open_waits.setdefault("skip", WaitTold("approval", entry.at_unix_ms, None, "a person may skip it"))
            case LeaseQueued() as body:
                holder = f"{body.resource}, held by {body.holder_task}/{body.holder_step}"
                open_waits.setdefault(body.lease_id, WaitTold("lease", entry.at_unix_ms, None, holder))
            case LeaseGranted() | LeaseEnded() as body:
                yield from _close_wait(open_waits, body.lease_id, entry)
            case AnswerRequested() as body if entry.sender == "worker":
                open_waits.setdefault(body.ask_id, WaitTold("step", entry.at_unix_ms, None, ", ".join(body.targets)))
            case AnswerGiven() as body if entry.receiver == "worker":
                yield from _close_wait(open_waits, body.ask_id, entry)
            case StepEnded():
                for name in list(open_waits):
                    yield from _close_wait(open_waits, name, entry)
    yield from open_waits.values()


def _close_wait(open_waits: dict[str, WaitTold], name: str, entry: JournalEntry) -> Iterator[WaitTold]:
    if (wait := open_waits.pop(name, None)) is not None:
        yield _make_wait(wait.kind, wait.at_unix_ms, entry.at_unix_ms, wait.what)


def _make_wait(kind: WaitKind, at_unix_ms: int, until_unix_ms: int | None, what: str = "") -> WaitTold:
    return WaitTold(kind, at_unix_ms, None if until_unix_ms is None else max(0, until_unix_ms - at_unix_ms), what)


def attempts_of_step(step_entries: Sequence[JournalEntry], *, has_ended: bool) -> tuple[AttemptTold, ...]:
    """The attempts that began. has_ended: the task, and so what still ran."""
    began: dict[int, int] = {}
    ended: dict[int, JournalEntry] = {}
    for entry in step_entries:
        if isinstance(entry.body, BEGINNINGS):
            began.setdefault(entry.body.attempt, entry.at_unix_ms)
        elif isinstance(entry.body, StepEnded):
            ended.setdefault(entry.body.attempt, entry)
    still = "stopped" if has_ended else "running"
    return tuple(_describe_attempt(number, began[number], ended.get(number), still) for number in began)


def _describe_attempt(number: int, began_unix_ms: int, end: JournalEntry | None, still: str) -> AttemptTold:
    if end is None or not isinstance(end.body, StepEnded):
        return AttemptTold(number, still, began_unix_ms)
    took_ms = max(0, end.at_unix_ms - began_unix_ms)
    return AttemptTold(number, end.body.outcome, began_unix_ms, took_ms, end.body.reasons)
