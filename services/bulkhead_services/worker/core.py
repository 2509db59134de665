"""The worker decides: one step as an agent loop, by messages: think, act, observe, finish. Everything is capped.

In: StepAssigned, replies of models, tools, retrieval and doors, answers of leases and peers, cancels, pauses, timers.
Out: calls, and at the end the proposed result (to the checker) or the finished step (to the planner).
"""

from typing import Any

from bulkhead.flow import Decider, InboxMessage, Send, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued, LeaseRefused
from bulkhead_contracts.model import ModelCallReplied, Part, ToolAnswer
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Omission, merge_completeness, merge_labels
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import (
    DelegationReplied,
    Evidence,
    StepAssigned,
    StepCancelRequested,
    StepExtended,
    StepFinished,
    StepProposed,
)
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls, delegated, pauses, peer_tools, peers, results, turns
from bulkhead_services.worker.state import Key, StepAttempt, WorkerState, identity_of

Reply = ModelCallReplied | ToolCallReplied | RetrievalReplied | DelegationReplied


class Worker(Decider[WorkerState]):
    """Decision logic, version 1."""

    service = "worker"
    opening = frozenset({StepAssigned})
    begins = frozenset({StepProposed})

    def decide(self, state: WorkerState, message: InboxMessage) -> Transition[WorkerState]:
        """The transition table of state.py; pauses that changed are told first, and ended attempts give back leases."""
        after, outputs = _dispatch_message(state, message)
        # First: whoever hears of a step's end need not hear of its pause.
        after, paused = pauses.settle_pauses(state, after)
        running = ((attempt, after.attempts[key]) for key, attempt in state.attempts.items() if attempt.phase != "over")
        ended = (before for before, current in running if current.phase == "over")
        back = tuple(send for attempt in ended for send in peer_tools.give_back(attempt, message.task))
        return Transition(after, (*paused, *outputs, *back))

    def initial_state(self) -> WorkerState:
        """Before any message."""
        return WorkerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """A worker reads no content: what is not read cannot instruct."""
        return ()

    def has_ended(self, state: WorkerState) -> bool:
        """A task's later steps may still come; memory is bounded by the shell."""
        return False


def _dispatch_message(state: WorkerState, message: InboxMessage) -> Transition[WorkerState]:
    body: Any = message.body
    match body:
        case StepAssigned():
            return _on_step_assigned(state, message, body)
        case ModelCallReplied() | ToolCallReplied() | RetrievalReplied() | DelegationReplied():
            row = state.owner_of(body.call_id)
            return Transition(state) if row is None else _on_call_replied(state, message, *row, body)
        case CallDeferred() | CallResumed() if message.envelope.source == "doors":
            return delegated.on_call_held_or_resumed(state, body)
        case CallDeferred():
            return pauses.on_call_deferred(state, message, body)
        case CallResumed():
            return pauses.ask_again(state, message, body.call_id, resumed=True)
        case TimerFired() if body.key.startswith(pauses.TIMER):
            return pauses.ask_again(state, message, body.key.removeprefix(pauses.TIMER), resumed=False)
        case StepExtended():
            return delegated.on_step_extended(pauses.on_step_extended(state, message, body), body)
        case StepCancelRequested():
            return _on_step_cancel_requested(state, body)
        case LeaseGranted():
            return peers.on_lease_granted(state, message, body)
        case LeaseEnded():
            return peers.on_lease_ended(state, message, body)
        case LeaseRefused():
            return peers.on_lease_refused(state, message, body)
        case LeaseQueued():
            return Transition(state)  # It stands in the inbox for those who ask why the step waits.
        case AnswerGiven():
            return peers.on_answer_given(state, message, body)
        case AnswerRequested():
            return Transition(peers.on_answer_requested(state, body))
        case WaitRefused():
            return peers.on_wait_refused(state, message, body)
        case AgentWarned():
            return Transition(peers.on_agent_warned(state, body))
        case _:
            return Transition(state)


def _on_step_assigned(state: WorkerState, message: InboxMessage, body: StepAssigned) -> Transition[WorkerState]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.attempts:
        return Transition(state)
    attempt = StepAttempt(assigned=body, grant=message.envelope.grant)
    if body.step.kind == "noop":
        finished = StepFinished(**identity_of(body), result=results.result_of_noop(body))
        return Transition(state.with_attempt(key, turns.ended_attempt(attempt)), (Send("planner", finished),))
    if body.delegated is not None:
        return delegated.begin_delegated_step(state, key, attempt)
    return turns.ask_model(state, message, key, attempt)


def _on_step_cancel_requested(state: WorkerState, body: StepCancelRequested) -> Transition[WorkerState]:
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or attempt.phase == "over":
        return Transition(state)
    if delegated.is_at_doors(attempt):
        return delegated.on_step_cancel_requested(state, attempt, body)
    # What was spent until now must be counted, though nobody waits for the result.
    ended = turns.fail_attempt(
        state, key, attempt, Failure.from_text("cancelled", body.reason or "the step was stopped")
    )
    return Transition(ended.state, (*delegated.cancel_agent_calls(attempt), *ended.outputs))


# Replies


def _on_call_replied(
    state: WorkerState, message: InboxMessage, key: Key, attempt: StepAttempt, body: Reply
) -> Transition[WorkerState]:
    _, _, model_call = attempt.outstanding[body.call_id]
    outstanding = {name: row for name, row in attempt.outstanding.items() if name != body.call_id}
    labels = merge_labels(attempt.labels, body.provenance)
    attempt = replace(attempt, outstanding=outstanding, usage=attempt.usage + body.usage, deferrals=0, labels=labels)
    if isinstance(body, ModelCallReplied):
        return _on_model_call_replied(state, message, key, attempt, body)
    standing_reason = body.standing_reason if isinstance(body, DelegationReplied) else ""
    reason = body.failure.message if body.failure else standing_reason or "by its source"
    attempt = _with_lacks(attempt, body.completeness, body.standing, reason)
    if isinstance(body, ToolCallReplied) and body.outcome == "uncertain":
        failure = body.failure or Failure.from_text("uncertain", "a write may or may not have happened")
        return turns.fail_attempt(state, key, attempt, failure.model_copy(update={"code": "uncertain_effect"}))
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        return turns.fail_attempt(state, key, attempt, body.failure)
    if isinstance(body, DelegationReplied) or attempt.assigned.delegated is not None:
        content = None if isinstance(body, RetrievalReplied) else body.content
        return delegated.finish_with_answer(state, key, attempt, content, body.failure)
    return turns.next_turn(state, message, key, _record_answer(attempt, body, model_call))


def _with_lacks(attempt: StepAttempt, lacks: Completeness, standing: str, reason: str) -> StepAttempt:
    """The attempt with what a reply lacks, and why it is degraded."""
    degraded = (*attempt.degraded, reason)[-8:] if standing == "degraded" else attempt.degraded
    return replace(attempt, completeness=merge_completeness(attempt.completeness, lacks), degraded=degraded)


def _on_model_call_replied(
    state: WorkerState, message: InboxMessage, key: Key, attempt: StepAttempt, body: ModelCallReplied
) -> Transition[WorkerState]:
    if body.outcome != "answered":
        failure = body.failure or Failure.from_text("model_failed", "the model gave no answer")
        return turns.fail_attempt(state, key, attempt, failure)
    attempt = _with_lacks(attempt, body.completeness, body.standing, body.standing_reason)
    if body.tool_calls:
        return turns.send_calls(state, message, key, attempt, body)
    if body.content is None:
        empty = Failure.from_text("empty_answer", "the model answered with nothing")
        return turns.fail_attempt(state, key, attempt, empty)
    return turns.finish_attempt(state, key, attempt, body.content)


def _record_answer(attempt: StepAttempt, body: ToolCallReplied | RetrievalReplied, model_call: str) -> StepAttempt:
    """Keep the answer for the model, and what was seen as evidence."""
    call = attempt.call_by_id(model_call)
    name = call.name if call is not None else ""
    if body.failure is not None:
        if body.outcome in ("failed", "refused"):
            slip = body.failure.code in calls.SLIPS
            attempt = results.record_failed_call(attempt, call, body.failure, slip=slip)
        errors = attempt.errors + (body.outcome == "refused")
        answer = ToolAnswer(tool_call_id=model_call, error=body.failure)
        return replace(attempt, answers={**attempt.answers, model_call: answer}, errors=errors)
    parts: tuple[Part, ...]
    if isinstance(body, RetrievalReplied):
        parts = tuple(
            Part(kind="passage", content=row.content, source=row.citation.document, title=row.title)
            for row in body.passages
        )
        evidence = tuple(
            Evidence(content=row.content, label=label, citation=row.citation)
            for row, label in zip(body.passages, body.provenance, strict=False)
        )
    else:
        parts = (Part(kind="tool_result", content=body.content, source=name),) if body.content else ()
        evidence = tuple(Evidence(content=body.content, label=label) for label in body.provenance[:1] if body.content)
    answer = ToolAnswer(tool_call_id=model_call, parts=parts)
    attempt = replace(results.record_working_call(attempt, call), answers={**attempt.answers, model_call: answer})
    return _with_evidence(attempt, evidence)


def _with_evidence(attempt: StepAttempt, seen: tuple[Evidence, ...]) -> StepAttempt:
    """The attempt with what it has not seen before; what is too much is told as an omission."""
    known_sha256 = {row.content.sha256 for row in attempt.evidence}
    evidence = (*attempt.evidence, *(row for row in seen if row.content.sha256 not in known_sha256))
    completeness = attempt.completeness
    if len(evidence) > bounds.MAX_EVIDENCE:
        cut = Omission(reason="pruned", what=f"evidence beyond the first {bounds.MAX_EVIDENCE} pieces")
        completeness = merge_completeness(completeness, Completeness.with_omissions(cut))
        evidence = evidence[: bounds.MAX_EVIDENCE]
    return replace(attempt, evidence=evidence, completeness=completeness)
