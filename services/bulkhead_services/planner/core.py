"""The planner decides: objective -> checked plan -> steps handed out -> the task's end. Always an end, with a reason.

In: TaskSubmitted, replies to the draft's call, verdicts, finished and paused steps, questions between steps, requests
for leases, timers, cancels, halts. Out: model calls, steps, answers, leases, progress for the gateway. Results are fed
forward by reference.
"""

from typing import Any

from bulkhead.flow import Decider, InboxMessage, Send, SetTimer, Transition, replace, standing
from bulkhead_contracts import bounds
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
from bulkhead_contracts.model import UNKNOWN_ROUTE, ModelCallReplied
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import PlanNote, PlanRejected
from bulkhead_contracts.result import ContentRef, Failure, Result
from bulkhead_contracts.step import StepAssigned, StepFinished, StepPaused
from bulkhead_contracts.task import TaskAccepted, TaskCancelRequested, TaskEnded, TaskSubmitted
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import (
    draft_reading,
    drafting,
    ending,
    leases,
    pauses,
    peer_questions,
    plans,
    progress,
    reuse,
    steps,
)
from bulkhead_services.planner.ending import TASK_TIMER
from bulkhead_services.planner.state import PlannerState
from bulkhead_services.planner.steps import Outputs, prepend_outputs


class Planner(Decider[PlannerState]):
    """Decision logic, version 1."""

    service = "planner"
    opening = frozenset({TaskSubmitted, LeaseRequested, LeaseReleaseRequested})
    begins = frozenset({StepAssigned})
    begins_task = frozenset({TaskSubmitted})
    says_elsewhere = frozenset({LeaseQueued, LeaseGranted, LeaseEnded, LeaseRefused})

    def decide(self, state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
        """The transition table of state.py; then questions that can be answered by now, and pauses that changed."""
        if state.phase == "ended":
            return Transition(state)
        after, outputs = _dispatch_message(state, message)
        after, answers = peer_questions.answer_open_asks(after)
        after, paused = pauses.settle_pauses(state, after, message)
        return Transition(after, (*progress.merge_progress(outputs), *answers, *paused))

    def initial_state(self) -> PlannerState:
        """Before any message."""
        return PlannerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """The text of a drafted plan."""
        if (
            isinstance(body, ModelCallReplied)
            and body.content
            and body.content.size_bytes <= draft_reading.MAX_PLAN_BYTES
        ):
            return (body.content,)
        return ()

    def has_ended(self, state: PlannerState) -> bool:
        """True for an ended task."""
        return state.phase == "ended"

    def is_at_rest(self, state: PlannerState) -> bool:
        """A resource that is free, in a fold in which no task began."""
        return state.phase == "new" and leases.is_free(state.book)

    def reject_opening(self, code: str, reason: str) -> tuple[Send, ...]:
        """Messages to send when the one that opens a task had to be rejected: that task ends, too."""
        hint = "this is a bug: look at `bulkhead dead-letters`; then submit again"
        failure = Failure.from_text(code, f"the planner could not take the task: {reason}", hint)
        return (Send("gateway", TaskEnded(status="failed", failure=failure)),)


def _dispatch_message(state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    body: Any = message.body
    match body:
        case TaskSubmitted():
            return _on_task_submitted(state, message, body) if state.phase == "new" else Transition(state)
        case ModelCallReplied():
            return _on_model_call_replied(state, message, body)
        case CallDeferred():
            return drafting.on_call_deferred(state, message, body, _redraft_or_run_whole)
        case CallResumed():
            return drafting.ask_again(state, message, body.call_id, resumed=True)
        case VerdictReached():
            return steps.on_verdict_reached(state, message, body)
        case StepFinished():
            return steps.on_step_finished(state, message, body)
        case StepPaused():
            return pauses.on_step_paused(state, message, body)
        case AnswerRequested():
            return peer_questions.on_answer_requested(state, body)
        case AnswerGiven():
            return peer_questions.on_answer_given(state, body)
        case LeaseRequested() | LeaseReleaseRequested():
            return leases.on_lease_message(state, message, body)
        case TimerFired():
            return _on_timer_fired(state, message, body)
        case TaskCancelRequested():
            return ending.on_task_cancel_requested(state, message, body)
        case TaskHalted():
            return ending.on_task_halted(state, message, body)
        case _:
            return Transition(state)


def _on_task_submitted(state: PlannerState, message: InboxMessage, body: TaskSubmitted) -> Transition[PlannerState]:
    state = replace(state, objective=body.objective, limits=body.limits, tools=body.tools, check=body.check)
    state = replace(state, output=body.output or DRAFT)
    state = replace(state, route=body.route, labels=body.labels, delegated=body.delegated, roles=body.roles)
    until = body.submitted_unix_ms + body.limits.deadline_ms
    state = replace(state, grant=message.envelope.grant, deadline_unix_ms=until, held=reuse.results_of_submission(body))
    state = replace(state, latest_unix_ms=body.submitted_unix_ms + body.limits.lifetime_ms)
    state = replace(state, submitted=body.plan, replan=body.replan)
    if body.plan is not None:
        # What was submitted as a plan bounds the task: no text that a model reads later can add a tool to it.
        state = replace(state, tools=plans.tools_of(body.plan.steps, body.tools, body.delegated))
    outputs: Outputs = (
        Send("gateway", TaskAccepted(deadline_unix_ms=until, delivery=state.output.delivery, left_out=body.left_out)),
        SetTimer(TASK_TIMER, state.deadline_unix_ms),
    )
    if body.plan is None:
        return prepend_outputs(outputs, drafting.request_draft(state, message, ()))
    notes = (
        *reuse.check_given_results(body.plan.steps, state.held),
        *plans.check_plan(body.plan.steps, body.tools, checked=body.check),
    )
    notes = notes[: bounds.MAX_PLAN_NOTES]
    if errors := [note.message for note in notes if note.severity == "error"]:
        reason = "; ".join(errors)[: bounds.MAX_REASON_CHARS]
        failure = Failure.from_text("plan_rejected", reason, "mend the plan and submit again")
        return prepend_outputs(
            (*outputs, _plan_rejected(state, notes)), ending.end_task(state, message, "failed", failure)
        )
    return prepend_outputs(outputs, steps.adopt_plan(state, message, body.plan.steps, notes))


def _on_model_call_replied(
    state: PlannerState, message: InboxMessage, body: ModelCallReplied
) -> Transition[PlannerState]:
    """The model's reply to the draft's call: a plan that runs, or another draft."""
    if not drafting.is_awaited_call(state, body.call_id):
        return Transition(state)
    state = replace(state, usage=state.usage + body.usage)
    if body.outcome != "answered" or body.content is None:
        failure = body.failure or Failure.from_text("no_plan", "the model answered with nothing")
        if failure.code in ending.STOPPED_BY_BUDGET:
            return ending.end_task(state, message, "halted", failure)
        if failure.code == UNKNOWN_ROUTE:
            return ending.end_task(state, message, "failed", failure)
        return _redraft_or_run_whole(state, message, (), failure)
    text = message.contents.get(body.content.sha256)
    drafted, notes = draft_reading.read_reply(body, text, state.tools, state.roles)
    if state.submitted is not None:
        effect_notes = plans.effects_beyond(drafted, state.submitted.steps, state.tools, state.delegated_by_choice)
        notes = (*effect_notes, *notes)[: bounds.MAX_PLAN_NOTES]
    if any(note.severity == "error" for note in notes):
        return prepend_outputs(
            (_plan_rejected(state, notes),),
            _redraft_or_run_whole(state, message, notes, plans.rejection_failure(notes)),
        )
    state = replace(state, drafted=standing.standing_of_reply("the plan", body), vain=0)
    return steps.adopt_plan(state, message, drafted, notes)


def _redraft_or_run_whole(
    state: PlannerState, message: InboxMessage, notes: tuple[PlanNote, ...], failure: Failure
) -> Transition[PlannerState]:
    """Go on where no draft is a plan: redraft, then the objective as one step, or the end where that is no way."""
    next_draft = drafting.draft_again(state, message, notes)
    if next_draft is not None:
        return next_draft
    if state.submitted is not None or failure.code in drafting.NO_CALL_WORKS:
        return ending.end_task(state, message, "failed", failure)
    assert state.objective is not None
    step, note = plans.plan_of_objective(state.objective, state.tools, failure.message)
    drafted = Result(standing="degraded", standing_reason=note.message)
    return steps.adopt_plan(replace(state, drafted=drafted, whole=True), message, (step,), (note,))


def _plan_rejected(state: PlannerState, notes: tuple[PlanNote, ...]) -> Send:
    return Send("gateway", PlanRejected(draft=state.drafts, notes=notes))


def _on_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    key = body.key
    if key.startswith(TASK_TIMER):
        # When the deadline has moved on meanwhile, another timer is set for it.
        late = body.due_unix_ms < state.deadline_unix_ms
        return Transition(state) if late else ending.on_deadline_passed(state, message)
    if key.startswith(drafting.TIMER):
        return drafting.ask_again(state, message, key.removeprefix(drafting.TIMER), resumed=False)
    if key.startswith(leases.TIMER):
        return leases.on_lease_message(state, message, body)
    if key.startswith(steps.TIMER):
        return steps.on_step_timer_fired(state, message, body)
    return Transition(state)
