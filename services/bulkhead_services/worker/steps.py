"""Steps that are assigned, extended and stopped; and those that are carried out elsewhere. Pure.

In: `StepAssigned`, `StepExtended`, `StepCancelRequested`, `RetrievalForeseen`. Out: the first call of the model, or a
noop's result at once; of what is foreseen, its request.
A step with a delegation has no model's turn but one call, whose answer is its result: `DelegationRequested` to doors,
for a program outside, or `ToolCallRequested` of the tool `agent_NAME`, a remote agent. So has a step whose plan makes
its call, or asks a person: the tool `ask_person`, which the executor holds until one has decided.
"""

import json
from collections.abc import Mapping

from bulkhead.flow import InboxMessage, Send, Transition, replace
from bulkhead.flow.standing import merge_results
from bulkhead.flow.step_calls import NO_ITEM, readable_references, resolve_arguments
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.plan import AGENT_TOOL, PLAN_CALL_SOURCE, StepCall
from bulkhead_contracts.result import ContentRef, Failure, Label, Result, merge_labels
from bulkhead_contracts.retrieval import RetrievalForeseen
from bulkhead_contracts.step import (
    DelegationRequested,
    MapItem,
    StepAssigned,
    StepCancelRequested,
    StepExtended,
    StepFinished,
    StepInput,
)
from bulkhead_contracts.tool import CallBasis, ToolCallCancelRequested, ToolCallRequested
from bulkhead_services.worker import maps
from bulkhead_services.worker.attempts import OBSERVED, ask_model, fail_attempt
from bulkhead_services.worker.calls import WAIT_TOOLS, OutgoingCall, build_request
from bulkhead_services.worker.gates import look_at_result
from bulkhead_services.worker.state import OutstandingCall, StepAttempt, WorkerState, identity_of

MAX_REFERRED_BYTES = 256 * 1024
"""Of one result that a call refers to; what is longer is not read."""
MAX_ASKED_INPUTS = 16
"""Results that a person is shown with a question, each by its summary; how many others there are is said."""
QUESTION_SLACK_BYTES = 256
"""Of a question's arguments, for what joins its parts."""
MAX_LACKS = 8
"""Parts that are missing from a result, by name; how many others there are is said."""


def on_step_assigned(state: WorkerState, message: InboxMessage, body: StepAssigned) -> Transition[WorkerState]:
    """An attempt at a step begins; a known one is not begun again."""
    attempt = StepAttempt(assigned=body, grant=message.envelope.grant)
    if attempt.key in state.running or attempt.key in state.over:
        return Transition(state)
    if body.step.action in ("validate", "branch"):
        return look_at_result(state, message, attempt)
    if body.gathering is not None:
        result, text = maps.gather_results(message, body, body.gathering)
        return _finish_at_once(state, attempt, result, items=len(body.inputs), contents=(text,))
    if body.step.over is not None:
        count = maps.count_items(message, body, body.step.over)
        if isinstance(count, Failure):
            return fail_attempt(state, attempt, count)
        return _finish_at_once(state, attempt, Result(summary=f"a list of {count} items"), items=count)
    if body.item is not None:
        return _begin_item(state, message, attempt, body.item)
    return _begin_attempt(state, message, attempt)


def on_retrieval_foreseen(
    state: WorkerState, message: InboxMessage, body: RetrievalForeseen
) -> Transition[WorkerState]:
    """The query of a step to come is embedded meanwhile; nobody waits for the reply."""
    if not body.request.asked_ahead:
        return Transition(state)
    return Transition(state, (Send("rag", body.request, grant=message.envelope.grant),))


def _finish_at_once(
    state: WorkerState,
    attempt: StepAttempt,
    result: Result,
    *,
    items: int | None = None,
    contents: tuple[str, ...] = (),
) -> Transition[WorkerState]:
    finished = StepFinished(**identity_of(attempt.assigned), result=result, items=items)
    return Transition(state.without_attempt(attempt), (Send("planner", finished, contents=contents),))


def _begin_item(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, map_item: MapItem
) -> Transition[WorkerState]:
    """An attempt at an item of a map: with the item in the list's place it is one at a plain step."""
    item = maps.read_item(message, attempt.assigned, map_item)
    if isinstance(item, Failure):
        return fail_attempt(state, attempt, item)
    attempt = replace(attempt, item_name=item.name)
    if attempt.is_plan_call:
        return _begin_attempt(state, message, attempt, item.value)
    decision = _begin_attempt(state, message, replace(attempt, assigned=item.assigned))
    if not item.text:
        return decision
    first, *others = decision.outputs
    assert isinstance(first, Send)
    return Transition(decision.state, (replace(first, contents=(item.text,)), *others))


def _begin_attempt(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, item: object = NO_ITEM
) -> Transition[WorkerState]:
    """An attempt begins. item: of a map, for its call."""
    body = attempt.assigned
    if body.step.action == "noop":
        results = tuple(step_input.result for step_input in body.inputs)
        finished = StepFinished(**identity_of(body), result=merge_results(results, words=body.step.instruction))
        return Transition(state.without_attempt(attempt), (Send("planner", finished),))
    if attempt.is_plan_call:
        request = _build_plan_call(attempt, message.contents, item)
    elif body.delegated is None:
        return ask_model(state, message, attempt)
    else:
        request = _build_delegation(attempt)
    if isinstance(request, Failure):
        return fail_attempt(state, attempt, request)
    outstanding = {request.call_id: OutstandingCall(request.body, request.to)}
    attempt = replace(attempt, phase="acting", calls_made=1, outstanding=outstanding)
    return Transition(state.with_attempt(attempt), (Send(request.to, request.body, grant=attempt.grant),))


# Calls that the plan makes


def contents_of_call(assigned: StepAssigned) -> tuple[ContentRef, ...]:
    """The results of which a plan's call has its arguments."""
    if assigned.step.over is not None:
        return ()
    results = {step_input.step_id: step_input.result.content for step_input in assigned.inputs}
    contents = (results.get(step_id) for step_id in _referred_steps(assigned.step.call))
    return tuple(ref for ref in contents if ref is not None and ref.size_bytes <= MAX_REFERRED_BYTES)


def _referred_steps(call: StepCall | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reference.step_id for reference in readable_references(call) if reference.step_id))


def _build_plan_call(attempt: StepAttempt, contents: Mapping[str, str], item: object) -> OutgoingCall | Failure:
    """The one call of a step of action `tool` or `approval`."""
    assigned = attempt.assigned
    call = assigned.step.call or StepCall(tool=assigned.step.called_tool, arguments_json=_question_json(assigned))
    results = {step_input.step_id: step_input.result for step_input in assigned.inputs}
    texts: dict[str, str] = {}
    for step_id in _referred_steps(assigned.step.call):
        content = results[step_id].content if step_id in results else None
        if content is not None and content.sha256 not in contents:
            reason = f"the result of {step_id} has {content.size_bytes} bytes; a call refers to {MAX_REFERRED_BYTES}"
            return Failure.from_text("input_too_long", reason, "let a step before this one cut it down")
        if step_id in results:
            texts[step_id] = contents[content.sha256] if content is not None else results[step_id].summary
    arguments = resolve_arguments(call, texts, item)
    if isinstance(arguments, Failure):
        return arguments
    request = build_request(
        attempt,
        ToolCall(id=assigned.step.id, name=call.tool, arguments_json=json.dumps(arguments, ensure_ascii=False)),
        0,
        CallBasis(call=call, labels=_labels_of_call(assigned)) if assigned.step.call is not None else None,
    )
    if isinstance(request, Failure) and request.code == "unknown_tool":
        reason = f"step {assigned.step.id} calls {call.tool}, which the task was not granted"
        return Failure.from_text("not_granted", reason, "name it in the request's tools, or in none")
    return request


def _labels_of_call(assigned: StepAssigned) -> tuple[Label, ...]:
    """Labels by which the executor says from where the arguments come."""
    call_labels = [label for label in assigned.labels if label.source.startswith(PLAN_CALL_SOURCE)]
    input_labels = merge_labels(*(step_input.result.provenance for step_input in assigned.inputs))
    return (*call_labels, *(label for label in input_labels if label.kind in OBSERVED))[: bounds.MAX_LABELS]


def _question_json(assigned: StepAssigned) -> str:
    """The question as arguments of `ask_person`, with the summaries of what the step builds on."""
    question = assigned.step.question
    assert question is not None
    arguments: dict[str, object] = {"question": question.text, "expires_ms": question.expires_ms}
    arguments |= {"roles": list(question.roles)} if question.roles else {}
    room = bounds.MAX_ARGUMENTS_BYTES - len(json.dumps(arguments).encode()) - QUESTION_SLACK_BYTES
    results: list[str] = []
    for row in assigned.inputs[:MAX_ASKED_INPUTS]:
        text = f"{row.step_id}: {row.result.summary}"
        if (room := room - len(json.dumps(text).encode())) < 0:
            break
        results.append(text)
    if hidden_count := len(assigned.inputs) - len(results):
        results.append(f"{hidden_count} more results")
    return json.dumps(arguments | {"results": results}, ensure_ascii=False)


# Steps that are carried out elsewhere


def _build_delegation(attempt: StepAttempt) -> OutgoingCall | Failure:
    assigned = attempt.assigned
    assert assigned.delegated is not None
    if assigned.delegated.to == "worker":
        call_id = envelope.derive_id("worker", "/".join(map(str, attempt.key)), "delegated")
        return OutgoingCall(call_id, "doors", _hand_over(assigned, call_id))
    arguments = _arguments_json(assigned)
    if len(arguments) > bounds.MAX_ARGUMENTS_BYTES:
        reason = (
            f"the step's text and inputs take {len(arguments)} characters as arguments of "
            f"{assigned.delegated.agent_tool}"
        )
        hint = f"{bounds.MAX_ARGUMENTS_BYTES} fit: shorten the instruction, or let the step build on fewer others"
        return Failure.from_text("step_too_long", reason, hint)
    call = ToolCall(id=assigned.step.id, name=assigned.delegated.agent_tool, arguments_json=arguments)
    request = build_request(attempt, call, 0)
    if isinstance(request, Failure):
        reason = f"the role {assigned.step.role} is delegated to {call.name}, which the task was not granted"
        return Failure.from_text("agent_not_granted", reason, "name it in the request's tools, or in none")
    return request


def _hand_over(assigned: StepAssigned, call_id: str) -> DelegationRequested:
    assert assigned.delegated is not None
    return DelegationRequested(
        call_id=call_id,
        step=assigned.step,
        attempt=assigned.attempt,
        plan_version=assigned.plan_version,
        delegated=assigned.delegated,
        objective=assigned.objective,
        inputs=assigned.inputs,
        tools=tuple(tool for tool in assigned.tools if tool.name not in WAIT_TOOLS),
        notes=assigned.notes,
        deadline_unix_ms=assigned.deadline_unix_ms,
    )


def _arguments_json(assigned: StepAssigned) -> str:
    """The step as words, and what it builds on by reference."""
    arguments: dict[str, object] = {"text": assigned.step.prompt_text}
    if assigned.inputs:
        arguments["inputs"] = [_input_argument(assigned, step_input) for step_input in assigned.inputs]
    if assigned.notes:
        arguments["notes"] = list(assigned.notes)
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _input_argument(assigned: StepAssigned, step_input: StepInput) -> dict[str, object]:
    """One result, with what it says of itself: the agent builds on it as a model would. An item without its place in
    the list: elsewhere in another one it is the same call."""
    argument: dict[str, object] = {"step": step_input.step_id}
    if assigned.item is None or assigned.item.of != step_input.step_id:
        argument["title"] = step_input.title
    result = step_input.result
    if result.standing != "ok":
        argument["standing"] = f"{result.standing}: {result.standing_reason}"[: bounds.MAX_SUMMARY_CHARS].rstrip(": ")
    if not result.completeness.complete:
        lacks = [omission.what for omission in result.completeness.omissions]
        overflow = [f"{len(lacks) - MAX_LACKS} more parts"] if len(lacks) > MAX_LACKS else []
        argument["lacks"] = [*lacks[:MAX_LACKS], *overflow] or ["a part that has no name"]
    if result.content is None:
        return argument | {"text": result.summary}
    is_blob = result.content.carried_text is None
    return argument | {"content": result.content.model_dump(exclude={"summary"} if is_blob else None)}


def on_step_extended(state: WorkerState, message: InboxMessage, body: StepExtended) -> Transition[WorkerState]:
    """An attempt has more time from now on, and a grant that lasts as long; doors that have it hear of both."""
    attempt = state.running_attempt(body)
    if attempt is None:
        return Transition(state)
    assigned = attempt.assigned.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    attempt = replace(attempt, assigned=assigned, grant=message.envelope.grant)
    if not attempt.is_at_doors:
        return Transition(state.with_attempt(attempt))
    longer = {call_id: _hand_over(assigned, call_id) for call_id in attempt.outstanding}
    outstanding = {call_id: OutstandingCall(request, "doors") for call_id, request in longer.items()}
    sends = tuple(Send("doors", request, grant=attempt.grant) for request in longer.values())
    return Transition(state.with_attempt(replace(attempt, outstanding=outstanding)), sends)


def on_step_cancel_requested(
    state: WorkerState, message: InboxMessage, body: StepCancelRequested
) -> Transition[WorkerState]:
    """An attempt is stopped. Doors tell the program, and answer with what was spent: until then theirs is not over."""
    attempt = state.running_attempt(body)
    if attempt is None:
        return Transition(state)
    if attempt.is_at_doors:
        return Transition(state, (Send("doors", body, grant=attempt.grant),))
    # What was spent until now must be counted, though nobody waits for the result.
    failure = Failure.from_text("cancelled", body.reason or "the step was stopped")
    return fail_attempt(state, attempt, failure).preceded_by(*_cancel_agent_calls(attempt))


def _cancel_agent_calls(attempt: StepAttempt) -> tuple[Send, ...]:
    """Cancels of the calls of remote agents under way: those go on elsewhere when nobody waits for them."""
    sends = []
    for call_id, (request, to, _) in sorted(attempt.outstanding.items()):
        if isinstance(request, ToolCallRequested) and request.tool.startswith(AGENT_TOOL):
            body = ToolCallCancelRequested(
                call_id=call_id, step_id=request.step_id, attempt=request.attempt, tool=request.tool
            )
            sends.append(Send(to, body, grant=attempt.grant))
    return tuple(sends)
