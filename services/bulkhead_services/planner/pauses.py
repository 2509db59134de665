"""Steps and drafts that a halt or a breaker holds back: their time stands still, and goes on when they go on. Pure.

In: `StepPaused` of a worker or the checker; the state before and after any message. Out: `StepExtended` with more time
and a new grant for a step that is held back; `TaskPaused` for the gateway when the task begins to be held back, and
when it goes on.
"""

from bulkhead.flow import Decision, Message, Output, Send, replace
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.task import TaskPaused
from bulkhead_services.planner import steps
from bulkhead_services.planner.state import Pause, State


def paused(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """A step is held back (`active`), or goes on."""
    return _held_back(state, message, body) if body.active else _goes_on(state, message, body)


def _held_back(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """The step may wait until the task's end, and the service that works on it gets as much time."""
    step = steps.running(state, body.step_id, body.attempt, body.plan_version)
    if step is None:
        return Decision(state)
    deadline = max(step.deadline_unix_ms, state.deadline_unix_ms - steps.ANSWER_MARGIN_MS)
    pause = Pause(body.step_id, body.attempt, body.plan_version, body.code, body.reason)
    # The step's timer comes after the task's, which says what the task was held back by.
    until = state.deadline_unix_ms + steps.ANSWER_MARGIN_MS
    state = state.with_step(replace(step, deadline_unix_ms=until), pauses=(*_others(state, body), pause))
    extended = StepExtended(
        step_id=body.step_id, attempt=body.attempt, plan_version=body.plan_version, deadline_unix_ms=deadline
    )
    grant = steps.grant(state, message, step, deadline)
    return Decision(state, (Send(message.envelope.source, extended, grant=state.grant, step_grant=grant),))


def _goes_on(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """From now on the step has as long as a step that begins."""
    step = steps.running(state, body.step_id, body.attempt, body.plan_version)
    others = _others(state, body)
    if step is None or others == state.pauses:
        return Decision(state)
    step = replace(step, deadline_unix_ms=steps.deadline(state, message, step))
    state, timer = steps.arm(state.with_step(step, pauses=others))
    return Decision(state, tuple(timer))


def _others(state: State, body: StepPaused) -> tuple[Pause, ...]:
    mine = (body.step_id, body.attempt, body.plan_version)
    return tuple(row for row in state.pauses if (row.step_id, row.attempt, row.plan_version) != mine)


def settle(before: State, state: State) -> Decision[State]:
    """Forget pauses of what is over; tell the gateway when the task begins to be held back, or goes on."""
    if not (before.pauses or state.pauses):
        return Decision(state)
    pauses = tuple(row for row in state.pauses if _stands(state, row))
    if pauses != state.pauses:
        state = replace(state, pauses=pauses)
    outputs: tuple[Output, ...] = ()
    if pauses and not before.pauses:
        first = pauses[0]
        outputs = (Send("gateway", TaskPaused(code=first.code, reason=first.reason, step_id=first.step_id)),)
    elif before.pauses and not pauses and state.phase != "ended":
        outputs = (Send("gateway", TaskPaused(active=False)),)
    return Decision(state, outputs)


def _stands(state: State, pause: Pause) -> bool:
    if not pause.step_id:
        return state.phase == "drafting" and pause.attempt == state.drafts
    return steps.running(state, pause.step_id, pause.attempt, pause.plan_version) is not None
