"""A task is stopped from outside: cancelled by a person, halted by budget, or out of time. Pure.

In: `TaskCancelRequested`, `TaskHalted`, the timer of the task's deadline. Out: the task's end, with the reason.
"""

from bulkhead.flow import InboxMessage, Send, Transition
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskCancelRequested, TaskStopped
from bulkhead_services.planner.ending import AT_CEILING, end_task
from bulkhead_services.planner.state import STEP_FAILED, PlannerState


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


def on_task_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    """The task's deadline has passed, unless it has moved on meanwhile: then another timer is set for it."""
    if body.due_unix_ms < state.deadline_unix_ms:
        return Transition(state)
    moved = state.deadline_unix_ms + state.limits.lifetime_ms - state.latest_unix_ms - state.limits.deadline_ms
    waited = f" and {moved} ms more, in which people could decide," if moved else ""
    lasted = f"the task's deadline of {state.limits.deadline_ms} ms{waited} passed"
    if state.pauses:
        return _end_while_paused(state, message, f"{lasted} while it was held back")
    waiting = ", ".join(step.plan_step.id for step in state.steps if step.status == "running") or state.phase
    hint = "submit with a longer --deadline, or see `bulkhead timeline TASK` for where the time went"
    failure = Failure.from_text("deadline_exceeded", f"{lasted}; it was waiting for: {waiting}", hint)
    return end_task(state, message, "failed", failure)


def _end_while_paused(state: PlannerState, message: InboxMessage, lasted: str) -> Transition[PlannerState]:
    """End a task that was not resumed; at a ceiling its status is `halted`."""
    pause = next((row for row in state.pauses if row.code == AT_CEILING), state.pauses[0])
    if pause.code == STEP_FAILED:
        failure = Failure.from_text(STEP_FAILED, pause.reason, "nobody skipped it in time: mend it and submit again")
        return end_task(state, message, "failed", failure)
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
    stopped = Send("budget", TaskStopped(code=AT_CEILING, reason=failure.message))
    return Transition(ended.state, (*ended.outputs, stopped))
