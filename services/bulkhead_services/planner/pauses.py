"""Steps and drafts that are held back: their time stands still, and goes on when they go on. Pure.

In: `StepPaused` of who works on a step; the state before and after any message. Out: `StepExtended` with more time and
a new grant for a step that is held back; `TaskPaused` for the gateway when the task begins to be held back, and when it
goes on. While a person is waited for the task's own clock stands still, too (ADR 0034): its deadline lies then
where it would if he took all his time, and moves back to where it belongs as soon as he decides.
"""

from bulkhead.flow import Decision, Message, Output, Send, SetTimer, replace
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.task import TaskPaused
from bulkhead_services.planner import steps
from bulkhead_services.planner.ending import TASK_TIMER
from bulkhead_services.planner.state import Pause, State


def paused(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """A step is held back (`active`), or goes on."""
    if not steps.carries_out(state, message, body.step_id):
        return Decision(state)
    return _held_back(state, message, body) if body.active else _goes_on(state, message, body)


def _held_back(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """The step may wait until the task's end, and the service that works on it gets as much time."""
    step = steps.running(state, body.step_id, body.attempt, body.plan_version)
    if step is None:
        return Decision(state)
    place, before = (body.step_id, body.attempt, body.plan_version), state.deadline_unix_ms
    pause = Pause(*place, body.code, body.reason, body.until_unix_ms, message.envelope.source)
    state, timer = _clock(replace(state, pauses=(*_others(state, body), pause)), message)
    # The step's timer comes after the task's, which says what the task was held back by.
    state = _with_the_task(state)
    longer = state.pauses if state.deadline_unix_ms > before else (pause,)
    until = max(
        step.deadline_unix_ms if body.until_unix_ms == 0 else 0, state.deadline_unix_ms - steps.ANSWER_MARGIN_MS
    )
    return Decision(state, (*timer, *(_extended(state, message, row, until) for row in longer if row.step_id)))


def _goes_on(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """From now on the step has as long as a step that begins."""
    step = steps.running(state, body.step_id, body.attempt, body.plan_version)
    others = _others(state, body)
    if step is None or others == state.pauses:
        return Decision(state)
    [pause] = [row for row in state.pauses if row not in others]
    state, clock = _clock(replace(state, pauses=others), message)
    step = replace(step, deadline_unix_ms=steps.deadline(state, message, step))
    state, timer = steps.arm(_with_the_task(state).with_step(step))
    # It has had days to wait in: from now on it has minutes again.
    back = (_extended(state, message, pause, step.deadline_unix_ms),) if pause.until_unix_ms else ()
    return Decision(state, (*clock, *timer, *back))


def _others(state: State, body: StepPaused) -> tuple[Pause, ...]:
    mine = (body.step_id, body.attempt, body.plan_version)
    return tuple(row for row in state.pauses if (row.step_id, row.attempt, row.plan_version) != mine)


def _extended(state: State, message: Message, pause: Pause, until_unix_ms: int) -> Send:
    """Time until then for the step of a pause, and a grant that lasts as long."""
    step = state.step(pause.step_id)
    assert step is not None
    extended = StepExtended(
        step_id=pause.step_id, attempt=pause.attempt, plan_version=pause.plan_version, deadline_unix_ms=until_unix_ms
    )
    return Send(pause.source, extended, grant=state.grant, step_grant=steps.grant(state, message, step, until_unix_ms))


def _with_the_task(state: State) -> State:
    """Steps that are held back end with the task, wherever its deadline lies."""
    until = state.deadline_unix_ms + steps.ANSWER_MARGIN_MS
    for row in state.pauses:
        if (step := state.step(row.step_id)) is not None:
            state = state.with_step(replace(step, deadline_unix_ms=until))
    return state


def _clock(state: State, message: Message) -> tuple[State, tuple[Output, ...]]:
    """The task's deadline, for the pauses that stand now, and its timer where it has moved."""
    until, now, since = _until(state), message.time_unix_ms, state.stopped_unix_ms
    if not until and not since:
        return state, ()
    before = state.deadline_unix_ms
    if not since:
        since, state = now, replace(state, own_deadline_unix_ms=before)
    moved = state.own_deadline_unix_ms + max(0, (until or now) - since)
    due = max(state.own_deadline_unix_ms, min(moved, state.latest_unix_ms))
    state = replace(state, stopped_unix_ms=since if until else 0, deadline_unix_ms=due)
    return state, () if due == before else (SetTimer(f"{TASK_TIMER}-{due}", due),)


def _until(state: State) -> int:
    """Until when a person is waited for; 0 when none is."""
    return max((row.until_unix_ms for row in state.pauses), default=0)


def settle(before: State, state: State, message: Message) -> Decision[State]:
    """Forget pauses of what is over; tell the gateway when the task begins to be held back, or goes on, and how long a
    person is waited for."""
    if not (before.pauses or state.pauses):
        return Decision(state)
    pauses = tuple(row for row in state.pauses if _stands(state, row))
    if pauses != state.pauses:
        state = replace(state, pauses=pauses)
    if state.phase == "ended":
        return Decision(state)
    state, outputs = _clock(state, message)
    due = state.deadline_unix_ms if state.deadline_unix_ms != before.deadline_unix_ms else 0
    if pauses and (not before.pauses or due or _until(state) != _until(before)):
        first = max(pauses, key=lambda row: row.until_unix_ms)
        told = TaskPaused(
            code=first.code, reason=first.reason, step_id=first.step_id, until_unix_ms=first.until_unix_ms
        )
        outputs = (*outputs, Send("gateway", told.model_copy(update={"deadline_unix_ms": due})))
    elif before.pauses and not pauses:
        outputs = (*outputs, Send("gateway", TaskPaused(active=False, deadline_unix_ms=due)))
    return Decision(state, outputs)


def _stands(state: State, pause: Pause) -> bool:
    if not pause.step_id:
        return state.phase == "drafting" and pause.attempt == state.drafts
    return steps.running(state, pause.step_id, pause.attempt, pause.plan_version) is not None
