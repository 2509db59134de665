"""The worker decides: one step as an agent loop, by messages: think, act, observe, finish. Everything is capped.

In: StepAssigned, replies of models, tools, retrieval and doors, answers of leases and peers, cancels, pauses, timers.
Out: calls, and at the end the proposed result (to the checker) or the finished step (to the planner).

Each family of messages is one module; none calls another. What several need (`attempts`, `calls`) knows no message.
"""

from collections.abc import Mapping

from bulkhead.flow import Decider, Handler, InboxMessage, Transition, handle_message
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseRefused
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.retrieval import RetrievalForeseen, RetrievalReplied
from bulkhead_contracts.step import DelegationReplied, StepAssigned, StepCancelRequested, StepExtended, StepProposed
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.worker import maps, pauses, replies, steps, waits
from bulkhead_services.worker.calls import PLAN_CALL_ID_PREFIX, give_back
from bulkhead_services.worker.gates import looked_at_content
from bulkhead_services.worker.state import WorkerState

HANDLERS: Mapping[type[Body], Handler[WorkerState]] = {
    StepAssigned: steps.on_step_assigned,
    StepExtended: steps.on_step_extended,
    RetrievalForeseen: steps.on_retrieval_foreseen,
    StepCancelRequested: steps.on_step_cancel_requested,
    ModelCallReplied: replies.on_model_call_replied,
    ToolCallReplied: replies.on_tool_call_replied,
    RetrievalReplied: replies.on_retrieval_replied,
    DelegationReplied: replies.on_delegation_replied,
    CallDeferred: pauses.on_call_deferred,
    CallResumed: pauses.on_call_resumed,
    TimerFired: pauses.on_timer_fired,
    LeaseGranted: waits.on_lease_granted,
    LeaseEnded: waits.on_lease_ended,
    LeaseRefused: waits.on_lease_refused,
    AnswerGiven: waits.on_answer_given,
    AnswerRequested: waits.on_answer_requested,
    WaitRefused: waits.on_wait_refused,
    AgentWarned: waits.on_agent_warned,
}
"""`LeaseQueued` is not handled: it stands in the inbox for those who ask why the step waits."""


class Worker(Decider[WorkerState]):
    """Decision logic, version 1."""

    service = "worker"
    opening = frozenset({StepAssigned})
    begins = frozenset({StepProposed})

    def decide(self, state: WorkerState, message: InboxMessage) -> Transition[WorkerState]:
        """The transition table of state.py; pauses that changed are told first, and ended attempts give back leases."""
        after, outputs = handle_message(HANDLERS, state, message)
        # First: whoever hears of a step's end need not hear of its pause.
        after, paused = pauses.settle_pauses(state, after)
        ended = (attempt for key, attempt in state.running.items() if key not in after.running)
        back = tuple(send for attempt in ended for send in give_back(attempt, message.task))
        return Transition(after, (*paused, *outputs, *back))

    def initial_state(self) -> WorkerState:
        """Before any message."""
        return WorkerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """The result that a gate or a branch looks at, what a map and a plan's own call are made of, and the passages
        that one finds; no content of a model's step: what is not read cannot instruct."""
        if isinstance(body, StepAssigned):
            return (*looked_at_content(body), *maps.contents_to_read(body), *steps.contents_of_call(body))
        if isinstance(body, RetrievalReplied) and body.call_id.startswith(PLAN_CALL_ID_PREFIX):
            return tuple(row.content for row in body.passages)
        return ()

    def has_ended(self, state: WorkerState) -> bool:
        """A task's later steps may still come; memory is bounded by the shell."""
        return False
