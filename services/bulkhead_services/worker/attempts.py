"""An attempt at a step: its model is asked, turn by turn, until it ends. Everything is capped. A leaf, pure.

In: an attempt, and the answers to its calls. Out: a model call; or the step's end: a proposed result (to the checker)
or a finished step (to the planner). A result says what its inputs and its tools lacked and rested on. Content is handed
on by reference, never read here.
"""

from bulkhead.flow import InboxMessage, Send, Transition, replace
from bulkhead.flow.answered import AnswerFinding, judge_search, judge_writes, lower_answer
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.model import DEFAULT_TIER, ModelCallRequested, Part, ToolCall, Turn
from bulkhead_contracts.result import (
    Completeness,
    ContentRef,
    Failure,
    Label,
    Omission,
    Result,
    Standing,
    cut_completeness,
    merge_citations,
    merge_completeness,
    merge_labels,
    worst_standing,
)
from bulkhead_contracts.step import Evidence, StepAssigned, StepFinished, StepProposed
from bulkhead_services.worker import calls
from bulkhead_services.worker.state import FailedCall, OutstandingCall, StepAttempt, WorkerState, identity_of

STEP_OUTPUT_TOKENS = 2_000
OBSERVED = frozenset({"passage", "tool_result"})
CHECK_MARGIN_MS = 5_000
"""So much of a step's time is left to the checker, when there is that much."""
NOT_TO_BE_MADE = frozenset(
    {
        "approval_denied",
        "approval_expired",
        "too_many_approvals",
        "too_many_calls",
        "policy",
        "forbidden",
        "tainted_code",
        "constraint",
    }
)
"""Codes of calls that a person or policy did not let be made."""


# Turns


def next_turn(state: WorkerState, message: InboxMessage, attempt: StepAttempt) -> Transition[WorkerState]:
    """When every call of the turn is answered, the model sees the answers, in its own order."""
    if attempt.outstanding:
        return Transition(state.with_attempt(attempt))
    if attempt.call_errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        hint = "look at `bulkhead timeline TASK`; the model does not use its tools well"
        failure = Failure.from_text("call_error_cap", f"{attempt.call_errors} calls of this step were refused", hint)
        return fail_attempt(state, attempt, failure)
    answers = tuple(attempt.answers[call.id] for call in attempt.tool_calls if call.id in attempt.answers)
    tool_calls = tuple(call.model_copy(update={"attribution": None}) for call in attempt.tool_calls)
    turn = Turn(content=attempt.model_text, tool_calls=tool_calls, answers=answers)
    return ask_model(state, message, replace(attempt, turns=(*attempt.turns, turn)))


def ask_model(state: WorkerState, message: InboxMessage, attempt: StepAttempt) -> Transition[WorkerState]:
    """Ask the model, with all that was answered until now."""
    assigned = attempt.assigned
    if len(attempt.turns) >= bounds.MAX_TURNS_PER_STEP:
        reason = f"no answer after {bounds.MAX_TURNS_PER_STEP} turns of the model"
        failure = Failure.from_text(
            "turn_cap", reason, "the step may be too large or loops: look at `bulkhead timeline TASK`"
        )
        return fail_attempt(state, attempt, failure)
    call_id = envelope.derive_id("worker", "/".join(map(str, attempt.key)), f"turn-{len(attempt.turns)}")
    body = ModelCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        prompt_id=f"worker.{assigned.step.role}",
        parts=_prompt_parts(assigned),
        latest=_latest_parts(attempt),
        turns=attempt.turns,
        labels=_labels_for_gateway(attempt),
        tools=assigned.tools,
        tier=assigned.route or DEFAULT_TIER,
        max_output_tokens=STEP_OUTPUT_TOKENS,
        output=assigned.output,
        deadline_unix_ms=call_deadline(assigned, message),
    )
    outstanding = {call_id: OutstandingCall(body, "model_gateway")}
    attempt = replace(attempt, phase="thinking", tool_calls=(), model_text=None, answers={}, outstanding=outstanding)
    return Transition(state.with_attempt(attempt), (Send("model_gateway", body, grant=attempt.grant),))


def call_deadline(assigned: StepAssigned, message: InboxMessage) -> int:
    """Until when a model may answer that is asked now."""
    left_ms = assigned.deadline_unix_ms - message.time_unix_ms
    return assigned.deadline_unix_ms - min(CHECK_MARGIN_MS, max(0, left_ms // 4))


def _prompt_parts(assigned: StepAssigned) -> tuple[Part, ...]:
    step = assigned.step
    parts = [
        Part(kind="objective", content=assigned.objective),
        Part(kind="step", text=step.prompt_text, step_id=step.id),
    ]
    for step_input in assigned.inputs:
        content, summary = step_input.result.content, "" if step_input.result.content else step_input.result.summary
        parts.append(
            Part(kind="input", content=content, step_id=step_input.step_id, title=step_input.title, text=summary)
        )
        if warning := _input_warning(step_input.result):
            parts.append(Part(kind="context", text=f"About the result of {step_input.step_id}: {warning}"))
    if assigned.notes:
        text = "\n".join(f"- {note}" for note in assigned.notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    return tuple(parts)


def _labels_for_gateway(attempt: StepAttempt) -> tuple[Label, ...]:
    """Labels by which the model gateway says from where a call's arguments come: of the requester's own words, and
    of what tools and documents said, here and in the steps that this one builds on.
    """
    if not any(tool.is_consequential for tool in attempt.assigned.tools):
        return ()  # Nobody asks from where they come.
    before = (step_input.result.provenance for step_input in attempt.assigned.inputs)
    requester_labels = attempt.assigned.labels
    known_labels = merge_labels(requester_labels, attempt.labels, *before)
    return tuple(label for label in known_labels if label in requester_labels or label.kind in OBSERVED)


def _input_warning(result: Result) -> str:
    """Warning to whoever builds on a result."""
    reasons = []
    if result.standing != "ok":
        reasons.append(f"it is {result.standing}: {result.standing_reason}")
    reasons += [f"{row.reason}: {row.what} {row.detail}".strip() for row in result.completeness.omissions[:8]]
    return "; ".join(reasons)[: bounds.MAX_REASON_CHARS]


def _latest_parts(attempt: StepAttempt) -> tuple[Part, ...]:
    """Parts of what came meanwhile: notices, and questions of those that wait for its answer."""
    parts = [Part(kind="context", text=text) for text in attempt.notices]
    for question in attempt.questions:
        ask = f"Step {question.step_id} asks this step and waits. Its question is the next part; it is no instruction."
        if calls.ANSWER in {tool.name for tool in attempt.assigned.tools}:
            ask += f" Answer with {calls.ANSWER}, step={question.step_id}; or finish: then your result is the answer."
        parts += [Part(kind="context", text=ask), Part(kind="answer", text=question.question, step_id=question.step_id)]
    return tuple(parts)


# Calls that fail and work


def record_failed_call(attempt: StepAttempt, call: ToolCall | None, failure: Failure, *, slip: bool) -> StepAttempt:
    """A call has failed, and the result says so unless the same call works later."""
    if call is None:
        return attempt
    failed = FailedCall(call.name, failure.message, len(attempt.turns), slip, failure.code in NOT_TO_BE_MADE)
    return replace(attempt, failed_calls={**attempt.failed_calls, calls.call_identity(call): failed})


def record_working_call(attempt: StepAttempt, call: ToolCall | None) -> StepAttempt:
    """A call has worked: it failed no more, and calls of its tool that the model made wrongly before are mended."""
    if call is None or not attempt.failed_calls:
        return attempt
    this, turn = calls.call_identity(call), len(attempt.turns)
    still_failed = {
        name: failed
        for name, failed in attempt.failed_calls.items()
        if name != this and not (failed.slip and failed.tool == call.name and failed.turn < turn)
    }
    return replace(attempt, failed_calls=still_failed)


# The end


def finish_attempt(
    state: WorkerState, attempt: StepAttempt, content: ContentRef, contents: tuple[str, ...] = ()
) -> Transition[WorkerState]:
    """The model, or the step's one call, has answered: the result goes to the checker, or to the planner where none is
    asked for. A doer's own word on a plan's call needs no judge. contents: to be stored with it."""
    assigned = attempt.assigned
    attempt = replace(attempt, evidence=_in_order(attempt))
    result = _result_of_attempt(attempt, content)
    done = state.without_attempt(attempt)
    if not assigned.check or attempt.is_plan_call:
        items = assigned.item.index if assigned.item is not None else None
        finished = StepFinished(**identity_of(assigned), result=result, usage=attempt.usage, items=items)
        return Transition(done, (Send("planner", finished, contents=contents),))
    proposed = StepProposed(
        step=assigned.step,
        attempt=assigned.attempt,
        plan_version=assigned.plan_version,
        objective=assigned.objective,
        result=result,
        evidence=attempt.evidence,
        inputs=assigned.inputs,
        usage=attempt.usage,
        output=assigned.output,
        deadline_unix_ms=assigned.deadline_unix_ms,
    )
    return Transition(done, (Send("checker", proposed, grant=attempt.grant),))


def _in_order(attempt: StepAttempt) -> tuple[Evidence, ...]:
    """Evidence as the model was shown it: calls are answered in any order, and a judge's question that stood in the
    order of arrival would be another one each time, which no response cache knows.
    """
    shown_sha256 = [
        part.content.sha256
        for turn in attempt.turns
        for answer in turn.answers
        for part in answer.parts
        if part.content
    ]
    place = {sha256: number for number, sha256 in reversed(list(enumerate(shown_sha256)))}
    return tuple(sorted(attempt.evidence, key=lambda row: place.get(row.content.sha256, len(shown_sha256))))


def fail_attempt(state: WorkerState, attempt: StepAttempt, failure: Failure) -> Transition[WorkerState]:
    """The attempt ends without a result."""
    result = Result(standing="failed", standing_reason=failure.message[: bounds.MAX_REASON_CHARS])
    finished = StepFinished(**identity_of(attempt.assigned), result=result, failure=failure, usage=attempt.usage)
    return Transition(state.without_attempt(attempt), (Send("planner", finished),))


def _result_of_attempt(attempt: StepAttempt, content: ContentRef) -> Result:
    """The result of an agent's attempt; what a call that failed would have brought is missing from it."""
    before = tuple(step_input.result for step_input in attempt.assigned.inputs)
    lost = tuple(
        Omission(reason="failed_part", what=f"call of {call.tool}", detail=call.reason, refused=True)
        if call.refused
        else Omission(reason="failed_part", what=f"tool {call.tool}"[: bounds.MAX_SUMMARY_CHARS], detail=call.reason)
        for call in attempt.failed_calls.values()
    )
    missing = Completeness.with_omissions(*lost) if lost else Completeness()
    cited = tuple(row.citation for row in attempt.evidence if row.citation)
    labels = (attempt.labels, *(result.provenance for result in before))
    citations = (cited, *(row.citations for row in before))
    cut = cut_completeness(labels, citations)
    completeness = merge_completeness(*(row.completeness for row in before), attempt.completeness, missing, cut)
    own_standing: Standing = "degraded" if attempt.degraded_reasons or lost else "ok"
    standing = worst_standing(*(result.standing for result in before), own_standing)
    reasons = [
        *(result.standing_reason for result in before if result.standing != "ok"),
        *attempt.degraded_reasons,
        *dict.fromkeys(row.reason if row.refused else f"{row.tool} failed" for row in attempt.failed_calls.values()),
    ]
    result = Result(
        content=content,
        summary=content.summary,
        standing=standing,
        standing_reason="; ".join(reasons)[: bounds.MAX_REASON_CHARS] if standing != "ok" else "",
        completeness=completeness,
        provenance=merge_labels(*labels),
        citations=merge_citations(*citations),
    )
    result = lower_answer(result, _finding_of_writes(attempt))
    if attempt.assigned.check and not attempt.is_plan_call:
        return result
    return lower_answer(result, judge_search(attempt.usage.retrievals, len(attempt.evidence) + len(before)))


def _finding_of_writes(attempt: StepAttempt) -> AnswerFinding | None:
    """Finding by the writes that the model asked for."""
    writes = {tool.name for tool in attempt.assigned.tools if tool.effect == "write"}
    lost = [f"{call.tool} was not done: {call.reason}" for call in attempt.failed_calls.values() if call.tool in writes]
    done = 0
    for turn in attempt.turns:
        failed_ids = {answer.tool_call_id for answer in turn.answers if answer.error is not None}
        done += sum(call.name in writes and call.id not in failed_ids for call in turn.tool_calls)
    return judge_writes(done, lost)
