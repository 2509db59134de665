"""The planner decides: objective -> checked plan -> steps handed out -> the task's end. Always an end, with a reason.

In: TaskSubmitted, replies to the draft's call, verdicts, finished and paused steps, questions between steps, requests
for leases, events from outside, timers, cancels, halts. Out: model calls, steps, answers, leases, matched events,
progress for the gateway. Results are fed forward by reference.

Each family of messages is one module; none calls another. What several need (`assignments`, `drafts`, `ending`,
`plans`) knows no message.
"""

from collections.abc import Mapping

from bulkhead.flow import Decider, Handler, InboxMessage, Send, Transition, handle_message
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.lease import (
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    LeaseRefused,
    LeaseReleaseRequested,
    LeaseRequested,
)
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.outside_event import EventAwaited, EventMatched, EventOccurred
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import PlanDecided
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.step import StepAssigned, StepFinished, StepPaused
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded, TaskSubmitted
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import leases, pauses, peer_questions, planning, progress, step_results, stops
from bulkhead_services.planner.assignments import STEP_TIMER
from bulkhead_services.planner.drafts import MAX_PLAN_BYTES
from bulkhead_services.planner.ending import TASK_TIMER
from bulkhead_services.planner.events import event_channels
from bulkhead_services.planner.state import PlannerState

TIMER_HANDLERS: Mapping[str, Handler[PlannerState]] = {
    TASK_TIMER: stops.on_task_timer_fired,
    STEP_TIMER: step_results.on_step_timer_fired,
    planning.DRAFT_TIMER: planning.on_draft_timer_fired,
    leases.LEASE_TIMER: leases.on_lease_message,
}
"""By the beginning of the timer's key."""


def _on_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    handler = next((handler for prefix, handler in TIMER_HANDLERS.items() if body.key.startswith(prefix)), None)
    return handler(state, message, body) if handler is not None else Transition(state)


HANDLERS: Mapping[type[Body], Handler[PlannerState]] = {
    TaskSubmitted: planning.on_task_submitted,
    ModelCallReplied: planning.on_model_call_replied,
    PlanDecided: planning.on_plan_decided,
    CallDeferred: planning.on_call_deferred,
    CallResumed: planning.on_call_resumed,
    VerdictReached: step_results.on_verdict_reached,
    StepFinished: step_results.on_step_finished,
    StepPaused: pauses.on_step_paused,
    AnswerRequested: peer_questions.on_answer_requested,
    AnswerGiven: peer_questions.on_answer_given,
    LeaseRequested: leases.on_lease_message,
    LeaseReleaseRequested: leases.on_lease_message,
    EventOccurred: event_channels.on_event_message,
    EventAwaited: event_channels.on_event_message,
    EventMatched: step_results.on_event_matched,
    TaskCancelRequested: stops.on_task_cancel_requested,
    TaskHalted: stops.on_task_halted,
    TimerFired: _on_timer_fired,
}


class Planner(Decider[PlannerState]):
    """Decision logic, version 1."""

    service = "planner"
    opening = frozenset({TaskSubmitted, LeaseRequested, LeaseReleaseRequested, EventOccurred, EventAwaited})
    begins = frozenset({StepAssigned})
    begins_task = frozenset({TaskSubmitted})
    says_elsewhere = frozenset({LeaseQueued, LeaseGranted, LeaseEnded, LeaseRefused, EventAwaited, EventMatched})

    def decide(self, state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
        """The transition table of state.py; then questions that can be answered by now, and pauses that changed."""
        if state.phase == "ended":
            return Transition(state)
        after, outputs = handle_message(HANDLERS, state, message)
        after, answers = peer_questions.answer_open_asks(after)
        after, paused = pauses.settle_pauses(state, after, message)
        return Transition(after, (*progress.merge_progress(outputs), *answers, *paused))

    def initial_state(self) -> PlannerState:
        """Before any message."""
        return PlannerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """The text of a drafted plan."""
        if isinstance(body, ModelCallReplied) and body.content and body.content.size_bytes <= MAX_PLAN_BYTES:
            return (body.content,)
        return ()

    def has_ended(self, state: PlannerState) -> bool:
        """True for an ended task."""
        return state.phase == "ended"

    def is_at_rest(self, state: PlannerState) -> bool:
        """A resource that is free, or events, which are known when they come again, where no task began."""
        return state.phase == "new" and state.lease_book.holder is None

    def reject_opening(self, code: str, reason: str) -> tuple[Send, ...]:
        """Messages to send when the one that opens a task had to be rejected: that task ends, too."""
        hint = "this is a bug: look at `bulkhead dead-letters`; then submit again"
        failure = Failure.from_text(code, f"the planner could not take the task: {reason}", hint)
        return (Send("gateway", TaskEnded(status="failed", failure=failure)),)
