"""One turn of a step's agent loop: ask the model, send the calls it makes, and end the step. Everything is capped.

In: an attempt, and a reply of its model. Out: a model call, calls of tools and of peers, or the step's end: a proposed
result (to the checker) or a finished step (to the planner). Content is handed on by reference, never read here.
"""

from collections.abc import Iterator

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.model import (
    DEFAULT_TIER,
    ModelCallReplied,
    ModelCallRequested,
    Part,
    ToolAnswer,
    ToolCall,
    Turn,
)
from bulkhead_contracts.result import ContentRef, Failure, Label, Result, Usage, merge_labels
from bulkhead_contracts.step import Evidence, StepAssigned, StepFinished, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls, peer_tools, results
from bulkhead_services.worker.state import Key, StepAttempt, WorkerState, identity_of

STEP_OUTPUT_TOKENS = 2_000
OBSERVED = frozenset({"passage", "tool_result"})
MADE_ONCE = Failure.from_text(
    "repeated_call",
    "the same call stands twice in one turn, and is made once",
    "if it is to be made twice, call it again in a later turn",
)
CHECK_MARGIN_MS = 5_000
"""So much of a step's time is left to the checker, when there is that much."""


# Think


def ask_model(state: WorkerState, message: InboxMessage, key: Key, attempt: StepAttempt) -> Transition[WorkerState]:
    """Ask the model, with all that was answered until now."""
    assigned = attempt.assigned
    if len(attempt.turns) >= bounds.MAX_TURNS_PER_STEP:
        reason = f"no answer after {bounds.MAX_TURNS_PER_STEP} turns of the model"
        failure = Failure.from_text(
            "turn_cap", reason, "the step may be too large or loops: look at `bulkhead timeline TASK`"
        )
        return fail_attempt(state, key, attempt, failure)
    call_id = envelope.derive_id("worker", "/".join(map(str, key)), f"turn-{len(attempt.turns)}")
    body = ModelCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        prompt_id=f"worker.{assigned.step.role}",
        parts=_prompt_parts(assigned),
        latest=peer_tools.parts_for_next_turn(attempt),
        turns=attempt.turns,
        labels=_labels_for_gateway(attempt),
        tools=assigned.tools,
        tier=assigned.route or DEFAULT_TIER,
        max_output_tokens=STEP_OUTPUT_TOKENS,
        output=assigned.output,
        deadline_unix_ms=call_deadline(assigned, message),
    )
    attempt = replace(
        attempt, phase="thinking", asked=(), said=None, answers={}, outstanding={call_id: (body, "model_gateway", "")}
    )
    return Transition(state.with_attempt(key, attempt), (Send("model_gateway", body, grant=attempt.grant),))


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


# Act


def send_calls(
    state: WorkerState, message: InboxMessage, key: Key, attempt: StepAttempt, body: ModelCallReplied
) -> Transition[WorkerState]:
    """Send every call that can be sent, in parallel; the others are answered with an error at once."""
    outcome: calls.OutgoingCall | peer_tools.ImmediateAnswer | Failure
    turn = len(attempt.turns)
    answers: dict[str, ToolAnswer] = {}
    outstanding: dict[str, tuple[Body, str, str]] = {}
    sends: list[Output] = []
    sent: set[str] = set()
    errors = attempt.errors
    granted = {tool.name: tool for tool in attempt.assigned.tools}
    for index, call in enumerate(body.tool_calls):
        if call.name in granted and granted[call.name].is_consequential and calls.call_identity(call) in sent:
            # Nearly always a slip. Whoever means it twice says so once he has seen what came of it.
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=MADE_ONCE)
            continue
        if call.name in peer_tools.TOOLS:
            outcome = peer_tools.build_request(attempt, message, call, (turn, index), outstanding)
        else:
            outcome = calls.build_request(attempt.assigned, call, turn, index, _count_earlier_same(attempt, call))
        if isinstance(outcome, peer_tools.ImmediateAnswer):
            attempt, answers[call.id] = outcome.attempt, outcome.answer
            sends += outcome.sends
            continue
        if isinstance(outcome, Failure) and call.name in granted:
            # A tool that no call ever reached is missing from the result as much as one that failed.
            attempt = results.record_failed_call(attempt, call, outcome, slip=True)
        if isinstance(outcome, calls.OutgoingCall) and outcome.call_id in outstanding:
            outcome = Failure.from_text("repeated_call", "the same call stands twice in one turn")
        if isinstance(outcome, Failure):
            errors += 1
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=outcome)
        else:
            sent.add(calls.call_identity(call))
            outstanding[outcome.call_id] = (outcome.body, outcome.to, call.id)
            sends.append(Send(outcome.to, outcome.body, grant=attempt.grant, task=outcome.task))
    attempt = replace(attempt, phase="acting", asked=body.tool_calls, said=body.content, answers=answers)
    attempt = replace(attempt, outstanding=outstanding, errors=errors, calls=attempt.calls + len(sends))
    if failure := _cap_failure(attempt):
        return fail_attempt(state, key, attempt, failure)
    if outstanding:
        return Transition(state.with_attempt(key, attempt), tuple(sends))
    following = next_turn(state, message, key, attempt)
    return Transition(following.state, (*sends, *following.outputs))


def _cap_failure(attempt: StepAttempt) -> Failure | None:
    """Why the calls of this turn are too many."""
    if attempt.errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        refused = [answer.error.message for answer in attempt.answers.values() if answer.error is not None]
        last_error = refused[-1] if refused else ""
        reason = f"the model made {attempt.errors} calls that no tool can take; last: {last_error}"
        hint = "use a model that calls tools well, or simplify the tools' parameters"
        return Failure.from_text("call_error_cap", reason, hint)
    if attempt.calls > bounds.MAX_CALLS_PER_STEP:
        reason = f"over {bounds.MAX_CALLS_PER_STEP} calls in one step"
        return Failure.from_text("call_cap", reason, "the step may loop: look at `bulkhead timeline TASK`")
    return None


def _count_earlier_same(attempt: StepAttempt, call: ToolCall) -> int:
    """In how many earlier turns this attempt made the same call; in one turn it is made once.

    One that was refused or failed was not made: counted, its repeat would have a key that the next attempt, which may
    succeed at once, does not have, and the write would be done twice.
    """
    this = calls.call_identity(call)
    return sum(any(calls.call_identity(earlier) == this for earlier in _answered_calls(turn)) for turn in attempt.turns)


def _answered_calls(turn: Turn) -> Iterator[ToolCall]:
    """The calls of a turn that gave a result."""
    answered_ids = {answer.tool_call_id for answer in turn.answers if answer.error is None}
    return (call for call in turn.tool_calls if call.id in answered_ids)


def next_turn(state: WorkerState, message: InboxMessage, key: Key, attempt: StepAttempt) -> Transition[WorkerState]:
    """When every call of the turn is answered, the model sees the answers, in its own order."""
    if attempt.outstanding:
        return Transition(state.with_attempt(key, attempt))
    if attempt.errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        hint = "look at `bulkhead timeline TASK`; the model does not use its tools well"
        failure = Failure.from_text("call_error_cap", f"{attempt.errors} calls of this step were refused", hint)
        return fail_attempt(state, key, attempt, failure)
    answers = tuple(attempt.answers[call.id] for call in attempt.asked if call.id in attempt.answers)
    tool_calls = tuple(call.model_copy(update={"attribution": None}) for call in attempt.asked)
    turn = Turn(content=attempt.said, tool_calls=tool_calls, answers=answers)
    return ask_model(state, message, key, replace(attempt, turns=(*attempt.turns, turn)))


# The end


def finish_attempt(state: WorkerState, key: Key, attempt: StepAttempt, content: ContentRef) -> Transition[WorkerState]:
    """The model has answered: the result goes to the checker, or to the planner where none is asked for."""
    assigned = attempt.assigned
    attempt = replace(attempt, evidence=_in_order(attempt))
    result = results.result_of_attempt(attempt, content)
    done = state.with_attempt(key, ended_attempt(attempt))
    if not assigned.check:
        finished = StepFinished(**identity_of(assigned), result=result, usage=attempt.usage)
        return Transition(done, (Send("planner", finished),))
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


def fail_attempt(state: WorkerState, key: Key, attempt: StepAttempt, failure: Failure) -> Transition[WorkerState]:
    """The attempt ends without a result."""
    result = Result(standing="failed", standing_reason=failure.message[: bounds.MAX_REASON_CHARS])
    finished = StepFinished(**identity_of(attempt.assigned), result=result, failure=failure, usage=attempt.usage)
    return Transition(state.with_attempt(key, ended_attempt(attempt)), (Send("planner", finished),))


def ended_attempt(attempt: StepAttempt) -> StepAttempt:
    """Forget what an ended attempt gathered; its key stays, so that a repeat is known."""
    return StepAttempt(
        assigned=attempt.assigned.model_copy(update={"inputs": (), "tools": ()}), grant="", phase="over", usage=Usage()
    )
