"""A model call: prompt by id, content by reference, and what came back."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Completeness, ContentRef, Failure, Label, Standing, Usage
from ..tool.v1 import ToolSpec
from ..types import Body, Contract, Count, Name, Summary, Token, UnixMs

PartKind = Literal[
    "objective", "step", "input", "notes", "passage", "answer", "acceptance", "tools", "context", "tool_result"
]


class Part(Contract):
    """One piece of a prompt: a blob (`content`), or for what the mesh itself says (`text`), short text."""

    kind: PartKind
    content: ContentRef | None = None
    text: Annotated[str, Field(max_length=bounds.MAX_INSTRUCTION_CHARS * 2)] = ""
    source: Summary = ""
    title: Summary = ""
    step_id: str = ""


class ToolCall(Contract):
    """A call that a model asks for. Neither name nor arguments are to be believed."""

    id: Token
    name: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)]
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]


class ToolAnswer(Contract):
    """What came of one call: parts (passages, a tool's text) or an error for the model to read."""

    tool_call_id: Token
    parts: Annotated[tuple[Part, ...], Field(max_length=bounds.MAX_PASSAGES)] = ()
    error: Failure | None = None


class Turn(Contract):
    """One earlier turn of the agent loop: what the model said, and the answers to its calls, in order."""

    content: ContentRef | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN)] = ()
    answers: Annotated[tuple[ToolAnswer, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN)] = ()


class ModelCallRequested(Body, type="mesh.model.call_requested"):
    """Think. `prompt_id` names a versioned prompt file; `response` the structured form wanted."""

    call_id: Token
    step_id: str = ""
    attempt: Count = 1
    prompt_id: Name
    parts: Annotated[tuple[Part, ...], Field(max_length=bounds.MAX_PARTS)] = ()
    turns: Annotated[tuple[Turn, ...], Field(max_length=bounds.MAX_TURNS_PER_STEP)] = ()
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    response: Literal["text", "plan", "verdict"] = "text"
    tier: Name = "default"
    max_output_tokens: Annotated[int, Field(gt=0, le=1_000_000)] = 2_000
    stream: bool = True
    deadline_unix_ms: UnixMs


class ModelCallReplied(Body, type="mesh.model.call_replied"):
    """What the model answered, or why there is no answer.

    Failure codes: rate_limited, provider_error, timeout, truncated_stream, error_body, malformed_json,
    malformed_arguments, context_overflow, length, refused_by_budget, halted, unknown_price, unknown_model,
    bad_grant, unreachable.
    """

    call_id: Token
    step_id: str = ""
    outcome: Literal["answered", "refused", "failed"]
    failure: Failure | None = None
    content: ContentRef | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN)] = ()
    finish: Literal["stop", "length", "tool_calls", ""] = ""
    standing: Standing = "ok"
    standing_reason: Summary = ""
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    usage: Usage = Usage()
    model: Summary = ""
    provider: Summary = ""
    fingerprint: Summary = ""
    prompt_id: Name
    prompt_digest: Summary = ""
    price_digest: Summary = ""
    provider_attempts: Count = 0
    duration_ms: Count = 0


class TextDelta(Contract):
    """One live piece of a streaming answer (not stored): `offset` counts characters of the call's text."""

    call_id: Token
    step_id: str = ""
    attempt: Count = 1
    offset: Count
    text: Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS)]
