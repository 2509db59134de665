"""Tools: their declared shape and effect, a call, its outcome."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Completeness, ContentRef, Failure, Label, Standing, Usage
from ..types import Body, Contract, Count, Name, Reason, Title, Token, UnixMs

Effect = Literal["read", "write"]


class ToolSpec(Contract):
    """A tool as models and policies see it.

    parameters_json: JSON Schema of the arguments. idempotent: the tool honours an idempotency key.
    served_by: the service whose inbox takes the call.
    """

    name: Name
    description: Reason
    parameters_json: Annotated[str, Field(max_length=bounds.MAX_SCHEMA_BYTES)]
    effect: Effect = "read"
    idempotent: bool = True
    served_by: Literal["tool_executor", "rag"] = "tool_executor"
    timeout_ms: Count = bounds.DEFAULT_TOOL_TIMEOUT_MS


class ToolCallRequested(Body, type="mesh.tool.call_requested"):
    """Call a tool. `call_id` is the idempotency key: the same id is done at most once."""

    call_id: Token
    step_id: Token
    attempt: Count
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    deadline_unix_ms: UnixMs


class ToolCallReplied(Body, type="mesh.tool.call_replied"):
    """Outcome of a call.

    `uncertain`: a write may or may not have happened (the doer died in the middle, or the tool's answer
    was lost, and the tool honours no key); it is never repeated, a person is asked.
    """

    call_id: Token
    step_id: Token
    outcome: Literal["succeeded", "refused", "failed", "uncertain"]
    failure: Failure | None = None
    content: ContentRef | None = None
    standing: Standing = "ok"
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    effect: Effect = "read"
    usage: Usage = Usage()
    duration_ms: Count = 0


class WritesRequested(Body, type="mesh.tool.writes_requested"):
    """Which writes of the task that the subject names may or may not have been done (rpc)? The asker may read it."""


class UncertainWrite(Contract):
    """One call. key: what a tool that honours keys was sent. message: the id of its request.

    outcome: `uncertain` (it was begun and its outcome was lost), or `unanswered` when the task ended.
    """

    step_id: Token
    title: Title = ""
    attempt: Count
    tool: Name
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    key: Annotated[str, Field(max_length=200)]
    asked_unix_ms: UnixMs
    outcome: Literal["uncertain", "unanswered"]
    why: Reason
    message: str


class WritesReplied(Body, type="mesh.tool.writes_replied"):
    """In the order in which they were asked for; `more` others are left out for want of room."""

    writes: Annotated[tuple[UncertainWrite, ...], Field(max_length=bounds.MAX_WRITES_LISTED)] = ()
    more: Count = 0
    failure: Failure | None = None
