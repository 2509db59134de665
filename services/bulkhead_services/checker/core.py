"""The checker decides: plain checks first, then a judge model asked by message. Verdicts carry reasons.

In: StepProposed (with the text of the result and its evidence), the judge's reply, pauses and more time. Out:
VerdictReached for the planner. Each family of messages is one module; none calls another.
"""

from collections.abc import Mapping

from bulkhead.flow import Decider, Handler, InboxMessage, Transition, handle_message
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import StepExtended, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_services.checker import judging, pauses, proposals
from bulkhead_services.checker.state import CheckerState

HANDLERS: Mapping[type[Body], Handler[CheckerState]] = {
    StepProposed: proposals.on_step_proposed,
    ModelCallReplied: proposals.on_model_call_replied,
    CallDeferred: pauses.on_call_deferred,
    CallResumed: pauses.on_call_resumed,
    TimerFired: pauses.on_timer_fired,
    StepExtended: pauses.on_step_extended,
}


class Checker(Decider[CheckerState]):
    """Decision logic, version 1."""

    service = "checker"
    opening = frozenset({StepProposed})

    def decide(self, state: CheckerState, message: InboxMessage) -> Transition[CheckerState]:
        """The transition table of state.py; a case that begins to be held back, or goes on, is told first."""
        after, outputs = handle_message(HANDLERS, state, message)
        return Transition(after, (*pauses.pause_messages(state, after, message.body), *outputs))

    def initial_state(self) -> CheckerState:
        """Before any message."""
        return CheckerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """The result, its evidence and inputs; the judge's words."""
        if isinstance(body, StepProposed):
            evidence, inputs = (
                (row.content for row in judging.countable_evidence(body)),
                (row.result.content for row in body.inputs),
            )
            return tuple(ref for ref in (body.result.content, body.objective, *evidence, *inputs) if ref is not None)
        if isinstance(body, ModelCallReplied) and body.content is not None:
            return (body.content,)
        return ()

    def has_ended(self, state: CheckerState) -> bool:
        """Later steps of the task may still come."""
        return False
