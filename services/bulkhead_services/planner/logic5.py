"""Decision logic 5 of the planner: what is held back waits where it stands; its time goes on when it goes on.

In: as logic 4; that a step is held back or goes on, what wakes the plan's draft. Out: as logic 4; more time and a new
grant for a step that is held back; for the gateway, that the task is held back and why, and that it goes on. A task
that is still held back at its deadline ends there, with the reason: at its ceiling it is `halted`.
"""

from typing import Any

from bulkhead.flow import Decision, Message, Output, Send, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.result import Failure
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.task import TaskPaused, TaskStopped
from bulkhead_services.planner import core
from bulkhead_services.planner.logic4 import PlannerV4
from bulkhead_services.planner.state import Pause, State, StepState

AT_CEILING = "budget_exceeded"


class PlannerV5(PlannerV4):
    """Decision logic, version 5."""

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As logic 4, over what is held back."""
        if state.phase == "ended":
            return Decision(state)
        body: Any = message.body
        match body:
            case CallDeferred():
                # What was spent on it until it was put off is told once, here.
                state = replace(state, usage=state.usage + body.usage)
                decision = _draft_slept(body, super().decide(state, message))
            case CallResumed():
                decision = _draft_again(state, message, body.call_id, woken=True)
            case TimerFired() if body.key.startswith(core.DRAFT_TIMER):
                name = body.key.removeprefix(f"{core.DRAFT_TIMER}-")
                decision = _draft_again(state, message, name, woken=False)
            case TimerFired() if body.key == core.TASK_TIMER and state.pauses:
                decision = _out_of_time(state, message)
            case StepPaused():
                decision = _held(state, message, body) if body.active else _goes_on(state, message, body)
            case _:
                decision = super().decide(state, message)
        return _told(state, decision)


# The draft


def _draft_slept(body: CallDeferred, decision: Decision[State]) -> Decision[State]:
    """Logic 4 has set its timer, or drafts anew."""
    state = decision.state
    if state.phase != "drafting" or body.call_id != core.draft_call(state):
        return decision
    pauses = (Pause("", state.drafts, 0, body.code, body.reason),) if body.paused else ()
    return Decision(replace(state, asleep=body.call_id, pauses=pauses), decision.outputs)


def _draft_again(state: State, message: Message, call_id: str, *, woken: bool) -> Decision[State]:
    """Once for each time that it was put off: while the call is out, what comes late asks nothing."""
    if state.phase != "drafting" or call_id != core.draft_call(state) or state.asleep != call_id:
        return Decision(state)
    state = replace(state, asleep="", pauses=() if woken else state.pauses)
    return Decision(state, (core.draft_request(state, message),))


# Steps


def _held(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """Its own time stands still: until the task's end it may wait. Who works on it may go on as long."""
    one = core.running(state, body.step_id, body.attempt, body.plan_version)
    if one is None:
        return Decision(state)
    deadline = max(one.deadline_unix_ms, state.deadline_unix_ms - core.ANSWER_MARGIN_MS)
    pause = Pause(body.step_id, body.attempt, body.plan_version, body.code, body.reason)
    # Its timer comes after the task's: that one says what it was held back by.
    until = state.deadline_unix_ms + core.ANSWER_MARGIN_MS
    state = state.with_step(replace(one, deadline_unix_ms=until), pauses=(*_others(state, body), pause))
    extended = StepExtended(
        step_id=body.step_id, attempt=body.attempt, plan_version=body.plan_version, deadline_unix_ms=deadline
    )
    grant = _grant(state, message, one, deadline)
    return Decision(state, (Send(message.envelope.source, extended, grant=state.grant, step_grant=grant),))


def _grant(state: State, message: Message, one: StepState, deadline: int) -> StepGrant:
    """As the one that it began with, for longer."""
    assert state.plan is not None
    return StepGrant(
        tenant=message.tenant,
        task=message.task,
        step_id=one.step.id,
        attempt=one.attempt,
        plan_version=state.plan.version,
        tools=tuple(tool.name for tool in state.tools if tool.name in one.step.tools),
        expires_unix_ms=deadline + core.STEP_GRANT_SLACK_MS,
        role=one.step.role,
    )


def _goes_on(state: State, message: Message, body: StepPaused) -> Decision[State]:
    """From now on it has as long as a step that begins."""
    one = core.running(state, body.step_id, body.attempt, body.plan_version)
    others = _others(state, body)
    if one is None or others == state.pauses:
        return Decision(state)
    last = state.deadline_unix_ms - core.ANSWER_MARGIN_MS
    deadline = max(message.time_unix_ms + 1, min(last, message.time_unix_ms + bounds.DEFAULT_STEP_TIMEOUT_MS))
    state, timer = core.arm(state.with_step(replace(one, deadline_unix_ms=deadline), pauses=others))
    return Decision(state, tuple(timer))


def _others(state: State, body: StepPaused) -> tuple[Pause, ...]:
    mine = (body.step_id, body.attempt, body.plan_version)
    return tuple(one for one in state.pauses if (one.step_id, one.attempt, one.plan_version) != mine)


# The task


def _out_of_time(state: State, message: Message) -> Decision[State]:
    """Nobody let it go on in time."""
    why = next((one for one in state.pauses if one.code == AT_CEILING), state.pauses[0])
    lasted = f"the task's deadline of {state.limits.deadline_ms} ms passed while it was held back"
    if why.code != AT_CEILING:
        return core.end(
            state,
            message,
            "failed",
            Failure.of(
                code="deadline_exceeded",
                message=f"{lasted}: {why.reason}",
                hint="submit it again, with a longer --deadline if it may have to wait",
            ),
        )
    failure = Failure.of(
        code=AT_CEILING,
        message=f"{lasted}, and nobody gave it more: {why.reason}",
        hint=f"submit it again with a higher limit, or fork it: `bulkhead replay {message.task} --from-step N` takes "
        "over what is done; a longer --deadline leaves more time for a top-up",
    )
    ended = core.end(state, message, "halted", failure)
    # What is in flight, and what it cost in all: of a task that budget itself has ended it knows, of this one not.
    return Decision(ended.state, (*ended.outputs, Send("budget", TaskStopped(code=AT_CEILING, reason=failure.message))))


def _told(before: State, decision: Decision[State]) -> Decision[State]:
    """Forget pauses of what is over, and tell who shows the task when it begins to be held back, or goes on."""
    state, outputs = decision
    pauses = tuple(one for one in state.pauses if _stands(state, one))
    if pauses != state.pauses:
        state = replace(state, pauses=pauses)
    said: tuple[Output, ...] = ()
    if pauses and not before.pauses:
        why = pauses[0]
        said = (Send("gateway", TaskPaused(code=why.code, reason=why.reason, step_id=why.step_id)),)
    elif before.pauses and not pauses and state.phase != "ended":
        said = (Send("gateway", TaskPaused(active=False)),)
    return Decision(state, (*outputs, *said))


def _stands(state: State, one: Pause) -> bool:
    if not one.step_id:
        return state.phase == "drafting" and one.attempt == state.drafts
    return core.running(state, one.step_id, one.attempt, one.plan_version) is not None
