"""The judge's call when it is put off, and more time for a case. Pure.

In: `CallDeferred`, `CallResumed`, timers, `StepExtended`. Out: timers, the same call again, and word to the planner
that a step is held back or goes on.
"""

from bulkhead.flow import InboxMessage, Send, SetTimer, Transition, replace
from bulkhead.flow.attempts import key_of
from bulkhead.flow.deferrals import next_deferral
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.types import Body
from bulkhead_services.checker.state import CheckerState
from bulkhead_services.checker.verdicts import decide_unjudged

CALL_TIMER = "again-"


def on_call_deferred(state: CheckerState, message: InboxMessage, body: CallDeferred) -> Transition[CheckerState]:
    """The judge's call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause."""
    case = state.judging_case(body.call_id)
    if case is None:
        return Transition(state)
    # What a call has spent until it is put off is told once, here.
    case = replace(case, usage=case.usage + body.usage)
    deferral = next_deferral(body, case.deferrals)
    if deferral is None:
        return decide_unjudged(state, case, body.reason)
    deferrals, delay_ms = deferral
    case = replace(case, deferrals=deferrals, is_asleep=True, is_held=body.paused)
    timer = SetTimer(f"{CALL_TIMER}{body.call_id}", message.time_unix_ms + delay_ms)
    return Transition(state.with_case(case), (timer,))


def on_call_resumed(state: CheckerState, message: InboxMessage, body: CallResumed) -> Transition[CheckerState]:
    """Ask again: nothing holds the judge's call back any longer."""
    return _repeat_judge_call(state, body.call_id, resumed=True)


def on_timer_fired(state: CheckerState, message: InboxMessage, body: TimerFired) -> Transition[CheckerState]:
    """The judge's call is made again; it may be held back still."""
    return _repeat_judge_call(state, body.key.removeprefix(CALL_TIMER), resumed=False)


def _repeat_judge_call(state: CheckerState, call_id: str, *, resumed: bool) -> Transition[CheckerState]:
    """Repeat the call once each time it was put off: while it is out, a late timer or resume repeats nothing."""
    case = state.judging_case(call_id)
    if case is None or not case.is_asleep:
        return Transition(state)
    assert case.judge_call is not None and case.proposed is not None
    judge_call = case.judge_call
    if case.is_held:
        # The time for which a call was held back is not its own.
        until = max(judge_call.deadline_unix_ms, case.proposed.deadline_unix_ms)
        judge_call = judge_call.model_copy(update={"deadline_unix_ms": until})
    # A call that its timer repeats may be held back still; of one that is resumed it is known that it is not.
    case = replace(case, judge_call=judge_call, is_asleep=False, is_held=case.is_held and not resumed)
    return Transition(state.with_case(case), (Send("model_gateway", judge_call, grant=case.grant),))


def on_step_extended(state: CheckerState, message: InboxMessage, body: StepExtended) -> Transition[CheckerState]:
    """More time for a case, and a grant that lasts as long."""
    case = state.cases.get(key_of(body))
    if case is None or case.proposed is None or body.deadline_unix_ms <= case.proposed.deadline_unix_ms:
        return Transition(state)
    proposed = case.proposed.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return Transition(state.with_case(replace(case, proposed=proposed, grant=message.envelope.grant)))


def pause_messages(before: CheckerState, after: CheckerState, cause: Body) -> tuple[Send, ...]:
    """Word of every case that this decision holds back, or lets go on."""
    outputs = []
    for (version, step, attempt), case in after.cases.items():
        earlier = before.cases.get(case.key)
        if case.is_held == (earlier is not None and earlier.is_held):
            continue
        code, reason = (cause.code, cause.reason) if case.is_held and isinstance(cause, CallDeferred) else ("", "")
        body = StepPaused(
            step_id=step, attempt=attempt, plan_version=version, active=case.is_held, code=code, reason=reason
        )
        outputs.append(Send("planner", body))
    return tuple(outputs)
