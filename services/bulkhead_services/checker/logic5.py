"""Decision logic 5 of the checker: a judge's call that is held back sleeps until it is woken.

In: as logic 4; what wakes a call, more time for a step. Out: as logic 4; that a step is held back, and that it goes on.
As in the worker (services/bulkhead_services/worker/logic5.py), no call is ever out twice.
"""

from typing import Any

from bulkhead.flow import Decision, Message, Send, replace
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_services.checker.logic4 import CheckerV4
from bulkhead_services.checker.state import Case, Key, State

AGAIN = "again-"


class CheckerV5(CheckerV4):
    """Decision logic, version 5."""

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As logic 4, over what is asleep and what is held."""
        body: Any = message.body
        match body:
            case CallDeferred():
                found = state.judging(body.call_id)
                if found is not None:
                    key, case = found
                    # What was spent on it until it was put off is told once, here.
                    state = state.with_case(key, replace(case, usage=case.usage + body.usage))
                decision = super().decide(state, message)
                found = decision.state.judging(body.call_id)
                if found is not None:
                    key, case = found
                    case = replace(case, asleep=True, held=body.paused)
                    decision = Decision(decision.state.with_case(key, case), decision.outputs)
            case CallResumed():
                decision = _again(state, body.call_id, woken=True)
            case TimerFired():
                decision = _again(state, body.key.removeprefix(AGAIN), woken=False)
            case StepExtended():
                return Decision(_extended(state, message, body))
            case _:
                decision = super().decide(state, message)
        return _told(state, decision, body)


def _again(state: State, call_id: str, *, woken: bool) -> Decision[State]:
    found = state.judging(call_id)
    if found is None or not found[1].asleep:
        return Decision(state)
    key, case = found
    assert case.asked is not None and case.proposed is not None
    if case.held:
        until = max(case.asked.deadline_unix_ms, case.proposed.deadline_unix_ms)
        case = replace(case, asked=case.asked.model_copy(update={"deadline_unix_ms": until}))
    case = replace(case, asleep=False, held=case.held and not woken)
    assert case.asked is not None
    return Decision(state.with_case(key, case), (Send("model_gateway", case.asked, grant=case.grant),))


def _extended(state: State, message: Message, body: StepExtended) -> State:
    key = (body.plan_version, body.step_id, body.attempt)
    case = state.cases.get(key)
    if case is None or case.proposed is None or body.deadline_unix_ms <= case.proposed.deadline_unix_ms:
        return state
    proposed = case.proposed.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return state.with_case(key, replace(case, proposed=proposed, grant=message.envelope.grant))


def _told(state: State, decision: Decision[State], body: Any) -> Decision[State]:
    """Say of every case whether it has begun to be held back, or goes on."""
    said = []
    after = decision.state
    for key, case in decision.state.cases.items():
        before = state.cases.get(key)
        waits = case.asked is not None and before is not None and before.asked is not None
        if case.held and waits and case.asked.call_id != before.asked.call_id:  # type: ignore[union-attr]
            case = replace(case, held=False, asleep=False)  # The held call was answered; this is another one.
            after = after.with_case(key, case)
        if case.held != bool(before is not None and before.held):
            said.append(_paused(key, case, body))
    return Decision(after, (*said, *decision.outputs))


def _paused(key: Key, case: Case, body: Any) -> Send:
    version, step, attempt = key
    why = body if case.held else None
    return Send(
        "planner",
        StepPaused(
            step_id=step,
            attempt=attempt,
            plan_version=version,
            active=case.held,
            code=why.code if why is not None else "",
            reason=why.reason if why is not None else "",
        ),
    )
