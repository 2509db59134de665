"""Replies to calls: of the model, which asks for calls or ends the step; of tools, documents and doors. Pure.

In: `ModelCallReplied`, `ToolCallReplied`, `RetrievalReplied`, `DelegationReplied`. Out: the calls that the model asks
for, its next turn when all of them are answered, or the step's end. Everything is capped. A reply to a call that is not
outstanding is ignored.
"""

import json
from collections.abc import Mapping

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace
from bulkhead.flow.content import reference
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied, Part, ToolAnswer
from bulkhead_contracts.result import (
    Completeness,
    ContentRef,
    Failure,
    Omission,
    cut_completeness,
    merge_completeness,
    merge_labels,
)
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import DelegationReplied, Evidence
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_services.worker import calls
from bulkhead_services.worker.attempts import (
    fail_attempt,
    finish_attempt,
    next_turn,
    record_failed_call,
    record_working_call,
)
from bulkhead_services.worker.state import OutstandingCall, StepAttempt, WorkerState

Reply = ModelCallReplied | ToolCallReplied | RetrievalReplied | DelegationReplied
MADE_ONCE = Failure.from_text(
    "repeated_call",
    "the same call stands twice in one turn, and is made once",
    "if it is to be made twice, call it again in a later turn",
)


def _receive_reply(state: WorkerState, body: Reply, degraded_reason: str) -> tuple[StepAttempt, str] | None:
    """The attempt that waits for this reply, with what the reply cost, lacks and rests on; and the model's call id.
    degraded_reason: for the result, where the reply is degraded."""
    attempt = state.owner_of(body.call_id)
    if attempt is None:
        return None
    outstanding = {call_id: row for call_id, row in attempt.outstanding.items() if call_id != body.call_id}
    labels = attempt.labels, body.provenance
    reasons = attempt.degraded_reasons
    received = replace(
        attempt,
        outstanding=outstanding,
        usage=attempt.usage + body.usage,
        deferrals=0,
        labels=merge_labels(*labels),
        completeness=merge_completeness(attempt.completeness, body.completeness, cut_completeness(labels)),
        degraded_reasons=(*reasons, degraded_reason)[-8:] if body.standing == "degraded" else reasons,
    )
    return received, attempt.outstanding[body.call_id].model_call_id


# The model


def on_model_call_replied(state: WorkerState, message: InboxMessage, body: ModelCallReplied) -> Transition[WorkerState]:
    """The model asks for calls, or its text is the result."""
    received = _receive_reply(state, body, body.standing_reason)
    if received is None:
        return Transition(state)
    attempt, _ = received
    if body.outcome != "answered":
        failure = body.failure or Failure.from_text("model_failed", "the model gave no answer")
        return fail_attempt(state, attempt, failure)
    if body.tool_calls:
        return _send_calls(state, message, attempt, body)
    if body.content is None:
        return fail_attempt(state, attempt, Failure.from_text("empty_answer", "the model answered with nothing"))
    return finish_attempt(state, attempt, body.content)


def _send_calls(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, body: ModelCallReplied
) -> Transition[WorkerState]:
    """Send every call that can be sent, in parallel; the others are answered with an error at once."""
    outcome: calls.OutgoingCall | calls.ImmediateAnswer | Failure
    answers: dict[str, ToolAnswer] = {}
    outstanding: dict[str, OutstandingCall] = {}
    sends: list[Output] = []
    sent_identities: set[str] = set()
    call_errors = attempt.call_errors
    granted = {tool.name: tool for tool in attempt.assigned.tools}
    for index, call in enumerate(body.tool_calls):
        identity = calls.call_identity(call)
        if call.name in granted and granted[call.name].is_consequential and identity in sent_identities:
            # Nearly always a slip. Whoever means it twice says so once he has seen what came of it.
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=MADE_ONCE)
            continue
        if call.name in calls.WAIT_TOOLS:
            outcome = calls.build_wait_request(attempt, message.task, call, index, outstanding)
        else:
            outcome = calls.build_request(attempt, call, index)
        if isinstance(outcome, calls.ImmediateAnswer):
            attempt, answers[call.id] = outcome.attempt, outcome.answer
            sends += outcome.sends
            continue
        if isinstance(outcome, Failure) and call.name in granted:
            # A tool that no call ever reached is missing from the result as much as one that failed.
            attempt = record_failed_call(attempt, call, outcome, slip=True)
        if isinstance(outcome, calls.OutgoingCall) and outcome.call_id in outstanding:
            outcome = Failure.from_text("repeated_call", "the same call stands twice in one turn")
        if isinstance(outcome, Failure):
            call_errors += 1
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=outcome)
        else:
            sent_identities.add(identity)
            outstanding[outcome.call_id] = OutstandingCall(outcome.body, outcome.to, call.id)
            sends.append(Send(outcome.to, outcome.body, grant=attempt.grant, task=outcome.task))
    attempt = replace(
        attempt,
        phase="acting",
        tool_calls=body.tool_calls,
        model_text=body.content,
        answers=answers,
        outstanding=outstanding,
        call_errors=call_errors,
        calls_made=attempt.calls_made + len(sends),
    )
    if failure := _cap_failure(attempt):
        return fail_attempt(state, attempt, failure)
    return next_turn(state, message, attempt).preceded_by(*sends)


def _cap_failure(attempt: StepAttempt) -> Failure | None:
    """Why the calls of this turn are too many."""
    if attempt.call_errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        refused = [answer.error.message for answer in attempt.answers.values() if answer.error is not None]
        last_error = refused[-1] if refused else ""
        reason = f"the model made {attempt.call_errors} calls that no tool can take; last: {last_error}"
        hint = "use a model that calls tools well, or simplify the tools' parameters"
        return Failure.from_text("call_error_cap", reason, hint)
    if attempt.calls_made > bounds.MAX_CALLS_PER_STEP:
        reason = f"over {bounds.MAX_CALLS_PER_STEP} calls in one step"
        return Failure.from_text("call_cap", reason, "the step may loop: look at `bulkhead timeline TASK`")
    return None


# Doers


def on_tool_call_replied(state: WorkerState, message: InboxMessage, body: ToolCallReplied) -> Transition[WorkerState]:
    """A tool has answered. A write that may or may not have happened ends the attempt."""
    received = _receive_reply(state, body, body.failure.message if body.failure else "by its source")
    if received is None:
        return Transition(state)
    attempt, model_call_id = received
    if body.outcome == "uncertain":
        failure = body.failure or Failure.from_text("uncertain", "a write may or may not have happened")
        return fail_attempt(state, attempt, failure.model_copy(update={"code": "uncertain_effect"}))
    if attempt.has_one_call:
        return _finish_one_call(state, attempt, body.content, body.failure)
    call = attempt.call_by_id(model_call_id)
    source = call.name if call is not None else ""
    parts = (Part(kind="tool_result", content=body.content, source=source),) if body.content else ()
    evidence = tuple(Evidence(content=body.content, label=label) for label in body.provenance[:1] if body.content)
    return _record_answer(state, message, attempt, body, model_call_id, parts, evidence)


def on_retrieval_replied(state: WorkerState, message: InboxMessage, body: RetrievalReplied) -> Transition[WorkerState]:
    """Passages of documents have come."""
    received = _receive_reply(state, body, body.failure.message if body.failure else "by its source")
    if received is None:
        return Transition(state)
    attempt, model_call_id = received
    if attempt.has_one_call and body.failure is not None:
        return fail_attempt(state, attempt, body.failure)
    parts = tuple(
        Part(kind="passage", content=row.content, source=row.citation.document, title=row.title)
        for row in body.passages
    )
    evidence = tuple(
        Evidence(content=row.content, label=label, citation=row.citation)
        for row, label in zip(body.passages, body.provenance, strict=False)
    )
    if attempt.has_one_call:
        text = _text_of_passages(body, message.contents)
        # A short text is stored nowhere: its reference carries it as the summary.
        summary = f"{len(body.passages)} passages" if len(text) > bounds.MAX_SUMMARY_CHARS else None
        content = reference("worker", text.encode(), "application/json", summary)
        return finish_attempt(state, _with_evidence(attempt, evidence), content, (text,))
    return _record_answer(state, message, attempt, body, model_call_id, parts, evidence)


def _text_of_passages(body: RetrievalReplied, contents: Mapping[str, str]) -> str:
    """Passages that a plan's own search has found, as JSON: later steps cite it, or refer to its fields."""
    passages = [
        {"document": row.citation.document, "title": row.title, "text": contents[row.content.sha256]}
        for row in body.passages
    ]
    return json.dumps({"passages": passages}, ensure_ascii=False)


def _record_answer(
    state: WorkerState,
    message: InboxMessage,
    attempt: StepAttempt,
    body: ToolCallReplied | RetrievalReplied,
    model_call_id: str,
    parts: tuple[Part, ...],
    evidence: tuple[Evidence, ...],
) -> Transition[WorkerState]:
    """Keep the answer for the model, and what was seen as evidence; budget's refusal ends the attempt."""
    call = attempt.call_by_id(model_call_id)
    if body.failure is None:
        attempt = _with_evidence(record_working_call(attempt, call), evidence)
        answer = ToolAnswer(tool_call_id=model_call_id, parts=parts)
    elif body.failure.code in ("refused_by_budget", "halted"):
        return fail_attempt(state, attempt, body.failure)
    else:
        if body.outcome in ("failed", "refused"):
            attempt = record_failed_call(attempt, call, body.failure, slip=body.failure.code in calls.SLIPS)
        attempt = replace(attempt, call_errors=attempt.call_errors + (body.outcome == "refused"))
        answer = ToolAnswer(tool_call_id=model_call_id, error=body.failure)
    return next_turn(state, message, replace(attempt, answers={**attempt.answers, model_call_id: answer}))


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


def on_delegation_replied(
    state: WorkerState, message: InboxMessage, body: DelegationReplied
) -> Transition[WorkerState]:
    """A program outside has carried the step out, or could not."""
    reason = body.failure.message if body.failure else body.standing_reason or "by its source"
    received = _receive_reply(state, body, reason)
    if received is None:
        return Transition(state)
    return _finish_one_call(state, received[0], body.content, body.failure)


def _finish_one_call(
    state: WorkerState, attempt: StepAttempt, content: ContentRef | None, failure: Failure | None
) -> Transition[WorkerState]:
    """The doer's word ends the attempt."""
    if failure is not None or content is None:
        failure = failure or Failure.from_text("empty_answer", "the step was answered with nothing")
        return fail_attempt(state, attempt, failure)
    return finish_attempt(state, attempt, content)
