"""A model call: prompt by id, content by reference, and what came back."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..output import OutputPolicy
from ..plan.v1 import Role
from ..prompt.v1 import ReleaseRef
from ..provenance import Attribution
from ..result import Completeness, ContentRef, Failure, Label, Standing, Usage
from ..settlement import DoerReply
from ..tool.v1 import ToolSpec
from ..types import Body, Contract, Count, Name, Sha256, Summary, Token, UnixMs

DEFAULT_TIER = "default"
UNKNOWN_ROUTE = "unknown_route"
"""Code of a call whose tier no route of the model gateway serves."""

ModelApi = Literal["", "anthropic", "openai-responses"]
"""API in which an outside agent asks; "" is OpenAI's chat form."""
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
    """A call that a model asks for. Neither name nor arguments are to be believed.

    attribution: where the arguments come from, signed by the model gateway.
    """

    id: Token
    name: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)]
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ARGUMENTS_BYTES)]
    attribution: Annotated[Attribution | None, Field(exclude_if=operator.not_)] = None


class AdoptedToolCall(ToolCall):
    """A call that an outside agent makes itself."""

    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ADOPTED_ARGUMENTS_BYTES)]


class AdoptedToolCalls(Contract):
    """The tool calls of an answer to an outside agent, as a content."""

    calls: Annotated[tuple[AdoptedToolCall, ...], Field(max_length=bounds.MAX_ADOPTED_CALLS)]


class ToolAnswer(Contract):
    """Outcome of one call: parts (passages, a tool's text) or an error for the model to read."""

    tool_call_id: Token
    parts: Annotated[tuple[Part, ...], Field(max_length=bounds.MAX_PASSAGES)] = ()
    error: Failure | None = None


class Turn(Contract):
    """One earlier turn of the agent loop: what the model said, and the answers to its calls, in order."""

    content: ContentRef | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN)] = ()
    answers: Annotated[tuple[ToolAnswer, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN)] = ()


class OutsideAct(Contract):
    """A tool call that an outside agent made, as its conversation tells: nobody here saw it.

    arguments_json: of long ones their sha256. error: by the first words of its result, which no API marks.
    """

    call_id: Summary = ""
    tool: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)]
    arguments_json: Annotated[str, Field(max_length=bounds.MAX_ACT_ARGUMENTS_CHARS)] = ""
    result_sha256: Sha256
    error: Annotated[bool, Field(exclude_if=operator.not_)] = False


class Conversation(Contract):
    """Messages of an outside agent to a model, as they are.

    api: whose form they have. messages: a blob of doors each, that holds one message (of OpenAI's responses one item)
    as canonical JSON; one whose media type is `REFERENCES` lists so many of them, and of a long conversation only
    the newest stand here. options: a blob with a JSON object in the same form: tools, temperature, ... acts:
    what the agent did since the model's last answer, for the watcher; more_acts: what did not fit there, with
    arguments of MAX_NAME_CHARS at most, of longer ones their sha256. thread: digest of what people said before the
    first answer; it tells the conversations of one run apart. notes: so many of the last messages are of the mesh,
    in the chat form. reads_calls: its asker takes tool calls as a content, too. embeds: its one message holds texts
    or tokens (`input`) of which vectors are asked; the answer's content (`EMBEDDINGS`) lists them as the provider
    gave them.
    """

    messages: Annotated[tuple[ContentRef, ...], Field(min_length=1, max_length=bounds.MAX_CONVERSATION)]
    options: ContentRef | None = None
    acts: Annotated[tuple[OutsideAct, ...], Field(max_length=bounds.MAX_CALLS_PER_TURN, exclude_if=operator.not_)] = ()
    thread: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    reads_calls: Annotated[bool, Field(exclude_if=operator.not_)] = False
    notes: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    embeds: Annotated[bool, Field(exclude_if=operator.not_)] = False
    more_acts: Annotated[tuple[OutsideAct, ...], Field(max_length=bounds.MAX_MORE_ACTS, exclude_if=operator.not_)] = ()
    api: Annotated[ModelApi, Field(exclude_if=operator.not_)] = ""


class ModelCallRequested(Body, type="mesh.model.call_requested"):
    """Think. `prompt_id` names a versioned prompt file; `response` the structured form wanted.

    latest: parts that another turn of the same step may not have any more; they are shown last, so that what comes
    before stays the same for the provider's cache. labels: what its contents are, signed by who observed them.
    conversation: in place of prompt, parts and tools, of a step that is adopted; `tier` may then name a model. roles:
    that the steps of a `plan` may have besides the worker's; with any, prompt and schema are those that speak of roles.
    """

    call_id: Token
    step_id: str = ""
    attempt: Count = 1
    prompt_id: Name
    parts: Annotated[tuple[Part, ...], Field(max_length=bounds.MAX_PARTS)] = ()
    turns: Annotated[tuple[Turn, ...], Field(max_length=bounds.MAX_TURNS_PER_STEP)] = ()
    latest: Annotated[tuple[Part, ...], Field(max_length=bounds.MAX_PARTS, exclude_if=operator.not_)] = ()
    labels: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_LABELS, exclude_if=operator.not_)] = ()
    tools: Annotated[tuple[ToolSpec, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    response: Literal["text", "plan", "verdict"] = "text"
    tier: Name = DEFAULT_TIER
    max_output_tokens: Annotated[int, Field(gt=0, le=1_000_000)] = 2_000
    stream: bool = True
    output: OutputPolicy | None = None
    deadline_unix_ms: UnixMs
    conversation: Annotated[Conversation | None, Field(exclude_if=operator.not_)] = None
    roles: Annotated[tuple[Role, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES, exclude_if=operator.not_)] = ()


class ModelCallReplied(Body, DoerReply, type="mesh.model.call_replied"):
    """Answer of the model, or why there is none.

    Failure codes: rate_limited, provider_error, request_refused (by the provider), timeout, truncated_stream,
    error_body, malformed_json, malformed_arguments, context_overflow, content_filter (the provider withheld the
    answer), model_refused, length, refused_by_budget, refused_by_policy, halted, unknown_price, unknown_model,
    unknown_route, bad_grant, unreachable, no_answer (the model thought and said nothing); of an outside agent's
    call also unsupported_parameter, malformed_conversation, tool_calls_too_large, abandoned (nobody follows it any
    more).

    changes: what was put right in the text (thinking left out, a plan taken out of Markdown); `raw` is the
    text as the model wrote it, where `content` is not. pinned: the model that was asked for; `model` and
    `fingerprint` are what its provider says answered. chosen_as: which model of its route answered.
    waited_ms, waited_for: of duration_ms, what was spent waiting for providers: rate limits, pauses after
    failures, places; "" on older replies. cached: an earlier answer to the very same request, which cost
    nothing. calls: of an answer whose tool calls are more or longer than `tool_calls` holds, all of them
    (`AdoptedToolCalls`). thoughts: to an outside agent, a JSON list of Anthropic's thinking blocks as the
    provider signed them (it wants them back with the results of the calls), or of one block of reasoning that
    another provider let be seen. native: to an outside agent that asked in its provider's own API, the whole answer as
    a JSON object of that API. release: of the tenant's prompts, with which the task began; "" where it has the shipped
    ones.
    """

    call_id: Token
    step_id: str = ""
    outcome: Literal["answered", "refused", "failed"]
    failure: Failure | None = None
    content: ContentRef | None = None
    raw: ContentRef | None = None
    changes: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_REPLY_CHANGES)] = ()
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
    pinned: Summary = ""
    prompt_id: Name
    prompt_digest: Summary = ""
    price_digest: Summary = ""
    provider_attempts: Count = 0
    duration_ms: Count = 0
    chosen_as: Literal["first", "fallback", "hedge", "escalation", ""] = ""
    waited_ms: Count = 0
    waited_for: Summary = ""
    cached: Annotated[bool, Field(exclude_if=operator.not_)] = False
    calls: Annotated[ContentRef | None, Field(exclude_if=operator.not_)] = None
    thoughts: Annotated[ContentRef | None, Field(exclude_if=operator.not_)] = None
    native: Annotated[ContentRef | None, Field(exclude_if=operator.not_)] = None
    release: Annotated[ReleaseRef, Field(exclude_if=operator.not_)] = ""


class CallAbandoned(Contract):
    """Notice that nobody follows this call of an outside agent any more (not stored)."""

    call_id: Token


class CallFollowers(Contract):
    """Between replicas of doors (not stored): asks who follows a call, or says that somebody does.

    about: the call; readers of CallAbandoned must not take it for one.
    """

    about: Token
    followed: bool = False


class ModelsRequested(Body, type="mesh.model.models_requested"):
    """Doors ask which models calls of the tenant can name (rpc)."""


class ModelsReplied(Body, type="mesh.model.models_replied"):
    """Names of routes, then of the models that answer first on them, as far as the tenant's policy allows a model.
    context_tokens: by name, the largest context of any model that may answer there; () of a gateway that tells none.
    """

    names: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_MODELS_TOLD)] = ()
    context_tokens: Annotated[
        tuple[Count, ...], Field(max_length=bounds.MAX_MODELS_TOLD, exclude_if=operator.not_)
    ] = ()


class AnswerPart(Contract):
    """A part of an answer. id: of a tool call, or the place of a block of signed thoughts; name: of the tool.

    reasoning: thoughts that nobody signed; thinking, signature, redacted: of a block that its provider takes back.
    block: JSON of a block or an item that has no kind of its own, in the API in which it was asked; id: its place.
    """

    kind: Literal["text", "reasoning", "thinking", "signature", "redacted", "call"] = "text"
    id: Annotated[Token | Literal[""], Field(exclude_if=operator.not_)] = ""
    name: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS, exclude_if=operator.not_)] = ""
    block: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @property
    def told_kind(self) -> str:
        """Its kind; `block` of a whole one."""
        return "block" if self.block else self.kind


TEXT = AnswerPart()
REASONING = AnswerPart(kind="reasoning")


def _is_text(part: AnswerPart) -> bool:
    """Not written then, nor known to older readers."""
    return part == TEXT


class TextDelta(Contract):
    """One live piece of a streaming answer (not stored): `offset` counts characters of its part of the answer.

    text: of the answer's text; a piece of another `part` is `part_text`, for readers that know no parts take all `text`
    for the answer's. Parts beside the text are told of outside agents' calls alone. verified: its sentences have
    sources; a task whose delivery is `verified` shows no other.
    """

    call_id: Token
    step_id: str = ""
    attempt: Count = 1
    offset: Count
    text: Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS)]
    verified: bool = False
    part: Annotated[AnswerPart, Field(exclude_if=_is_text)] = TEXT
    part_text: Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS, exclude_if=operator.not_)] = ""

    @property
    def piece(self) -> str:
        """The piece of its part."""
        return self.text if self.part == TEXT else self.part_text
