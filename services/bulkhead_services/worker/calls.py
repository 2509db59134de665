"""From a model's tool call to a request that may go out, or an error that the model can act on. Pure.

Neither the name nor the arguments are believed: names must be among the step's tools, arguments must be a JSON object.
"""

import hashlib
import json
from dataclasses import dataclass

from pydantic import ValidationError

from bulkhead.flow import bounded
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import RetrievalRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.tool import ToolCallRequested, ToolSpec
from bulkhead_contracts.types import Body
from bulkhead_contracts.wording import describe_error

SLIPS = frozenset({"bad_arguments", "malformed_arguments", "unknown_tool"})
"""Failures of calls that the model made wrongly: a call of the tool that works later mends them."""
FENCE = "fencing_token"
"""The argument by which a tool learns under which lease it is called."""


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """A request for a doer, or for another fold of the planner (`task`)."""

    call_id: str
    to: str
    body: Body
    task: str = ""


def build_request(
    assigned: StepAssigned, call: ToolCall, turn: int, index: int, earlier_same: int
) -> OutgoingCall | Failure:
    """The request of the index-th call of a turn. `earlier_same`: how often this attempt made the same call before."""
    tool = next((spec for spec in assigned.tools if spec.name == call.name), None)
    if tool is None:
        names = ", ".join(spec.name for spec in assigned.tools) or "none"
        reason = f"there is no tool {call.name[:64]!r} for this step"
        return Failure.from_text("unknown_tool", reason, f"use one of: {names}; or answer without a tool")
    try:
        arguments = bounded.load_json(call.arguments_json or "{}")
    except ValueError:
        # Nothing in the parser's words: another version of it has others, and a replay would differ.
        reason = "the arguments are not JSON"
        return Failure.from_text("malformed_arguments", reason, "send one JSON object that fits the tool's parameters")
    if not isinstance(arguments, dict):
        reason = "the arguments must be one JSON object"
        return Failure.from_text("malformed_arguments", reason, "send one JSON object that fits the tool's parameters")
    call_id = call_key(assigned, tool, _without_fence(arguments), turn, index, earlier_same)
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
    )
    return OutgoingCall(call_id, "tool_executor", body)


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


def call_key(
    assigned: StepAssigned, tool: ToolSpec, arguments: dict[str, object], turn: int, index: int, earlier_same: int
) -> str:
    """The idempotency key.

    For a write: (step, tool, arguments, how often already), the same in every attempt and plan version, so that a
    step which is tried again does not repeat its side effects. For a read: the place in this attempt.
    """
    if tool.effect == "write":
        written = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
        name = f"write/{assigned.step.id}/{tool.name}/{written}/{earlier_same}"
    else:
        name = f"read/{assigned.plan_version}/{assigned.step.id}/{assigned.attempt}/{turn}/{index}"
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _retrieval_request(assigned: StepAssigned, arguments: dict[str, object], call_id: str) -> OutgoingCall | Failure:
    try:
        call_fields = {"call_id": call_id, "step_id": assigned.step.id, "attempt": assigned.attempt}
        query_fields = {"query": arguments.get("query", ""), "k": arguments.get("k", 8)}
        until = {"deadline_unix_ms": assigned.deadline_unix_ms}
        body = RetrievalRequested.model_validate(call_fields | query_fields | until)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = f"query is a text of 1-{bounds.MAX_QUERY_CHARS} characters, k 1-{bounds.MAX_PASSAGES}"
        return Failure.from_text("bad_arguments", f"{where}: {describe_error(first)}", hint)
    return OutgoingCall(call_id, "rag", body)
