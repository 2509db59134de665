"""Decision logic 5 of the worker: a call that is held back sleeps until it is woken, and its step's time stands still.

In: as logic 4; what wakes a call, more time for a step. Out: as logic 4; that a step is held back, and that it goes on.
A call that was put off is asked again once, by whichever comes first of its waking and its timer: while it is out, what
comes late asks nothing, so that no call is ever out twice.
"""

from typing import Any

from bulkhead.flow import Decision, Message, Output, Send, replace
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.types import Body
from bulkhead_services.worker import core
from bulkhead_services.worker.logic4 import WorkerV4
from bulkhead_services.worker.state import Attempt, Key, State

AGAIN = "again-"


class WorkerV5(WorkerV4):
    """Decision logic, version 5."""

    def _decide(self, state: State, message: Message) -> Decision[State]:
        body: Any = message.body
        match body:
            case CallDeferred():
                state = _spent(state, body)
                decision = _slept(state, body, super()._decide(state, message))
            case CallResumed():
                decision = _again(state, message, body.call_id, woken=True)
            case TimerFired() if body.key.startswith(AGAIN):
                decision = _again(state, message, body.key.removeprefix(AGAIN), woken=False)
            case StepExtended():
                return Decision(_extended(state, message, body))
            case _:
                decision = super()._decide(state, message)
        return _told(state, decision, body)


def _spent(state: State, body: CallDeferred) -> State:
    """What was spent on it until it was put off is told once, here."""
    found = state.owner_of(body.call_id)
    if found is None:
        return state
    key, attempt = found
    return state.with_attempt(key, replace(attempt, usage=attempt.usage + body.usage))


def _slept(state: State, body: CallDeferred, decision: Decision[State]) -> Decision[State]:
    """Logic 4 has set its timer, or given it up."""
    found = decision.state.owner_of(body.call_id)
    if found is None:
        return decision
    key, attempt = found
    held = attempt.held | {body.call_id} if body.paused else attempt.held - {body.call_id}
    attempt = replace(attempt, asleep=attempt.asleep | {body.call_id}, held=held)
    return Decision(decision.state.with_attempt(key, attempt), decision.outputs)


def _again(state: State, message: Message, call_id: str, *, woken: bool) -> Decision[State]:
    found = state.owner_of(call_id)
    if found is None or call_id not in found[1].asleep:
        return Decision(state)
    key, attempt = found
    request, to, call = attempt.outstanding[call_id]
    if call_id in attempt.held:
        request = _later(request, attempt, message)
    attempt = replace(
        attempt,
        asleep=attempt.asleep - {call_id},
        # One that asks by itself may be held still; what is lifted is known of one that was woken.
        held=attempt.held - {call_id} if woken else attempt.held,
        outstanding={**attempt.outstanding, call_id: (request, to, call)},
    )
    return Decision(state.with_attempt(key, attempt), (Send(to, request, grant=attempt.grant),))


def _later(request: Any, attempt: Attempt, message: Message) -> Body:
    """The time for which a call was held back is not its own."""
    until = attempt.assigned.deadline_unix_ms
    if isinstance(request, ModelCallRequested):
        until = core.call_deadline(attempt.assigned, message)
    found: Body = request.model_copy(update={"deadline_unix_ms": max(request.deadline_unix_ms, until)})
    return found


def _extended(state: State, message: Message, body: StepExtended) -> State:
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or attempt.phase == "over" or body.deadline_unix_ms <= attempt.assigned.deadline_unix_ms:
        return state
    assigned = attempt.assigned.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return state.with_attempt(key, replace(attempt, assigned=assigned, grant=message.envelope.grant))


def _told(state: State, decision: Decision[State], body: Body) -> Decision[State]:
    """Say of every attempt whether it has begun to be held back, or goes on."""
    said: list[Output] = []
    after = decision.state
    for key, attempt in decision.state.attempts.items():
        before = state.attempts.get(key)
        if not (attempt.asleep or attempt.held or (before is not None and before.held)):
            continue
        held = attempt.held & attempt.outstanding.keys()
        if held != attempt.held or not attempt.asleep <= attempt.outstanding.keys():
            attempt = replace(attempt, held=held, asleep=attempt.asleep & attempt.outstanding.keys())
            after = after.with_attempt(key, attempt)
        if bool(held) != bool(before is not None and before.held):
            said.append(_paused(key, body if held else None))
    # First: whoever hears of a step's end need not hear of its pause.
    return Decision(after, (*said, *decision.outputs))


def _paused(key: Key, why: Body | None) -> Send:
    version, step, attempt = key
    code, reason = (why.code, why.reason) if isinstance(why, CallDeferred) else ("", "")
    return Send(
        "planner",
        StepPaused(
            step_id=step, attempt=attempt, plan_version=version, active=why is not None, code=code, reason=reason
        ),
    )
