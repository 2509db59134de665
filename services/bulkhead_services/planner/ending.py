"""The end of a task: what is stopped, and who is told with which result or failure. Pure.

In: the state of a task and why it ends. Out: cancels to the steps that run, `TaskStopped` to budget where money may
still be spent, and `TaskEnded`, last: to doors of a task that an outside agent carries out, to the gateway of each.
"""

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.result import Failure
from bulkhead_contracts.step import StepCancelRequested
from bulkhead_contracts.task import RUN_ENDED, TaskCancelRequested, TaskEnded, TaskStatus, TaskStopped
from bulkhead_services.planner.state import PlannerState, StepState

TASK_TIMER = "task-deadline"
AT_CEILING = "budget_exceeded"
STOPPED_BY_BUDGET = frozenset({"refused_by_budget", "halted"})
HALTED_BY_BUDGET = STOPPED_BY_BUDGET | {AT_CEILING}


def end_task(
    state: PlannerState, message: InboxMessage, status: TaskStatus, failure: Failure | None
) -> Transition[PlannerState]:
    """The task's end, told to everybody who has to do with it."""
    running = (step for step in state.steps if step.status == "running")
    stop: tuple[Output, ...] = tuple(cancel_step(state, step, "the task has ended") for step in running)
    result = None
    if status == "succeeded" and state.steps:
        last = state.step(state.final)
        result = last.result if last else None
    ended = TaskEnded(
        status=status,
        failure=failure,
        result=result,
        usage=state.usage,
        steps_done=sum(step.status == "done" for step in state.steps),
        steps_total=len(state.steps),
        plan_versions=state.plan.version if state.plan else 0,
        ended_unix_ms=message.time_unix_ms,
    )
    if failure is not None and failure.code not in HALTED_BY_BUDGET:
        # Streams in flight still cost money, and nobody waits for them any more.
        stop = (*stop, Send("budget", TaskStopped(code=failure.code, reason=failure.message)))
    elif failure is None and state.adopted:
        # Its agent may have calls in flight all the same.
        stop = (*stop, Send("budget", TaskStopped(code=RUN_ENDED, reason="the agent's run has ended")))
    if state.adopted:
        stop = (*stop, Send("doors", ended))
    return Transition(replace(state, phase="ended"), (*stop, Send("gateway", ended)))


def on_task_cancel_requested(
    state: PlannerState, message: InboxMessage, body: TaskCancelRequested
) -> Transition[PlannerState]:
    """A person no longer wants the task."""
    reason = body.reason or "cancelled on request"
    return end_task(state, message, "cancelled", Failure.from_text("cancelled", reason))


def on_task_halted(state: PlannerState, message: InboxMessage, body: TaskHalted) -> Transition[PlannerState]:
    """Budget has ended the task."""
    if body.code == AT_CEILING:
        hint = "raise the limit and submit again, or look at `bulkhead timeline` for what was spent"
    else:
        hint = f"`bulkhead why {message.task}` shows why, with the evidence"
    return end_task(state, message, "halted", Failure.from_text(body.code, body.reason, hint))


def on_deadline_passed(state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    """The task's deadline has passed."""
    if state.pauses:
        return _out_of_time_while_paused(state, message)
    waiting = ", ".join(step.step.id for step in state.steps if step.status == "running") or state.phase
    reason = f"{_deadline_passed(state)}; it was waiting for: {waiting}"
    hint = "submit with a longer --deadline, or see `bulkhead timeline TASK` for where the time went"
    failure = Failure.from_text("deadline_exceeded", reason, hint)
    return end_task(state, message, "failed", failure)


def _out_of_time_while_paused(state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    """End a task that was not resumed; at a ceiling its status is `halted`."""
    pause = next((row for row in state.pauses if row.code == AT_CEILING), state.pauses[0])
    lasted = f"{_deadline_passed(state)} while it was held back"
    if pause.code != AT_CEILING:
        longer = "submit it again, with a longer --deadline if it may have to wait"
        failure = Failure.from_text("deadline_exceeded", f"{lasted}: {pause.reason}", longer)
        return end_task(state, message, "failed", failure)
    hint = "submit it again with a higher limit"
    if any(step.status == "done" for step in state.steps):
        hint += f", or fork it: `bulkhead replay {message.task} --from-step N` takes over what is done"
    reason = f"{lasted}, and nobody gave it more: {pause.reason}"
    failure = Failure.from_text(AT_CEILING, reason, f"{hint}; a longer --deadline leaves more time for a top-up")
    ended = end_task(state, message, "halted", failure)
    # Budget knows what was in flight and what it cost of a task that budget itself has ended, but not of this one.
    return Transition(
        ended.state, (*ended.outputs, Send("budget", TaskStopped(code=AT_CEILING, reason=failure.message)))
    )


def _deadline_passed(state: PlannerState) -> str:
    moved = state.deadline_unix_ms + state.limits.lifetime_ms - state.latest_unix_ms - state.limits.deadline_ms
    waited = f" and {moved} ms more, in which people could decide," if moved else ""
    return f"the task's deadline of {state.limits.deadline_ms} ms{waited} passed"


def cancel_step(state: PlannerState, step: StepState, reason: str) -> Send:
    """Tell who works on it to stop the attempt that runs."""
    assert state.plan is not None
    body = StepCancelRequested(
        step_id=step.step.id, attempt=step.attempt, plan_version=state.plan.version, reason=reason
    )
    return Send(step.assignee, body, grant=state.grant)
