"""The planner decides: objective -> checked plan -> steps handed out -> the task's end. Always an end, with a reason.

In: TaskSubmitted, replies to the draft's call, verdicts, finished and paused steps, questions between steps, requests
for leases, timers, cancels, halts. Out: model calls, steps, answers, leases, progress for the gateway. Results are fed
forward by reference.
"""

from typing import Any

from bulkhead.flow import Decider, Decision, Message, Send, SetTimer, replace, standing
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
from bulkhead_services.planner.state import State
from bulkhead_services.planner.steps import Outputs, then


class Planner(Decider[State]):
    """Decision logic, version 1."""

    service = "planner"
    opening = frozenset({TaskSubmitted, LeaseRequested, LeaseReleaseRequested})
    begins = frozenset({StepAssigned})
    begins_task = frozenset({TaskSubmitted})
    says_elsewhere = frozenset({LeaseQueued, LeaseGranted, LeaseEnded, LeaseRefused})

    def decide(self, state: State, message: Message) -> Decision[State]:
        """The transition table of state.py; then questions that can be answered by now, and pauses that changed."""
        if state.phase == "ended":
            return Decision(state)
        after, outputs = _decide(state, message)
        after, answers = peer_questions.settle(after)
        after, paused = pauses.settle(state, after, message)
        return Decision(after, (*progress.merged(outputs), *answers, *paused))

    def initial(self) -> State:
        """Before any message."""
        return State()

    def wants(self, body: Body) -> tuple[ContentRef, ...]:
        """The text of a drafted plan."""
        if (
            isinstance(body, ModelCallReplied)
            and body.content
            and body.content.size_bytes <= draft_reading.MAX_PLAN_BYTES
        ):
            return (body.content,)
        return ()

    def ended(self, state: State) -> bool:
        """Nothing follows an ended task."""
        return state.phase == "ended"

    def rests(self, state: State) -> bool:
        """A resource that is free, in a fold in which no task began."""
        return state.phase == "new" and leases.is_free(state.book)

    def unopened(self, code: str, reason: str) -> tuple[Send, ...]:
        """What to say when the message that opens a task had to be rejected: that task ends, too."""
        hint = "this is a bug: look at `bulkhead dead-letters`; then submit again"
        failure = Failure.of(code, f"the planner could not take the task: {reason}", hint)
        return (Send("gateway", TaskEnded(status="failed", failure=failure)),)


def _decide(state: State, message: Message) -> Decision[State]:
    body: Any = message.body
    match body:
        case TaskSubmitted():
            return _submitted(state, message, body) if state.phase == "new" else Decision(state)
        case ModelCallReplied():
            return _drafted(state, message, body)
        case CallDeferred():
            return drafting.deferred(state, message, body, _undrafted)
        case CallResumed():
            return drafting.ask_again(state, message, body.call_id, resumed=True)
        case VerdictReached():
            return steps.judged(state, message, body)
        case StepFinished():
            return steps.finished(state, message, body)
        case StepPaused():
            return pauses.paused(state, message, body)
        case AnswerRequested():
            return peer_questions.asked(state, body)
        case AnswerGiven():
            return peer_questions.answered(state, body)
        case LeaseRequested() | LeaseReleaseRequested():
            return leases.decide(state, message, body)
        case TimerFired():
            return _timer(state, message, body)
        case TaskCancelRequested():
            return ending.cancelled(state, message, body)
        case TaskHalted():
            return ending.halted(state, message, body)
        case _:
            return Decision(state)


def _submitted(state: State, message: Message, body: TaskSubmitted) -> Decision[State]:
    state = replace(state, objective=body.objective, limits=body.limits, tools=body.tools, check=body.check)
    state = replace(state, output=body.output or DRAFT)
    state = replace(state, route=body.route, labels=body.labels, delegated=body.delegated, roles=body.roles)
    until = body.submitted_unix_ms + body.limits.deadline_ms
    state = replace(state, grant=message.envelope.grant, deadline_unix_ms=until, held=reuse.given(body))
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
        return then(outputs, drafting.draft(state, message, ()))
    notes = (*reuse.check(body.plan.steps, state.held), *plans.check(body.plan.steps, body.tools, checked=body.check))
    notes = notes[: bounds.MAX_PLAN_NOTES]
    if errors := [note.message for note in notes if note.severity == "error"]:
        why = "; ".join(errors)[: bounds.MAX_REASON_CHARS]
        failure = Failure.of("plan_rejected", why, "mend the plan and submit again")
        return then((*outputs, _rejected(state, notes)), ending.end(state, message, "failed", failure))
    return then(outputs, steps.adopt(state, message, body.plan.steps, notes))


def _drafted(state: State, message: Message, body: ModelCallReplied) -> Decision[State]:
    """The model's reply to the draft's call: a plan that runs, or another draft."""
    if not drafting.awaits(state, body.call_id):
        return Decision(state)
    state = replace(state, usage=state.usage + body.usage)
    if body.outcome != "answered" or body.content is None:
        failure = body.failure or Failure.of("no_plan", "the model answered with nothing")
        if failure.code in ending.STOPPED_BY_BUDGET:
            return ending.end(state, message, "halted", failure)
        if failure.code == UNKNOWN_ROUTE:
            return ending.end(state, message, "failed", failure)
        return _undrafted(state, message, (), failure)
    text = message.contents.get(body.content.sha256)
    drafted, notes = draft_reading.read(body, text, state.tools, state.roles)
    if state.submitted is not None:
        more = plans.beyond(drafted, state.submitted.steps, state.tools, state.delegated_by_choice)
        notes = (*more, *notes)[: bounds.MAX_PLAN_NOTES]
    if any(note.severity == "error" for note in notes):
        return then((_rejected(state, notes),), _undrafted(state, message, notes, plans.failure(notes)))
    state = replace(state, drafted=standing.said_of("the plan", body), vain=0)
    return steps.adopt(state, message, drafted, notes)


def _undrafted(state: State, message: Message, notes: tuple[PlanNote, ...], failure: Failure) -> Decision[State]:
    """No plan came of a draft: another draft, then the objective as one step; the end where that is no way."""
    again = drafting.draft_again(state, message, notes)
    if again is not None:
        return again
    if state.submitted is not None or failure.code in drafting.NO_CALL_WORKS:
        return ending.end(state, message, "failed", failure)
    assert state.objective is not None
    step, note = plans.of_objective(state.objective, state.tools, failure.message)
    drafted = Result(standing="degraded", standing_reason=note.message)
    return steps.adopt(replace(state, drafted=drafted, whole=True), message, (step,), (note,))


def _rejected(state: State, notes: tuple[PlanNote, ...]) -> Send:
    return Send("gateway", PlanRejected(draft=state.drafts, notes=notes))


def _timer(state: State, message: Message, body: TimerFired) -> Decision[State]:
    key = body.key
    if key.startswith(TASK_TIMER):
        # When the deadline has moved on meanwhile, another timer is set for it.
        late = body.due_unix_ms < state.deadline_unix_ms
        return Decision(state) if late else ending.out_of_time(state, message)
    if key.startswith(drafting.TIMER):
        return drafting.ask_again(state, message, key.removeprefix(drafting.TIMER), resumed=False)
    if key.startswith(leases.TIMER):
        return leases.decide(state, message, body)
    if key.startswith(steps.TIMER):
        return steps.time_up(state, message, body)
    return Decision(state)
