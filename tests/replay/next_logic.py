"""A next version of the decision logic, for tests alone: a mesh is rolled to it as to one that a release would bring.

Its planner tells the gateway every fact in a message of its own; the other deciders decide as before.
"""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider, InboxMessage, Output, Send, Transition
from bulkhead_contracts.task import TaskEnded, list_facts
from bulkhead_services.checker.app import LOGICS as CHECKER
from bulkhead_services.planner.app import LOGICS as PLANNER
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.state import PlannerState
from bulkhead_services.worker.app import LOGICS as WORKER

BEFORE = max(PLANNER)
NEXT = BEFORE + 1


class NextPlanner(Planner):
    """The planner's next version: its difference is small, and stands in every task."""

    def decide(self, state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
        """As before, but no two facts go in one message."""
        decision = super().decide(state, message)
        return Transition(decision.state, tuple(apart for output in decision.outputs for apart in _apart(output)))


def _apart(output: Output) -> tuple[Output, ...]:
    if not isinstance(output, Send) or output.to != "gateway" or output.task:
        return (output,)
    *before, last = list_facts(output.body)
    if isinstance(last, TaskEnded):
        last = last.model_copy(update={"ended_steps": ()})
    return tuple(Send("gateway", fact) for fact in (*before, last))


LOGICS: Mapping[str, Mapping[int, Decider[Any]]] = {
    "planner": {**PLANNER, NEXT: NextPlanner()},
    "worker": {**WORKER, NEXT: WORKER[BEFORE]},
    "checker": {**CHECKER, NEXT: CHECKER[BEFORE]},
}
"""The product's versions and the next one, by decider."""
