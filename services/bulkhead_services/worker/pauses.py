"""Calls that are put off: asked again by a timer, or when the halt or breaker that holds them back is gone. Pure.

In: `CallDeferred`, `CallResumed`, timers, more time for a step. Out: timers, the same call again, and word to the
planner that a step is held back or goes on. A call that was put off is asked again once, by whichever comes first of
its resume and its timer: while it is out, what comes late asks nothing, so that no call is ever out twice.
"""

from collections.abc import Mapping

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.types import Body
from bulkhead_services.worker import turns
from bulkhead_services.worker.state import Key, StepAttempt, WorkerState

TIMER = "again-"
ONE_WORD_MS = 1_000


def on_call_deferred(state: WorkerState, message: InboxMessage, body: CallDeferred) -> Transition[WorkerState]:
    """The call sleeps. No cap ends a pause; what is put off for another reason too often fails."""
    row = state.owner_of(body.call_id)
    if row is None:
        return Transition(state)
    key, attempt = row
    # What a call has spent until it is put off is told once, here.
    attempt = replace(attempt, usage=attempt.usage + body.usage)
    after_ms = body.after_ms
    if body.paused:
        held_calls: Mapping[str, CallDeferred] = {**attempt.held, body.call_id: body}
    elif attempt.deferrals >= bounds.MAX_CALL_DEFERRALS:
        reason = f"a call was put off {attempt.deferrals} times; last: {body.reason}"
        failure = Failure.from_text("deferred_too_often", reason, "is the budget service up? see `bulkhead doctor`")
        return turns.fail_attempt(state, key, attempt, failure)
    else:
        held_calls = _without_call(attempt.held, body.call_id)
        attempt = replace(attempt, deferrals=attempt.deferrals + 1)
        after_ms *= min(attempt.deferrals, 8)
    attempt = replace(attempt, asleep=attempt.asleep | {body.call_id}, held=held_calls)
    timer = SetTimer(f"{TIMER}{body.call_id}", message.time_unix_ms + after_ms)
    return Transition(state.with_attempt(key, attempt), (timer,))


def ask_again(state: WorkerState, message: InboxMessage, call_id: str, *, resumed: bool) -> Transition[WorkerState]:
    """Repeat a call that sleeps."""
    row = state.owner_of(call_id)
    if row is None or call_id not in row[1].asleep:
        return Transition(state)
    key, attempt = row
    request, to, call = attempt.outstanding[call_id]
    if call_id in attempt.held:
        request = _with_later_deadline(request, attempt, message)
    attempt = replace(
        attempt,
        asleep=attempt.asleep - {call_id},
        # A call that its timer repeats may be held back still; of one that is resumed it is known that it is not.
        held=_without_call(attempt.held, call_id) if resumed else attempt.held,
        outstanding={**attempt.outstanding, call_id: (request, to, call)},
    )
    return Transition(state.with_attempt(key, attempt), (Send(to, request, grant=attempt.grant),))


def _with_later_deadline(request: Body, attempt: StepAttempt, message: InboxMessage) -> Body:
    """The time for which a call was held back is not its own."""
    until = attempt.assigned.deadline_unix_ms
    if isinstance(request, ModelCallRequested):
        until = turns.call_deadline(attempt.assigned, message)
    before: int = getattr(request, "deadline_unix_ms", 0)
    return request.model_copy(update={"deadline_unix_ms": max(before, until)})


def on_step_extended(state: WorkerState, message: InboxMessage, body: StepExtended) -> WorkerState:
    """An attempt's time from now on, and a grant that lasts as long."""
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or attempt.phase == "over":
        return state
    assigned = attempt.assigned.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return state.with_attempt(key, replace(attempt, assigned=assigned, grant=message.envelope.grant))


def settle_pauses(before: WorkerState, state: WorkerState) -> Transition[WorkerState]:
    """Tell of every attempt whether it has begun to be held back, or goes on, and until when a person has time."""
    outputs: list[Output] = []
    after = state
    for key, attempt in state.attempts.items():
        earlier = before.attempts.get(key)
        was_held = earlier is not None and bool(earlier.held)
        if not (attempt.asleep or attempt.held or was_held):
            continue
        held_calls = {name: deferral for name, deferral in attempt.held.items() if name in attempt.outstanding}
        if held_calls != attempt.held or not attempt.asleep <= attempt.outstanding.keys():
            attempt = replace(attempt, held=held_calls, asleep=attempt.asleep & attempt.outstanding.keys())
            after = after.with_attempt(key, attempt)
        until, was_until = (
            _person_wait_until(held_calls),
            _person_wait_until(earlier.held if earlier is not None else {}),
        )
        # Calls of one turn are asked about within a moment of each other: one word is enough.
        if bool(held_calls) != was_held or bool(until) != bool(was_until) or until > was_until + ONE_WORD_MS:
            outputs.append(_step_paused(key, max(held_calls.values(), key=lambda why: why.until_unix_ms, default=None)))
    return Transition(after, tuple(outputs))


def _without_call(held: Mapping[str, CallDeferred], call_id: str) -> Mapping[str, CallDeferred]:
    return {name: deferral for name, deferral in held.items() if name != call_id}


def _person_wait_until(held: Mapping[str, CallDeferred]) -> int:
    """Until when a person is waited for; 0 when none is."""
    return max((deferral.until_unix_ms for deferral in held.values()), default=0)


def _step_paused(key: Key, why: CallDeferred | None) -> Send:
    version, step, attempt = key
    paused = StepPaused(step_id=step, attempt=attempt, plan_version=version, active=why is not None)
    if why is not None:
        fields = why.model_dump(include={"code", "reason", "until_unix_ms"})
        paused = paused.model_copy(update=fields)
    return Send("planner", paused)
