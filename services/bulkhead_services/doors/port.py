"""The seam between the HTTP side and the bus side. In: a caller and a request that a form has read. Out: a call whose
text can be followed and whose answer can be awaited, or a DoorRefusal.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from bulkhead.callers.step_keys import StepKey
from bulkhead.model_apis.native_answers import block_json, block_part, is_told_in_parts, native_blocks
from bulkhead_contracts.model import REASONING, TEXT, AnswerPart, ModelApi, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RequesterClaim

_THOUGHT_KINDS: tuple[tuple[Literal["thinking", "signature", "redacted"], str], ...] = (
    ("thinking", "thinking"),
    ("signature", "signature"),
    ("redacted", "data"),
)


@dataclass(frozen=True, slots=True)
class ParsedModelCall:
    """One model call as a form read it; every value can be written as JSON.

    messages: in the form of `api`. options: the same, without model, messages, stream*, and the bound of the output.
    session: a name of the conversation that the body holds; "" where it holds none. previous: id of the response that
    the messages go on from. keep: a later request may go on from this one; then kept_as is its id, once it is stored.
    embeds: vectors are asked of the `input` of its one message. left_out: tools that no provider is sent.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any]
    max_output_tokens: int | None
    stream: bool
    include_usage: bool = False
    session: str = ""
    previous: str = ""
    keep: bool = False
    kept_as: str = ""
    embeds: bool = False
    api: ModelApi = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller, from its key and its headers.

    token: a JWT for the signer's voucher; "" for an API key. run: a name that the caller chose. task: the id of a run
    of this caller. retry: whether an SDK says that it has sent this request before. notes: whether warnings of the mesh
    are shown to its model. step: the delegated step that the caller holds, and that all its calls belong to.
    """

    claim: RequesterClaim
    token: str
    run: str = ""
    task: str = ""
    retry: bool = False
    idempotency_key: str = ""
    agent: str = "outside"
    feature: str = ""
    workflow: str = ""
    limit_usd_micros: int | None = None
    limit_tokens: int | None = None
    deadline_ms: int | None = None
    traceparent: str = ""
    notes: bool = True
    step: StepKey | None = None


class AnswerPiece(NamedTuple):
    """A piece of an answer, of one of its parts."""

    part: AnswerPart
    text: str


@dataclass(frozen=True, slots=True)
class ModelCallAnswer:
    """A model's answer. thoughts: Anthropic's thinking blocks, or blocks of reasoning that nobody signed. native: the
    whole of it in the API in which it was asked, where its provider speaks that. left_out: parts of the request that no
    provider was sent."""

    call_id: str
    model: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls", ""]
    usage: Usage
    created_unix_ms: int
    degraded: str = ""
    thoughts: tuple[Mapping[str, str], ...] = ()
    native: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def reasoning(self) -> str:
        """The readable part of its thoughts."""
        readable_texts = (block.get("thinking") or block.get("text") or "" for block in self.thoughts)
        return "\n\n".join(piece for piece in readable_texts if piece)

    @property
    def signed_thoughts(self) -> tuple[Mapping[str, str], ...]:
        """The thoughts that Anthropic's API takes back."""
        return tuple(block for block in self.thoughts if block.get("type") != "reasoning")

    @property
    def parts(self) -> tuple[AnswerPiece, ...]:
        """All of it, each part whole, in the order in which models tell them."""
        if self.native:
            return tuple(_native_pieces(self))
        unsigned = "".join(block.get("text", "") for block in self.thoughts if block.get("type") == "reasoning")
        pieces = [AnswerPiece(REASONING, unsigned)]
        for place, block in enumerate(self.signed_thoughts):
            for kind, name in _THOUGHT_KINDS:
                pieces.append(AnswerPiece(AnswerPart(kind=kind, id=str(place)), block.get(name, "")))
        pieces.append(AnswerPiece(TEXT, self.text))
        calls = [
            AnswerPiece(AnswerPart(kind="call", id=call.id, name=call.name), call.arguments_json)
            for call in self.tool_calls
        ]
        return (*(piece for piece in pieces if piece.text), *calls)


def _native_pieces(answer: ModelCallAnswer) -> Iterator[AnswerPiece]:
    """Pieces in the order of the blocks; all text stands where the first of it does."""
    calls, thoughts, text = iter(answer.tool_calls), iter(enumerate(answer.signed_thoughts)), answer.text
    for number, block in enumerate(native_blocks(answer.native)):
        if not is_told_in_parts(block):
            yield AnswerPiece(block_part(number), block_json(block))
        elif block["type"] in ("tool_use", "function_call"):
            if (call := next(calls, None)) is not None:
                yield AnswerPiece(AnswerPart(kind="call", id=call.id, name=call.name), call.arguments_json)
        elif block["type"] in ("thinking", "redacted_thinking"):
            place, thought = next(thoughts, (0, {}))
            for kind, name in _THOUGHT_KINDS:
                if piece := thought.get(name):
                    yield AnswerPiece(AnswerPart(kind=kind, id=str(place)), piece)
        elif text:
            yield AnswerPiece(TEXT, text)
            text = ""


class DoorRefusal(Exception):
    """There is no answer.

    status: of HTTP, by the API's own meaning. code: ours (refused_by_budget, halted, unknown_route...). retry: whether
    an SDK may send the same request again. field: of the request's body; "" where it is about none.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        *,
        retry: bool = False,
        retry_after_s: float | None = None,
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.retry, self.retry_after_s, self.field = retry, retry_after_s, field


@dataclass(frozen=True, slots=True)
class RunSpending:
    """A run's spending, for headers. left: the least under any limit of its calls; None without one, or where it is
    not known. warning: what a watcher says of it; "" where that was told before."""

    task: str
    spent_usd_micros: int
    left_usd_micros: int | None = None
    left_tokens: int | None = None
    warning: str = ""


class StoredCall(Protocol):
    """One model call that is stored."""

    @property
    def call_id(self) -> str:
        """Its id; the same for the same request."""
        ...

    @property
    def kept_as(self) -> str:
        """The id by which a later request goes on from it; "" where it is not kept."""
        ...

    @property
    def run_spending(self) -> RunSpending:
        """The run's spending, as far as it is known now."""
        ...

    def follow_pieces(self) -> AsyncIterator[AnswerPiece]:
        """Live pieces as they come, until the answer is there. Pieces that were missed live come from the record: those
        of a part joined are the whole part."""
        ...

    async def wait_for_answer(self) -> ModelCallAnswer:
        """The answer. Raises DoorRefusal."""
        ...


class ModelCallPort(Protocol):
    """The bus side of the doors."""

    async def begin_model_call(self, caller: Caller, parsed_call: ParsedModelCall) -> StoredCall:
        """A call. The run is open and the call stored when this returns. Raises DoorRefusal."""
        ...

    async def end_run(self, caller: Caller, task: str) -> None:
        """End a run of this caller. Raises DoorRefusal."""
        ...

    async def list_models(self, caller: Caller) -> tuple[str, ...]:
        """Names that `ParsedModelCall.model` may have. Raises DoorRefusal."""
        ...
