"""Decision logic 2 of the planner: logic 1, and what was accepted once is taken over instead of made again.

In: as logic 1; results of earlier steps may come with a submission (a fork). Out: as logic 1; when a plan is replaced,
or a task forks another, steps that are held and unchanged are done from the start: not run again, not paid again.
"""

from bulkhead.flow import Decision, Message, replace
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_services.planner import reuse
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.state import State


class PlannerV2(Planner):
    """Decision logic, version 2: says that results are kept; logic 1 has nothing where they are used."""

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As logic 1, over what is held."""
        if state.phase == "new" and isinstance(message.body, TaskSubmitted):
            state = replace(state, held=reuse.given(message.body), keeps=True)
        return super().decide(state, message)
