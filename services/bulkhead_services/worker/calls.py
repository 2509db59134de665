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
from bulkhead_contracts.wording import words

SLIPS = frozenset({"bad_arguments", "malformed_arguments", "unknown_tool"})
"""Failures of calls that the model made wrongly: a call of the tool that works later mends them."""
FENCE = "fencing_token"
"""The argument by which a tool learns under which lease it is called."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for a doer, or for another fold of the planner (`task`)."""

    call_id: str
    to: str
    body: Body
    task: str = ""


def request(assigned: StepAssigned, call: ToolCall, turn: int, index: int, earlier_same: int) -> Outgoing | Failure:
    """The request of the index-th call of a turn. `earlier_same`: how often this attempt made the same call before."""
    tool = next((one for one in assigned.tools if one.name == call.name), None)
    if tool is None:
        names = ", ".join(one.name for one in assigned.tools) or "none"
        what = f"there is no tool {call.name[:64]!r} for this step"
        return Failure.of("unknown_tool", what, f"use one of: {names}; or answer without a tool")
    try:
        arguments = bounded.loads(call.arguments_json or "{}")
    except ValueError:
        # Nothing in the parser's words: another version of it has others, and a replay would differ.
        what = "the arguments are not JSON"
        return Failure.of("malformed_arguments", what, "send one JSON object that fits the tool's parameters")
    if not isinstance(arguments, dict):
        what = "the arguments must be one JSON object"
        return Failure.of("malformed_arguments", what, "send one JSON object that fits the tool's parameters")
    call_id = call_key(assigned, tool, _meant(arguments), turn, index, earlier_same)
    if tool.served_by == "rag":
        return _retrieval(assigned, arguments, call_id)
    body = ToolCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        tool=tool.name,
        arguments_json=call.arguments_json or "{}",
        deadline_unix_ms=assigned.deadline_unix_ms,
        attribution=call.attribution,
    )
    return Outgoing(call_id, "tool_executor", body)


def identity(call: ToolCall) -> str:
    """The same for calls that ask for the same, however they are written."""
    return f"{call.name} {canonical(call.arguments_json)}"


def canonical(arguments_json: str) -> str:
    """The same text for the same arguments, however they are written; what is no JSON stands for itself."""
    try:
        found = bounded.loads(arguments_json or "{}")
    except ValueError:
        return arguments_json
    if isinstance(found, dict):
        found = _meant(found)
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _meant(arguments: dict[str, object]) -> dict[str, object]:
    """What a call is to do. The token of a lease says who may: another attempt has another, for the same write."""
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


def _retrieval(assigned: StepAssigned, arguments: dict[str, object], call_id: str) -> Outgoing | Failure:
    try:
        given = {"call_id": call_id, "step_id": assigned.step.id, "attempt": assigned.attempt}
        wanted = {"query": arguments.get("query", ""), "k": arguments.get("k", 8)}
        until = {"deadline_unix_ms": assigned.deadline_unix_ms}
        body = RetrievalRequested.model_validate(given | wanted | until)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = f"query is a text of 1-{bounds.MAX_QUERY_CHARS} characters, k 1-{bounds.MAX_PASSAGES}"
        return Failure.of("bad_arguments", f"{where}: {words(first)}", hint)
    return Outgoing(call_id, "rag", body)
