"""A step that is carried out elsewhere: no model's turn, one call of a doer, whose answer is the step's result. Pure.

In: an assignment with a delegation, the doer's reply, cancels, more time. Out: `DelegationRequested` to doors, for a
program outside, or `ToolCallRequested` of the tool `agent_NAME`, a remote agent; then the proposed result.
"""

import json

from bulkhead.flow import Decision, Send, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.plan import AGENT_TOOL
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.step import DelegationRequested, StepAssigned, StepCancelRequested, StepExtended, StepInput
from bulkhead_contracts.tool import ToolCallCancelRequested, ToolCallRequested
from bulkhead_services.worker import calls, peer_tools, turns
from bulkhead_services.worker.state import Attempt, Key, State

MAX_LACKS = 8
"""Parts that are missing from a result, by name; how many others there are is said."""


def begin(state: State, key: Key, attempt: Attempt) -> Decision[State]:
    """Make the one call."""
    made = _request(attempt.assigned, key)
    if isinstance(made, Failure):
        return turns.fail(state, key, attempt, made)
    attempt = replace(attempt, phase="acting", calls=1, outstanding={made.call_id: (made.body, made.to, "")})
    return Decision(state.with_attempt(key, attempt), (Send(made.to, made.body, grant=attempt.grant),))


def _request(assigned: StepAssigned, key: Key) -> calls.Outgoing | Failure:
    assert assigned.delegated is not None
    if assigned.delegated.to == "worker":
        call_id = envelope.derive_id("worker", "/".join(map(str, key)), "delegated")
        return calls.Outgoing(call_id, "doors", _hand_over(assigned, call_id))
    arguments = _arguments(assigned)
    if len(arguments) > bounds.MAX_ARGUMENTS_BYTES:
        what = f"the step's text and inputs take {len(arguments)} characters as arguments of {assigned.delegated.tool}"
        hint = f"{bounds.MAX_ARGUMENTS_BYTES} fit: shorten the instruction, or let the step build on fewer others"
        return Failure.of("step_too_long", what, hint)
    call = ToolCall(id=assigned.step.id, name=assigned.delegated.tool, arguments_json=arguments)
    made = calls.request(assigned, call, 0, 0, 0)
    if isinstance(made, Failure):
        what = f"the role {assigned.step.role} is delegated to {call.name}, which the task was not granted"
        return Failure.of("agent_not_granted", what, "name it in the request's tools, or in none")
    return made


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


def _arguments(assigned: StepAssigned) -> str:
    """The step as words, and what it builds on by reference: a worker reads no content."""
    arguments: dict[str, object] = {"text": assigned.step.text}
    if assigned.inputs:
        arguments["inputs"] = [_input(given) for given in assigned.inputs]
    if assigned.notes:
        arguments["notes"] = list(assigned.notes)
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _input(given: StepInput) -> dict[str, object]:
    """One result, with what it says of itself: the agent builds on it as a model would."""
    found: dict[str, object] = {"step": given.step_id, "title": given.title}
    result = given.result
    if result.standing != "ok":
        found["standing"] = f"{result.standing}: {result.standing_reason}"[: bounds.MAX_SUMMARY_CHARS].rstrip(": ")
    if not result.completeness.complete:
        lacks = [omission.what for omission in result.completeness.omissions]
        more = [f"{len(lacks) - MAX_LACKS} more parts"] if len(lacks) > MAX_LACKS else []
        found["lacks"] = [*lacks[:MAX_LACKS], *more] or ["a part that has no name"]
    if given.result.content is None:
        return found | {"text": given.result.summary}
    return found | {"content": given.result.content.model_dump(exclude={"summary"})}


def answered(
    state: State, key: Key, attempt: Attempt, content: ContentRef | None, failure: Failure | None
) -> Decision[State]:
    """The doer's word ends the attempt: its usage and labels are counted already."""
    if failure is not None or content is None:
        failure = failure or Failure.of("empty_answer", "the step was answered with nothing")
        return turns.fail(state, key, attempt, failure)
    return turns.finish(state, key, attempt, content)


def extended(state: State, body: StepExtended) -> Decision[State]:
    """Doors hear of more time, and have the grant that lasts as long."""
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or not at_doors(attempt):
        return Decision(state)
    longer = {call_id: _hand_over(attempt.assigned, call_id) for call_id in attempt.outstanding}
    attempt = replace(attempt, outstanding={call_id: (again, "doors", "") for call_id, again in longer.items()})
    sends = tuple(Send("doors", again, grant=attempt.grant) for again in longer.values())
    return Decision(state.with_attempt(key, attempt), sends)


def held(state: State, body: CallDeferred | CallResumed) -> Decision[State]:
    """A call of the program is held back, or goes on: so does its step. Doors have it meanwhile, and are not asked
    again."""
    row = state.owner_of(body.call_id)
    if row is None or not at_doors(row[1]):
        return Decision(state)
    key, attempt = row
    why = {body.call_id: body} if isinstance(body, CallDeferred) else {}
    return Decision(state.with_attempt(key, replace(attempt, held=why)))


def cancelled(state: State, attempt: Attempt, body: StepCancelRequested) -> Decision[State]:
    """Doors tell the program to stop, and answer with what was spent: until then the attempt is not over."""
    return Decision(state, (Send("doors", body, grant=attempt.grant),))


def stops(attempt: Attempt) -> tuple[Send, ...]:
    """Cancels of the calls of remote agents under way: those go on elsewhere when nobody waits for them."""
    return tuple(
        Send(
            to,
            ToolCallCancelRequested(call_id=call_id, step_id=asked.step_id, attempt=asked.attempt, tool=asked.tool),
            grant=attempt.grant,
        )
        for call_id, (asked, to, _) in sorted(attempt.outstanding.items())
        if isinstance(asked, ToolCallRequested) and asked.tool.startswith(AGENT_TOOL)
    )


def at_doors(attempt: Attempt) -> bool:
    """Whether doors have this attempt."""
    delegated = attempt.assigned.delegated
    return attempt.phase != "over" and delegated is not None and delegated.to == "worker"
