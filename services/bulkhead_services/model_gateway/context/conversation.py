"""The conversation of an outside agent: read from its blobs, and handed on as it is. Pure.

In: a request with a `Conversation`, and the texts of its blobs. Out: a payload in OpenAI's chat form; or a
ProviderFault that names what cannot be sent.
"""

import base64
from collections.abc import Mapping
from typing import Any

from bulkhead.quotas.image_tokens import MAX_SIDE_PX, PixelSize, most_image_tokens
from bulkhead.quotas.token_estimates import TokenCounter, chat_tokens, image_size, parts_of, without_images
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import AdoptedToolCall, AdoptedToolCalls, Conversation, ModelCallRequested, ToolCall
from bulkhead_contracts.result import ContentRef
from bulkhead_services.model_gateway.context.render import RenderedRequest
from bulkhead_services.model_gateway.providers.fields import read_object
from bulkhead_services.model_gateway.providers.port import ProviderFault, encode_payload

MAX_DEPTH = 64
RESERVED_OPTIONS = frozenset({"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens"})
"""Fields of a request that stand in the call itself, or are the model gateway's to say."""
REFUSED_OPTIONS: Mapping[str, tuple[tuple[object, ...], str]] = {
    "n": ((1,), "one answer is given"),
    "functions": ((), "send `tools`"),
    "function_call": ((), "send `tool_choice`"),
    "audio": ((), "an answer is text"),
    "modalities": ((["text"],), "an answer is text"),
    "web_search_options": ((), "searches by the provider have no price here"),
    "search_parameters": ((), "searches by the provider have no price here"),
    "enable_search": ((False,), "searches by the provider have no price here"),
    "plugins": ((), "what a provider does beside has no price here"),
    "prediction": ((), "what a model rejects of it is paid for beyond any bound"),
    "best_of": ((1,), "one answer is paid for"),
    "service_tier": (("auto", "default", "flex"), "dearer tiers have no price here"),
    **dict.fromkeys(("models", "fallbacks", "preset", "route", "provider"), ((), "a route says which model answers")),
    "store": ((False,), "the mesh keeps the record, and the provider none"),
}
"""Options that no provider is sent, but for these values of theirs, and why."""
COUNTABLE_PARTS = frozenset({"text", "refusal", "image_url", "input_audio", "file"})
"""Types of a message's parts whose tokens can be reserved: all of it stands in the message. Sound has fewer tokens than
bytes."""
_INLINE_IMAGE = "send it inline: a data: URL with the Base64 of a PNG, JPEG, GIF or WebP"
_LARGEST_IMAGE = PixelSize(MAX_SIDE_PX, MAX_SIDE_PX)


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
    if 0 < len(messages) <= bounds.MAX_CONVERSATION:
        return None
    reason = f"the conversation has {len(messages)} messages; 1 to {bounds.MAX_CONVERSATION} are taken"
    return ProviderFault("context_overflow", reason, "send its newest part", consumed=False, refused=True)


def payload_of(conversation: Conversation, texts: Mapping[str, str]) -> dict[str, Any] | ProviderFault:
    """Messages and options as the agent sent them."""
    if sum(len(texts[ref.sha256]) for ref in contents_of(conversation)) > bounds.MAX_CONVERSATION_BYTES:
        return _rejected_fault(
            "context_overflow", "the conversation is larger than it says", "send fewer or shorter messages"
        )
    messages = []
    inputs: dict[str, Any] | None = None
    if conversation.embeds:
        inputs = read_object(texts[conversation.messages[0].sha256])
        if inputs is None or "input" not in inputs or not _is_shallow(inputs) or len(conversation.messages) != 1:
            return _rejected_fault(
                "malformed_conversation", "there is no input to embed", "send `input` as OpenAI has it"
            )
    for place, ref in enumerate(conversation.messages if inputs is None else (), 1):
        message = read_object(texts[ref.sha256])
        if message is None or not _is_message(message) or not _is_shallow(message):
            reason = f"message {place} of the conversation is no chat message"
            return _rejected_fault(
                "malformed_conversation", reason, "send `role`, `content` and `tool_calls` as OpenAI has them"
            )
        if (uncounted := _uncounted_part(message)) is not None:
            problem, hint = uncounted
            return _rejected_fault("unsupported_parameter", f"message {place} of the conversation has {problem}", hint)
        messages.append(message)
    options = read_object(texts[conversation.options.sha256]) if conversation.options is not None else {}
    if options is None or not _is_shallow(options):
        return _rejected_fault("malformed_conversation", "the options of the call are no JSON object", "send an object")
    for name, value in options.items():
        allowed, explanation = REFUSED_OPTIONS.get(name, ((value,), ""))
        if (
            name in RESERVED_OPTIONS
            or (inputs is not None and name == "input")
            or not (value is None or value in allowed)
        ):
            reason = f"the parameter {name} is not passed on{f': {explanation}' if explanation else ''}"
            return _rejected_fault("unsupported_parameter", reason, f"leave {name} out")
    if problem := _provider_tool_problem(options.get("tools")):
        return _rejected_fault(
            "unsupported_parameter", problem, "send tools of the type function, which the agent runs"
        )
    return {"messages": messages, **options} if inputs is None else {"input": inputs["input"], **options}


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


def render_conversation(payload: Mapping[str, Any], counter: TokenCounter) -> RenderedRequest:
    """A payload with an estimate of its tokens."""
    return RenderedRequest(payload, chat_tokens(counter, encode_payload(payload)), adopted=True)


def tokens_to_reserve(counter: TokenCounter, model: str, body: bytes, *, adopted: bool) -> tuple[int, int]:
    """Tokens to reserve for a body as it is sent, and those of them that are of images."""
    text, images = without_images(body) if adopted else (body, [])
    image_tokens = sum(most_image_tokens(model, size or _LARGEST_IMAGE) for size in images)
    return counter.tokens_to_reserve(text) + image_tokens, image_tokens


def learn_token_count(counter: TokenCounter, body: bytes, input_tokens: int, *, adopted: bool) -> None:
    """Correct the counter by what a provider counted; images would tell it nothing about text."""
    if not (adopted and without_images(body)[1]):
        counter.learn_count(body, input_tokens)


def _rejected_fault(code: str, message: str, hint: str) -> ProviderFault:
    return ProviderFault(code, message, hint, consumed=False, refused=True)


def _uncounted_part(message: Mapping[str, Any]) -> tuple[str, str] | None:
    """A part whose tokens nobody can tell before they are paid for, and what to send instead; None where there is
    none."""
    for part in parts_of(message):
        kind = part.get("type", "text")
        if not isinstance(kind, str) or kind not in COUNTABLE_PARTS:
            return f"a part of the type {str(kind)[:32]}, whose size is not known", "send text, or images"
        if kind == "image_url" and image_size(part) is None:
            return "an image whose size in pixels is not known", _INLINE_IMAGE
        if kind == "file" and (problem := _file_problem(part.get("file"))):
            return problem, "send its text, or its pages as images, which count by their size"
    return None


def _file_problem(file: object) -> str:
    """The reason why the tokens of a file have no bound; "" where it is text. A PDF may show one text on any number of
    pages, and an archive unfolds to any size."""
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str):
        return "a file that lies elsewhere, whose size is not known"
    try:
        content = base64.b64decode(data.rpartition(",")[2], validate=True)
        is_text = "\0" not in content.decode() and b"%PDF-" not in content[:1_024]
    except ValueError:
        is_text = False
    return "" if is_text else "a file that is no text (a PDF, an archive), whose tokens have no bound"


def _provider_tool_problem(tools: object) -> str:
    """A tool that the provider itself would run; "" where there is none."""
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict) or tool.get("type") != "function":
            kind = str(tool.get("type"))[:32] if isinstance(tool, dict) else "no object"
            return f"a tool of the type {kind} is not passed on: what a provider does beside has no price here"
    return ""


def _is_message(message: Mapping[str, Any]) -> bool:
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
    return depth_left > 0 and all(
        _is_shallow(item, depth_left - 1) for item in (value.values() if isinstance(value, dict) else value)
    )
