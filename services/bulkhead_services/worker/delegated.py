"""A step that is carried out elsewhere: no model's turn, one call of a doer, whose answer is the step's result. Pure.

In: an assignment with a delegation, the doer's reply, cancels, more time. Out: `DelegationRequested` to doors, for a
program outside, or `ToolCallRequested` of the tool `agent_NAME`, a remote agent; then the proposed result.
"""

import json

from bulkhead.flow import Send, Transition, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.plan import AGENT_TOOL
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.step import DelegationRequested, StepAssigned, StepCancelRequested, StepExtended, StepInput
from bulkhead_contracts.tool import ToolCallCancelRequested, ToolCallRequested
from bulkhead_services.worker import calls, peer_tools, turns
from bulkhead_services.worker.state import Key, StepAttempt, WorkerState

MAX_LACKS = 8
"""Parts that are missing from a result, by name; how many others there are is said."""


def begin_delegated_step(state: WorkerState, key: Key, attempt: StepAttempt) -> Transition[WorkerState]:
    """Make the one call."""
    request = _build_request(attempt.assigned, key)
    if isinstance(request, Failure):
        return turns.fail_attempt(state, key, attempt, request)
    attempt = replace(attempt, phase="acting", calls=1, outstanding={request.call_id: (request.body, request.to, "")})
    return Transition(state.with_attempt(key, attempt), (Send(request.to, request.body, grant=attempt.grant),))


def _build_request(assigned: StepAssigned, key: Key) -> calls.OutgoingCall | Failure:
    assert assigned.delegated is not None
    if assigned.delegated.to == "worker":
        call_id = envelope.derive_id("worker", "/".join(map(str, key)), "delegated")
        return calls.OutgoingCall(call_id, "doors", _hand_over(assigned, call_id))
    arguments = _arguments_json(assigned)
    if len(arguments) > bounds.MAX_ARGUMENTS_BYTES:
        reason = (
            f"the step's text and inputs take {len(arguments)} characters as arguments of "
            f"{assigned.delegated.agent_tool}"
        )
        hint = f"{bounds.MAX_ARGUMENTS_BYTES} fit: shorten the instruction, or let the step build on fewer others"
        return Failure.from_text("step_too_long", reason, hint)
    call = ToolCall(id=assigned.step.id, name=assigned.delegated.agent_tool, arguments_json=arguments)
    request = calls.build_request(assigned, call, 0, 0, 0)
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
        tools=tuple(tool for tool in assigned.tools if tool.name not in peer_tools.TOOLS),
        notes=assigned.notes,
        deadline_unix_ms=assigned.deadline_unix_ms,
    )


def _arguments_json(assigned: StepAssigned) -> str:
    """The step as words, and what it builds on by reference: a worker reads no content."""
    arguments: dict[str, object] = {"text": assigned.step.prompt_text}
    if assigned.inputs:
        arguments["inputs"] = [_input_argument(step_input) for step_input in assigned.inputs]
    if assigned.notes:
        arguments["notes"] = list(assigned.notes)
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _input_argument(given: StepInput) -> dict[str, object]:
    """One result, with what it says of itself: the agent builds on it as a model would."""
    argument: dict[str, object] = {"step": given.step_id, "title": given.title}
    result = given.result
    if result.standing != "ok":
        argument["standing"] = f"{result.standing}: {result.standing_reason}"[: bounds.MAX_SUMMARY_CHARS].rstrip(": ")
    if not result.completeness.complete:
        lacks = [omission.what for omission in result.completeness.omissions]
        overflow = [f"{len(lacks) - MAX_LACKS} more parts"] if len(lacks) > MAX_LACKS else []
        argument["lacks"] = [*lacks[:MAX_LACKS], *overflow] or ["a part that has no name"]
    if given.result.content is None:
        return argument | {"text": given.result.summary}
    return argument | {"content": given.result.content.model_dump(exclude={"summary"})}


def finish_with_answer(
    state: WorkerState, key: Key, attempt: StepAttempt, content: ContentRef | None, failure: Failure | None
) -> Transition[WorkerState]:
    """The doer's word ends the attempt: its usage and labels are counted already."""
    if failure is not None or content is None:
        failure = failure or Failure.from_text("empty_answer", "the step was answered with nothing")
        return turns.fail_attempt(state, key, attempt, failure)
    return turns.finish_attempt(state, key, attempt, content)


def on_step_extended(state: WorkerState, body: StepExtended) -> Transition[WorkerState]:
    """Doors hear of more time, and have the grant that lasts as long."""
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or not is_at_doors(attempt):
        return Transition(state)
    longer = {call_id: _hand_over(attempt.assigned, call_id) for call_id in attempt.outstanding}
    attempt = replace(attempt, outstanding={call_id: (request, "doors", "") for call_id, request in longer.items()})
    sends = tuple(Send("doors", request, grant=attempt.grant) for request in longer.values())
    return Transition(state.with_attempt(key, attempt), sends)


def on_call_held_or_resumed(state: WorkerState, body: CallDeferred | CallResumed) -> Transition[WorkerState]:
    """A call of the program is held back, or goes on: so does its step. Doors have it meanwhile, and are not asked
    again."""
    row = state.owner_of(body.call_id)
    if row is None or not is_at_doors(row[1]):
        return Transition(state)
    key, attempt = row
    held_calls = {body.call_id: body} if isinstance(body, CallDeferred) else {}
    return Transition(state.with_attempt(key, replace(attempt, held=held_calls)))


def on_step_cancel_requested(
    state: WorkerState, attempt: StepAttempt, body: StepCancelRequested
) -> Transition[WorkerState]:
    """Doors tell the program to stop, and answer with what was spent: until then the attempt is not over."""
    return Transition(state, (Send("doors", body, grant=attempt.grant),))


def cancel_agent_calls(attempt: StepAttempt) -> tuple[Send, ...]:
    """Cancels of the calls of remote agents under way: those go on elsewhere when nobody waits for them."""
    return tuple(
        Send(
            to,
            ToolCallCancelRequested(
                call_id=call_id, step_id=request.step_id, attempt=request.attempt, tool=request.tool
            ),
            grant=attempt.grant,
        )
        for call_id, (request, to, _) in sorted(attempt.outstanding.items())
        if isinstance(request, ToolCallRequested) and request.tool.startswith(AGENT_TOOL)
    )


def is_at_doors(attempt: StepAttempt) -> bool:
    """True when doors have this attempt."""
    delegated = attempt.assigned.delegated
    return attempt.phase != "over" and delegated is not None and delegated.to == "worker"
