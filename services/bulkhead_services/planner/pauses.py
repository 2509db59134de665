"""Steps and drafts that are held back: their time stands still, and goes on when they go on. Pure.

In: `StepPaused` of who works on a step; the state before and after any message. Out: `StepExtended` with more time and
a new grant for a step that is held back; `TaskPaused` for the gateway when the task begins to be held back, and when it
goes on. While a person is waited for the task's own clock stands still, too (ADR 0034): its deadline lies then
where it would if he took all his time, and moves back to where it belongs as soon as he decides.
"""

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace
from bulkhead.flow.attempts import key_of
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.task import TaskPaused
from bulkhead_services.planner.assignments import ANSWER_MARGIN_MS, arm_step_timer, make_step_grant, step_deadline
from bulkhead_services.planner.ending import TASK_TIMER
from bulkhead_services.planner.state import STEP_FAILED, Pause, PlannerState


def on_step_paused(state: PlannerState, message: InboxMessage, body: StepPaused) -> Transition[PlannerState]:
    """A step is held back (`active`), or goes on."""
    if not state.may_report(message.envelope.source, body.step_id):
        return Transition(state)
    return _hold_step_back(state, message, body) if body.active else _resume_step(state, message, body)


def _hold_step_back(state: PlannerState, message: InboxMessage, body: StepPaused) -> Transition[PlannerState]:
    """The step may wait until the task's end, and the service that works on it gets as much time."""
    step = state.running_step(body)
    if step is None:
        return Transition(state)
    place, before = (body.step_id, body.attempt, body.plan_version), state.deadline_unix_ms
    pause = Pause(*place, body.code, body.reason, body.until_unix_ms, message.envelope.source)
    state, timer = _move_task_deadline(replace(state, pauses=(*_other_pauses(state, body), pause)), message)
    # The step's timer comes after the task's, which says what the task was held back by.
    state = _with_the_task(state)
    longer = state.pauses if state.deadline_unix_ms > before else (pause,)
    until = max(step.deadline_unix_ms if body.until_unix_ms == 0 else 0, state.deadline_unix_ms - ANSWER_MARGIN_MS)
    return Transition(state, (*timer, *(_extend_step(state, message, row, until) for row in longer if row.source)))


def _resume_step(state: PlannerState, message: InboxMessage, body: StepPaused) -> Transition[PlannerState]:
    """From now on the step has as long as a step that begins."""
    step = state.running_step(body)
    other_pauses = _other_pauses(state, body)
    if step is None or other_pauses == state.pauses:
        return Transition(state)
    [pause] = [row for row in state.pauses if row not in other_pauses]
    state, clock = _move_task_deadline(replace(state, pauses=other_pauses), message)
    step = replace(step, deadline_unix_ms=step_deadline(state, message, step))
    state, timer = arm_step_timer(_with_the_task(state).with_step(step))
    # It has had days to wait in: from now on it has minutes again.
    back = (_extend_step(state, message, pause, step.deadline_unix_ms),) if pause.until_unix_ms else ()
    return Transition(state, (*clock, *timer, *back))


def _other_pauses(state: PlannerState, body: StepPaused) -> tuple[Pause, ...]:
    return tuple(row for row in state.pauses if key_of(row) != key_of(body))


def _extend_step(state: PlannerState, message: InboxMessage, pause: Pause, until_unix_ms: int) -> Send:
    """Time until then for the step of a pause, and a grant that lasts as long."""
    step = state.step(pause.step_id)
    assert step is not None
    extended = StepExtended(
        step_id=pause.step_id, attempt=pause.attempt, plan_version=pause.plan_version, deadline_unix_ms=until_unix_ms
    )
    return Send(
        pause.source, extended, grant=state.grant, step_grant=make_step_grant(state, message, step, until_unix_ms)
    )


def _with_the_task(state: PlannerState) -> PlannerState:
    """Steps that are held back end with the task, wherever its deadline lies."""
    until = state.deadline_unix_ms + ANSWER_MARGIN_MS
    for row in state.pauses:
        if (step := state.step(row.step_id)) is not None:
            state = state.with_step(replace(step, deadline_unix_ms=until))
    return state


def _move_task_deadline(state: PlannerState, message: InboxMessage) -> tuple[PlannerState, tuple[Output, ...]]:
    """The task's deadline, for the pauses that stand now, and its timer where it has moved."""
    until, now_unix_ms, since = _person_wait_until(state), message.time_unix_ms, state.clock_stopped_unix_ms
    if not until and not since:
        return state, ()
    before = state.deadline_unix_ms
    if not since:
        since, state = now_unix_ms, replace(state, own_deadline_unix_ms=before)
    moved = state.own_deadline_unix_ms + max(0, (until or now_unix_ms) - since)
    due = max(state.own_deadline_unix_ms, min(moved, state.latest_unix_ms))
    state = replace(state, clock_stopped_unix_ms=since if until else 0, deadline_unix_ms=due)
    return state, () if due == before else (SetTimer(f"{TASK_TIMER}-{due}", due),)


def _person_wait_until(state: PlannerState) -> int:
    """Until when a person is waited for; 0 when none is."""
    return max((row.until_unix_ms for row in state.pauses), default=0)


def settle_pauses(before: PlannerState, state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    """Forget pauses of what is over; tell the gateway when the task begins to be held back, or goes on, and how long a
    person is waited for."""
    if not (before.pauses or state.pauses):
        return Transition(state)
    pauses = tuple(row for row in state.pauses if _is_current(state, row))
    if pauses != state.pauses:
        state = replace(state, pauses=pauses)
    if state.phase == "ended":
        return Transition(state)
    state, outputs = _move_task_deadline(state, message)
    due = state.deadline_unix_ms if state.deadline_unix_ms != before.deadline_unix_ms else 0
    if pauses and (not before.pauses or due or _person_wait_until(state) != _person_wait_until(before)):
        longest = max(pauses, key=lambda row: row.until_unix_ms)
        task_paused = TaskPaused(
            code=longest.code,
            reason=longest.reason,
            step_id=longest.step_id,
            until_unix_ms=longest.until_unix_ms,
            deadline_unix_ms=due,
        )
        outputs = (*outputs, Send("gateway", task_paused))
    elif before.pauses and not pauses:
        outputs = (*outputs, Send("gateway", TaskPaused(active=False, deadline_unix_ms=due)))
    return Transition(state, outputs)


def _is_current(state: PlannerState, pause: Pause) -> bool:
    if not pause.step_id:
        return state.phase == "drafting" and pause.attempt == state.drafts
    if pause.code == STEP_FAILED:
        step = state.step(pause.step_id)
        is_same_plan = state.plan is not None and state.plan.version == pause.plan_version
        return state.phase == "running" and is_same_plan and step is not None and step.status == "failed"
    return state.running_step(pause) is not None
