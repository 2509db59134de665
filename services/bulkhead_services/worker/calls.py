"""From a model's tool call to a request that may go out, or an error that the model can act on. A leaf, pure.

Neither the name nor the arguments are believed: names must be among the step's tools, arguments must be a JSON object.
Besides calls of doers there are those by which an agent waits for others: `ask_steps`, `answer_step`, `acquire_lease`
and `release_lease` go to the planner. The loop does not change for them: a step that waits has a call outstanding.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from bulkhead.flow import Send, bounded, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.lease import LeaseReleaseRequested, LeaseRequested, resource_token
from bulkhead_contracts.model import Part, ToolAnswer, ToolCall
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import planned_ids
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import RetrievalRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.tool import CallBasis, ToolCallRequested, ToolSpec
from bulkhead_contracts.types import Body
from bulkhead_contracts.wording import describe_error
from bulkhead_services.worker.state import OutstandingCall, StepAttempt, identity_of

ASK, ANSWER, ACQUIRE, RELEASE = "ask_steps", "answer_step", "acquire_lease", "release_lease"
WAIT_TOOLS = frozenset({ASK, ANSWER, ACQUIRE, RELEASE})
SLIPS = frozenset({"bad_arguments", "malformed_arguments", "unknown_tool"})
"""Failures of calls that the model made wrongly: a call of the tool that works later mends them."""
PLAN_CALL_ID_PREFIX = "plan-"
"""Begin of the ids of calls that a plan makes: of their replies the worker reads the passages."""
FENCE = "fencing_token"
"""The argument by which a tool learns under which lease it is called."""
Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """A request for a doer, or for another fold of the planner (`task`)."""

    call_id: str
    to: str
    body: Body
    task: str = ""


@dataclass(frozen=True, slots=True)
class ImmediateAnswer:
    """An answer that is not waited for: the attempt as it is then, what is said, and the answer to the model."""

    attempt: StepAttempt
    sends: tuple[Send, ...]
    answer: ToolAnswer


def build_request(
    attempt: StepAttempt, call: ToolCall, index: int, basis: CallBasis | None = None
) -> OutgoingCall | Failure:
    """The request of a doer for the index-th call of the model's current turn, or for the one call of a step. basis: of
    a call that the plan makes."""
    assigned = attempt.assigned
    tool = next((spec for spec in assigned.tools if spec.name == call.name), None)
    if tool is None:
        return _unknown_tool(assigned, call)
    try:
        arguments = bounded.load_json(call.arguments_json or "{}")
    except ValueError:
        # Nothing in the parser's words: another version of it has others, and a replay would differ.
        return _malformed_arguments("the arguments are not JSON")
    if not isinstance(arguments, dict):
        return _malformed_arguments("the arguments must be one JSON object")
    call_id = _call_key(attempt, tool, call, _without_fence(arguments), index)
    if tool.served_by == "rag":
        return _retrieval_request(assigned, arguments, call_id)
    body = ToolCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        tool=tool.name,
        arguments_json=call.arguments_json or "{}",
        deadline_unix_ms=assigned.deadline_unix_ms,
        attribution=call.attribution,
        basis=basis,
    )
    return OutgoingCall(call_id, "tool_executor", body)


def _unknown_tool(assigned: StepAssigned, call: ToolCall) -> Failure:
    names = ", ".join(spec.name for spec in assigned.tools) or "none"
    reason = f"there is no tool {call.name[:64]!r} for this step"
    return Failure.from_text("unknown_tool", reason, f"use one of: {names}; or answer without a tool")


def _malformed_arguments(reason: str) -> Failure:
    return Failure.from_text("malformed_arguments", reason, "send one JSON object that fits the tool's parameters")


def _bad_arguments(error: ValidationError, hint: str) -> Failure:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return Failure.from_text("bad_arguments", f"{where}: {describe_error(first)}", hint)


def call_identity(call: ToolCall) -> str:
    """The same for calls that ask for the same, however they are written."""
    return f"{call.name} {canonical_json(call.arguments_json)}"


def canonical_json(arguments_json: str) -> str:
    """The same text for the same arguments, however they are written; what is no JSON stands for itself."""
    try:
        arguments = bounded.load_json(arguments_json or "{}")
    except ValueError:
        return arguments_json
    if isinstance(arguments, dict):
        arguments = _without_fence(arguments)
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"))


def _without_fence(arguments: dict[str, object]) -> dict[str, object]:
    """Arguments without a lease's token: another attempt has another token, for the same write."""
    return {key: value for key, value in arguments.items() if key != FENCE}


def _call_key(attempt: StepAttempt, tool: ToolSpec, call: ToolCall, arguments: dict[str, object], index: int) -> str:
    """The idempotency key.

    For a write: (step, tool, arguments, how often already), the same in every attempt and plan version, so that a
    step which is tried again does not repeat its side effects; of an item (map, item), so that a fork whose list has
    others before it does not either. For a read: the place in this attempt.
    """
    assigned = attempt.assigned
    if tool.effect == "write":
        written = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
        place = assigned.step.id
        if attempt.item_name:
            place = f"{planned_ids(place)[-1]}/{attempt.item_name}"
        name = f"write/{place}/{tool.name}/{written}/{_count_earlier_same(attempt, call)}"
    else:
        name = f"read/{assigned.plan_version}/{assigned.step.id}/{assigned.attempt}/{len(attempt.turns)}/{index}"
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{PLAN_CALL_ID_PREFIX}{digest}" if assigned.step.called_tool else digest


def _count_earlier_same(attempt: StepAttempt, call: ToolCall) -> int:
    """In how many earlier turns this attempt made the same call; in one turn it is made once.

    One that was refused or failed was not made: counted, its repeat would have a key that the next attempt, which may
    succeed at once, does not have, and the write would be done twice.
    """
    identity, count = call_identity(call), 0
    for turn in attempt.turns:
        answered_ids = {answer.tool_call_id for answer in turn.answers if answer.error is None}
        count += any(call_identity(row) == identity for row in turn.tool_calls if row.id in answered_ids)
    return count


def _retrieval_request(assigned: StepAssigned, arguments: dict[str, object], call_id: str) -> OutgoingCall | Failure:
    try:
        call_fields = {"call_id": call_id, "step_id": assigned.step.id, "attempt": assigned.attempt}
        query_fields = {"query": arguments.get("query", ""), "k": arguments.get("k", 8)}
        until = {"deadline_unix_ms": assigned.deadline_unix_ms}
        body = RetrievalRequested.model_validate(call_fields | query_fields | until)
    except ValidationError as error:
        hint = f"query is a text of 1-{bounds.MAX_QUERY_CHARS} characters, k 1-{bounds.MAX_PASSAGES}"
        return _bad_arguments(error, hint)
    return OutgoingCall(call_id, "rag", body)


# Calls by which an agent waits


def build_wait_request(
    attempt: StepAttempt, task: str, call: ToolCall, index: int, outstanding: Mapping[str, OutstandingCall]
) -> OutgoingCall | ImmediateAnswer | Failure:
    """Outcome of the index-th call of a turn, of one of `WAIT_TOOLS`. outstanding: the calls of this turn before it."""
    assigned = attempt.assigned
    if call.name not in {tool.name for tool in assigned.tools}:
        return _unknown_tool(assigned, call)
    try:
        arguments = bounded.load_json(call.arguments_json or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return _malformed_arguments("the arguments are not one JSON object")
    place = (task, assigned.plan_version, assigned.step.id, assigned.attempt, len(attempt.turns), index)
    call_id = hashlib.blake2b(f"wait/{'/'.join(map(str, place))}".encode(), digest_size=16).hexdigest()
    try:
        if call.name == ASK:
            return _build_ask(assigned, arguments, call_id)
        if call.name == ANSWER:
            return _answer_question(attempt, call, arguments)
        if call.name == ACQUIRE:
            return _request_lease(attempt, task, arguments, call_id, outstanding)
        return _release_lease(attempt, task, arguments, call_id)
    except ValidationError as error:
        return _bad_arguments(error, "send arguments that fit the tool's parameters")


def _build_ask(assigned: StepAssigned, arguments: Arguments, call_id: str) -> OutgoingCall | Failure:
    steps = arguments.get("steps", ())
    steps = [steps] if isinstance(steps, str) else steps
    steps = [str(step) for step in steps] if isinstance(steps, list) else []
    targets = tuple(dict.fromkeys(steps))
    if assigned.step.id in targets:
        return Failure.from_text(
            "asks_itself", f"step {assigned.step.id} asks itself", "ask other steps, or answer yourself"
        )
    question_fields = {
        "targets": targets,
        "mode": arguments.get("mode", "all"),
        "question": arguments.get("question", ""),
    }
    attempt_fields = {"ask_id": call_id, **identity_of(assigned), "deadline_unix_ms": assigned.deadline_unix_ms}
    return OutgoingCall(call_id, "planner", AnswerRequested.model_validate(attempt_fields | question_fields))


def _answer_question(attempt: StepAttempt, call: ToolCall, arguments: Arguments) -> ImmediateAnswer | Failure:
    """An opinion goes out; nobody waits for it here."""
    step = arguments.get("step")
    question = next((open_question for open_question in attempt.questions if open_question.step_id == step), None)
    if question is None:
        waiting = ", ".join(open_question.step_id for open_question in attempt.questions) or "nobody"
        reason = f"step {str(step)[:64]} waits for no answer of this step"
        return Failure.from_text("not_asked", reason, f"answer who asked: {waiting}")
    place = {"ask_id": question.ask_id, "step_id": question.step_id, "target": attempt.assigned.step.id}
    answer_fields = {"outcome": "answered", "text": arguments.get("answer", ""), "provenance": attempt.labels}
    body = AnswerGiven.model_validate(place | answer_fields)
    remaining = tuple(open_question for open_question in attempt.questions if open_question.ask_id != question.ask_id)
    tool_answer = ToolAnswer(
        tool_call_id=call.id, parts=(Part(kind="context", text=f"Step {step} has been answered."),)
    )
    return ImmediateAnswer(
        replace(attempt, questions=remaining), (Send("planner", body, grant=attempt.grant),), tool_answer
    )


def _request_lease(
    attempt: StepAttempt, task: str, arguments: Arguments, call_id: str, outstanding: Mapping[str, OutstandingCall]
) -> OutgoingCall | Failure:
    assigned, resource = attempt.assigned, str(arguments.get("resource", ""))
    requested_resources = {
        request.resource for request, *_ in outstanding.values() if isinstance(request, LeaseRequested)
    }
    if resource in requested_resources:
        return Failure.from_text("repeated_call", f"{resource} is asked for twice in one turn", "ask for it once")
    held_lease_id = next((name for name, lease in attempt.leases.items() if lease.resource == resource), None)
    if held_lease_id is None and len(attempt.leases) + len(requested_resources) >= bounds.MAX_LEASES_PER_STEP:
        reason = f"this step holds or wants {bounds.MAX_LEASES_PER_STEP} leases already"
        return Failure.from_text("too_many_leases", reason, "give one back with release_lease")
    ttl = arguments.get("ttl_s", bounds.DEFAULT_LEASE_TTL_MS // 1000)
    lease_fields = {"resource": resource, "ttl_ms": ttl * 1000 if isinstance(ttl, int) else ttl}
    attempt_fields = {"lease_id": held_lease_id or call_id, "task": task, **identity_of(assigned)}
    body = LeaseRequested.model_validate(attempt_fields | lease_fields)
    return OutgoingCall(body.lease_id, "planner", body, resource_token(body.resource))


def _release_lease(attempt: StepAttempt, task: str, arguments: Arguments, call_id: str) -> OutgoingCall:
    """Also what this step does not hold is asked for: who keeps the book says so, and it is on record."""
    resource = arguments.get("resource", "")
    lease_id = next((name for name, lease in attempt.leases.items() if lease.resource == resource), call_id)
    body = LeaseReleaseRequested.model_validate(
        {
            "lease_id": lease_id,
            "call_id": call_id,
            "task": task,
            "step_id": attempt.assigned.step.id,
            "resource": resource,
        }
    )
    return OutgoingCall(call_id, "planner", body, resource_token(body.resource))


def give_back(attempt: StepAttempt, task: str) -> tuple[Send, ...]:
    """Messages of an attempt that is over: it holds nothing any more, and waits for nothing."""
    mine = {name: lease.resource for name, lease in attempt.leases.items()}
    mine |= {
        name: request.resource
        for name, (request, *_) in attempt.outstanding.items()
        if isinstance(request, LeaseRequested)
    }
    step, grant = attempt.assigned.step.id, attempt.grant
    return tuple(withdraw_lease(name, resource, task, step, grant) for name, resource in mine.items())


def withdraw_lease(lease_id: str, resource: str, task: str, step: str, grant: str) -> Send:
    """A lease is given back, or no longer waited for; nobody waits for an answer to that."""
    body = LeaseReleaseRequested(lease_id=lease_id, task=task, step_id=step, resource=resource)
    return Send("planner", body, grant=grant, task=resource_token(resource))
