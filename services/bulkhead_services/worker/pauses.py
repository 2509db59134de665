"""Calls that are put off: made again by a timer, or when the halt or breaker that holds them back is gone. Pure.

In: `CallDeferred`, `CallResumed`, timers. Out: timers, the same call again, and word to the planner that a step is held
back or goes on. A call that was put off is made again once, by whichever comes first of its resume and its timer: while
it is out, what comes late asks nothing, so that no call is ever out twice. What doors have they make again themselves.
"""

from collections.abc import Mapping

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace
from bulkhead.flow.deferrals import next_deferral
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.step import StepPaused
from bulkhead_contracts.types import Body
from bulkhead_services.worker.attempts import call_deadline, fail_attempt
from bulkhead_services.worker.state import StepAttempt, WorkerState, identity_of

CALL_TIMER = "again-"
ONE_WORD_MS = 1_000


def on_call_deferred(state: WorkerState, message: InboxMessage, body: CallDeferred) -> Transition[WorkerState]:
    """The call sleeps. No cap ends a pause; what is put off for another reason too often fails."""
    if message.envelope.source == "doors":
        return _hold_at_doors(state, body.call_id, {body.call_id: body})
    attempt = state.owner_of(body.call_id)
    if attempt is None:
        return Transition(state)
    # What a call has spent until it is put off is told once, here.
    attempt = replace(attempt, usage=attempt.usage + body.usage)
    deferral = next_deferral(body, attempt.deferrals)
    if deferral is None:
        reason = f"a call was put off {attempt.deferrals} times; last: {body.reason}"
        failure = Failure.from_text("deferred_too_often", reason, "is the budget service up? see `bulkhead doctor`")
        return fail_attempt(state, attempt, failure)
    deferrals, delay_ms = deferral
    held_calls = _without_call(attempt.held_calls, body.call_id)
    if body.paused:
        held_calls = {**attempt.held_calls, body.call_id: body}
    sleeping_calls = attempt.sleeping_calls | {body.call_id}
    attempt = replace(attempt, deferrals=deferrals, sleeping_calls=sleeping_calls, held_calls=held_calls)
    timer = SetTimer(f"{CALL_TIMER}{body.call_id}", message.time_unix_ms + delay_ms)
    return Transition(state.with_attempt(attempt), (timer,))


def on_call_resumed(state: WorkerState, message: InboxMessage, body: CallResumed) -> Transition[WorkerState]:
    """Ask again: nothing holds the call back any longer."""
    if message.envelope.source == "doors":
        return _hold_at_doors(state, body.call_id, {})
    return _repeat_call(state, message, body.call_id, resumed=True)


def on_timer_fired(state: WorkerState, message: InboxMessage, body: TimerFired) -> Transition[WorkerState]:
    """A call is made again; it may be held back still."""
    if not body.key.startswith(CALL_TIMER):
        return Transition(state)
    return _repeat_call(state, message, body.key.removeprefix(CALL_TIMER), resumed=False)


def _hold_at_doors(state: WorkerState, call_id: str, held_calls: Mapping[str, CallDeferred]) -> Transition[WorkerState]:
    """A call of a program outside is held back, or goes on: so does its step."""
    attempt = state.owner_of(call_id)
    if attempt is None or not attempt.is_at_doors:
        return Transition(state)
    return Transition(state.with_attempt(replace(attempt, held_calls=held_calls)))


def _repeat_call(state: WorkerState, message: InboxMessage, call_id: str, *, resumed: bool) -> Transition[WorkerState]:
    attempt = state.owner_of(call_id)
    if attempt is None or call_id not in attempt.sleeping_calls:
        return Transition(state)
    call = attempt.outstanding[call_id]
    if call_id in attempt.held_calls:
        call = call._replace(request=_with_later_deadline(call.request, attempt, message))
    attempt = replace(
        attempt,
        sleeping_calls=attempt.sleeping_calls - {call_id},
        # A call that its timer repeats may be held back still; of one that is resumed it is known that it is not.
        held_calls=_without_call(attempt.held_calls, call_id) if resumed else attempt.held_calls,
        outstanding={**attempt.outstanding, call_id: call},
    )
    return Transition(state.with_attempt(attempt), (Send(call.to, call.request, grant=attempt.grant),))


def _with_later_deadline(request: Body, attempt: StepAttempt, message: InboxMessage) -> Body:
    """The time for which a call was held back is not its own."""
    until = attempt.assigned.deadline_unix_ms
    if isinstance(request, ModelCallRequested):
        until = call_deadline(attempt.assigned, message)
    before: int = getattr(request, "deadline_unix_ms", 0)
    return request.model_copy(update={"deadline_unix_ms": max(before, until)})


def settle_pauses(before: WorkerState, state: WorkerState) -> Transition[WorkerState]:
    """Tell of every attempt whether it has begun to be held back, or goes on, and until when a person has time."""
    outputs: list[Output] = []
    after = state
    for key in {**before.running, **state.running}:
        attempt, earlier = state.running.get(key), before.running.get(key)
        held_before = earlier.held_calls if earlier is not None else {}
        was_held = bool(held_before)
        if attempt is None:
            outputs += [_step_paused(earlier, None)] if earlier is not None and was_held else []
            continue
        if not (attempt.sleeping_calls or attempt.held_calls or was_held):
            continue
        held_calls = {name: deferral for name, deferral in attempt.held_calls.items() if name in attempt.outstanding}
        if held_calls != attempt.held_calls or not attempt.sleeping_calls <= attempt.outstanding.keys():
            sleeping_calls = attempt.sleeping_calls & attempt.outstanding.keys()
            attempt = replace(attempt, held_calls=held_calls, sleeping_calls=sleeping_calls)
            after = after.with_attempt(attempt)
        until, was_until = _person_wait_until(held_calls), _person_wait_until(held_before)
        # Calls of one turn are asked about within a moment of each other: one word is enough.
        if bool(held_calls) != was_held or bool(until) != bool(was_until) or until > was_until + ONE_WORD_MS:
            longest = max(held_calls.values(), key=lambda deferral: deferral.until_unix_ms, default=None)
            outputs.append(_step_paused(attempt, longest))
    return Transition(after, tuple(outputs))


def _without_call(held_calls: Mapping[str, CallDeferred], call_id: str) -> Mapping[str, CallDeferred]:
    return {name: deferral for name, deferral in held_calls.items() if name != call_id}


def _person_wait_until(held_calls: Mapping[str, CallDeferred]) -> int:
    """Until when a person is waited for; 0 when none is."""
    return max((deferral.until_unix_ms for deferral in held_calls.values()), default=0)


def _step_paused(attempt: StepAttempt, longest: CallDeferred | None) -> Send:
    """Word to the planner. longest: the deferral that lasts longest; None when the step goes on."""
    fields = longest.model_dump(include={"code", "reason", "until_unix_ms"}) if longest is not None else {}
    return Send("planner", StepPaused(**identity_of(attempt.assigned), active=longest is not None, **fields))
