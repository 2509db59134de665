"""Decision logic 4 of the planner: logic 3, and steps may ask each other and lease what only one of them may touch.

In: as logic 3; asks and opinions of steps, and, in folds of their own, requests for leases. Out: as logic 3; questions
and answers to steps, leases.
"""

from bulkhead.flow import Decision, Message, Output, Send, SetTimer, replace
from bulkhead_contracts.control import CallDeferred, TimerFired
from bulkhead_contracts.lease import (
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    LeaseRefused,
    LeaseReleaseRequested,
    LeaseRequested,
)
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_services.planner import core, leases, peer_questions
from bulkhead_services.planner.logic3 import PlannerV3
from bulkhead_services.planner.state import State


class PlannerV4(PlannerV3):
    """Decision logic, version 4."""

    opening = frozenset({TaskSubmitted, LeaseRequested, LeaseReleaseRequested})
    begins_task = frozenset({TaskSubmitted})
    says_elsewhere = frozenset({LeaseQueued, LeaseGranted, LeaseEnded, LeaseRefused})

    def rests(self, state: State) -> bool:
        """A resource that is free, in a fold in which no task began."""
        return state.phase == "new" and leases.is_free(state.book)

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As logic 3; then whatever was asked and can be answered by now."""
        body = message.body
        match body:
            case LeaseRequested() | LeaseReleaseRequested():
                return leases.decide(state, message, body)
            case TimerFired() if body.key.startswith(leases.TIMER):
                return leases.decide(state, message, body)
            case AnswerRequested():
                decision = peer_questions.asked(state, body)
            case AnswerGiven():
                decision = peer_questions.answered(state, body)
            case CallDeferred() if body.paused:
                return _paused(state, message, body)
            case _:
                decision = super().decide(state, message)
        decision = Decision(decision.state, tuple(map(_with_role, decision.outputs)))
        if not decision.state.asks:
            return decision
        settled = peer_questions.settle(decision.state)
        return Decision(settled.state, (*decision.outputs, *settled.outputs))


def _with_role(output: Output) -> Output:
    """A step's grant names whose role it plays, so that a halt of that agent reaches its calls."""
    if not isinstance(output, Send) or output.step_grant is None or not isinstance(output.body, StepAssigned):
        return output
    return replace(output, step_grant=output.step_grant.model_copy(update={"role": output.body.step.role}))


def _paused(state: State, message: Message, body: CallDeferred) -> Decision[State]:
    """Somebody halted it: the draft waits for as long as that lasts, and no cap ends it."""
    if state.phase != "drafting" or body.call_id != core.draft_call(state):
        return Decision(state)
    due = message.time_unix_ms + body.after_ms
    return Decision(state, (SetTimer(f"{core.DRAFT_TIMER}-{body.call_id}", due),))
