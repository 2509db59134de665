"""The conversation of an outside agent: read from its blobs, and handed on as it is. Pure.

In: a request with a `Conversation`, and the texts of its blobs. Out: a payload in OpenAI's chat form; or a
ProviderFault that names what cannot be sent.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from bulkhead.model_apis.allowed import (
    ANTHROPIC,
    CHAT_OPTIONS,
    CHEAP_TIERS,
    EMBEDDING_OPTIONS,
    NATIVE_OPTIONS,
    RESPONSES,
    unlisted_option,
)
from bulkhead.model_apis.gaps import Gap, count_gaps
from bulkhead.model_apis.media import estimate_body, media_tokens_to_reserve, without_media
from bulkhead.quotas.token_bounds import tokens_to_reserve
from bulkhead.quotas.token_estimates import TokenCounter
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import (
    AdoptedToolCall,
    AdoptedToolCalls,
    Conversation,
    ModelApi,
    ModelCallRequested,
    ToolCall,
)
from bulkhead_contracts.result import ContentRef, Omission
from bulkhead_services.model_gateway.context.render import RenderedRequest, RenderSource
from bulkhead_services.model_gateway.providers.fields import read_object
from bulkhead_services.model_gateway.providers.port import ProviderFault, encode_payload

MAX_DEPTH = 64
_UNLISTED = "it is not among the options whose cost is bounded"
_UNPRICED_TIER = "dearer tiers have no price here"


def contents_of(conversation: Conversation) -> tuple[ContentRef, ...]:
    """Every blob of a conversation."""
    return (*conversation.messages, *filter(None, [conversation.options]))


def name_first_unreadable(conversation: Conversation, missing_digests: frozenset[str]) -> str:
    """Name of the first content that cannot be had; "" when all can."""
    for place, ref in enumerate(conversation.messages, 1):
        if ref.sha256 in missing_digests:
            return f"message {place} of the conversation"
    options = conversation.options
    return "the options of the call" if options is not None and options.sha256 in missing_digests else ""


def size_fault(conversation: Conversation) -> ProviderFault | None:
    """A conversation that is not even read."""
    size = sum(ref.size_bytes for ref in contents_of(conversation))
    if size <= bounds.MAX_CONVERSATION_BYTES:
        return None
    reason = f"the conversation has {size} bytes; {bounds.MAX_CONVERSATION_BYTES} are taken"
    return ProviderFault("context_overflow", reason, "send fewer or shorter messages", consumed=False, refused=True)


def message_count_fault(messages: tuple[ContentRef, ...]) -> ProviderFault | None:
    """A conversation that is too long, or has no message."""
    if 0 < len(messages) <= bounds.MAX_CONVERSATION_ROWS:
        return None
    reason = f"the conversation has {len(messages)} messages; 1 to {bounds.MAX_CONVERSATION_ROWS} are taken"
    return ProviderFault("context_overflow", reason, "send its newest part", consumed=False, refused=True)


def payload_of(conversation: Conversation, texts: Mapping[str, str]) -> dict[str, Any] | ProviderFault:
    """Messages and options as the agent sent them."""
    if sum(len(texts[ref.sha256]) for ref in contents_of(conversation)) > bounds.MAX_CONVERSATION_BYTES:
        return _rejected_fault(
            "context_overflow", "the conversation is larger than it says", "send fewer or shorter messages"
        )
    rows = list[dict[str, Any]]()
    inputs: dict[str, Any] | None = None
    if conversation.embeds:
        inputs = read_object(texts[conversation.messages[0].sha256])
        if inputs is None or "input" not in inputs or not _is_shallow(inputs) or len(conversation.messages) != 1:
            return _rejected_fault(
                "malformed_conversation", "there is no input to embed", "send `input` as OpenAI has it"
            )
    for place, ref in enumerate(conversation.messages if inputs is None else (), 1):
        row = read_object(texts[ref.sha256])
        if row is None or not _is_message(conversation.api, row) or not _is_shallow(row):
            reason = f"message {place} of the conversation is no chat message"
            return _rejected_fault("malformed_conversation", reason, "send messages as the API has them")
        rows.append(row)
    options = read_object(texts[conversation.options.sha256]) if conversation.options is not None else {}
    if options is None or not _is_shallow(options):
        return _rejected_fault("malformed_conversation", "the options of the call are no JSON object", "send an object")
    listed = NATIVE_OPTIONS.get(conversation.api, CHAT_OPTIONS if inputs is None else EMBEDDING_OPTIONS)
    if name := unlisted_option(options, listed):
        problem = f"the parameter {name} is not passed on: {_UNLISTED}"
        return _rejected_fault("unsupported_parameter", problem, f"leave {name} out")
    if options.get("service_tier") not in (None, *CHEAP_TIERS):
        problem = f"the parameter service_tier is not passed on: {_UNPRICED_TIER}"
        return _rejected_fault("unsupported_parameter", problem, "leave service_tier out")
    if inputs is not None:
        return {"input": inputs["input"], **options}
    if notes := conversation.notes:
        rows = add_notes(conversation.api, rows[:-notes], rows[-notes:])
    return {"messages": rows, **options}


def add_notes(api: ModelApi, rows: list[dict[str, Any]], notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with those of the mesh behind them, in the API's form."""
    if api == RESPONSES:
        return rows + [{"type": "message", "role": "developer", "content": note["content"]} for note in notes]
    if api != ANTHROPIC or not rows or rows[-1]["role"] != "user":
        return rows + notes
    # Not every model takes words of the system there.
    content = rows[-1].get("content")
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    note_blocks = [{"type": "text", "text": note["content"]} for note in notes]
    return [*rows[:-1], {**rows[-1], "content": [*blocks, *note_blocks]}]


def encode_oversized_calls(request: ModelCallRequested, calls: tuple[ToolCall, ...]) -> bytes | str:
    """Tool calls that are more or longer than a reply holds, as a content; empty where they are not. A text says why
    they can be told in no way."""
    if len(calls) <= bounds.MAX_CALLS_PER_TURN and not any(isinstance(call, AdoptedToolCall) for call in calls):
        return b""
    if request.conversation is None or not request.conversation.reads_calls:
        return f"{len(calls)} tool calls are more or longer than this version of {subjects.DOORS} reads"
    adopted_calls = AdoptedToolCalls(calls=tuple(AdoptedToolCall(**call.model_dump()) for call in calls))
    data = adopted_calls.model_dump_json().encode()
    if len(data) > bounds.MAX_BLOB_BYTES:
        return f"{len(calls)} tool calls take {len(data)} bytes, and may take {bounds.MAX_BLOB_BYTES}"
    return data


def encode_native_answer(body: Mapping[str, Any]) -> bytes:
    """An answer in its provider's own form, as a content; empty where there is none, or no room for it."""
    data = encode_payload(body) if body else b""
    return data if len(data) <= bounds.MAX_BLOB_BYTES else b""


def render_conversation(source: RenderSource, counter: TokenCounter) -> RenderedRequest:
    """The payload of an outside agent with an estimate of its tokens."""
    payload, conversation = source.payload or {}, source.request.conversation
    return RenderedRequest(
        payload,
        estimate_body(counter, encode_payload(payload), source.pdfs),
        tuple(omissions_of(source.gaps)),
        adopted=True,
        api=conversation.api if conversation is not None else "",
        pdfs=source.pdfs,
    )


def omissions_of(gaps: Iterable[Gap]) -> list[Omission]:
    """Parts that are left out of a conversation, each kind once."""
    return [
        Omission(
            reason="pruned",
            what=(gap.what if count == 1 else f"{gap.what} ({count} times)")[: bounds.MAX_SUMMARY_CHARS],
            detail=gap.why,
        )
        for gap, count in count_gaps(gaps)
    ]


def body_tokens_to_reserve(counter: TokenCounter, body: bytes, rendered: RenderedRequest) -> tuple[int, int]:
    """Tokens to reserve for a body as it is sent, and those of them that are of images and pages."""
    text, media = without_media(body) if rendered.adopted else (body, [])
    media_tokens = media_tokens_to_reserve(media, rendered.pdfs, partial(tokens_to_reserve, counter), counter.model)
    return tokens_to_reserve(counter, text, is_json=True) + media_tokens, media_tokens


def learn_token_count(counter: TokenCounter, body: bytes, input_tokens: int, *, adopted: bool) -> None:
    """Correct the counter by what a provider counted; images would tell it nothing about text."""
    if not (adopted and without_media(body)[1]):
        counter.learn_count(body, input_tokens)


def _rejected_fault(code: str, message: str, hint: str) -> ProviderFault:
    return ProviderFault(code, message, hint, consumed=False, refused=True)


def _is_message(api: ModelApi, message: Mapping[str, Any]) -> bool:
    if api == RESPONSES:
        return True
    calls = message.get("tool_calls") or ()
    return (
        isinstance(message.get("role"), str)
        and isinstance(calls, list | tuple)
        and all(isinstance(call, dict) and isinstance(call.get("id"), str) for call in calls)
    )


def _is_shallow(value: object, depth_left: int = MAX_DEPTH) -> bool:
    """True when it nests less deep than any reader's stack."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    nested = [item for item in items if isinstance(item, dict | list)]
    return depth_left > 0 and all(_is_shallow(item, depth_left - 1) for item in nested)
