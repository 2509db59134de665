"""Anthropic's messages. What a model thinks is kept beside its answer, for an outside agent that hands it back. The
messages of one that asks in this form are passed on, and the whole answer is kept, as they are."""

import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any

from bulkhead.model_apis.allowed import BETAS
from bulkhead.model_apis.gaps import Gap
from bulkhead.model_apis.native_answers import block_json, block_part, is_told_in_parts
from bulkhead.model_apis.token_counts import token_count
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.fields import (
    larger_usage,
    mapping_of,
    plain_text,
    read_object,
    rows_of,
    short_text,
    usage_of,
)
from bulkhead_services.model_gateway.providers.narrowing import content_parts, data_of, tool_choice_of
from bulkhead_services.model_gateway.providers.port import Chat, ProviderRequest, encode_payload

PATH = "messages"
VERSION = "2023-06-01"
MAX_TEMPERATURE = 1.0
CACHE_MARK = {"cache_control": {"type": "ephemeral"}}
"""Everything up to here is the same in the calls that follow: the provider reads it from its cache for a tenth."""
REFUSED_KEYWORDS = frozenset(
    (
        *("maxItems", "uniqueItems", "minLength", "maxLength", "minProperties", "maxProperties"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""Keywords of a schema that the API answers with 400."""
KEYED_BY_NAME = ("properties", "$defs")
"""Keywords whose keys are names and no keywords."""
THOUGHT_TYPES = ("thinking", "redacted_thinking")
THOUGHT_FIELDS = ("type", "thinking", "signature", "data")
"""Fields of their blocks."""
MAX_BLOCKS = 1_000
TOOL_PROMPT_TOKENS, FORMAT_TOKENS = 500, 500
"""Words of the vendor's own in a request with tools, and in one that asks for a form; some more than it tells of."""
KIND_TOKENS = {"custom": 0, "function": 0, "bash": 400, "text_editor": 1_000}
OTHER_KIND_TOKENS = 1_300
"""The vendor's words about a tool of each of its own kinds; those about its computer are the most."""
_DELTA_FIELDS = ("text", "thinking", "signature", "partial_json")
_END_FIELDS = ("stop_reason", "stop_sequence", "context_management")
"""Fields of a message beside its content and its usage."""
_NAMES = {"stop": "stop_sequences"}
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


def build_request(chat: Chat) -> ProviderRequest:
    """One message, streamed. The system's words and the turns of a call with tools are marked for the cache."""
    if chat.api:
        return _native_request(chat)
    system = ""
    messages: list[dict[str, Any]] = []
    last_stable_block: dict[str, Any] = {}
    for index, message in enumerate(chat.payload["messages"]):
        if message["role"] == "system":
            system = message["content"]
            continue
        role, blocks = _message_blocks(message)
        if messages and messages[-1]["role"] == role:
            # A turn is one message there: results of tools stand first in the user's next one.
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
        if not chat.stable_messages or index < chat.stable_messages:
            last_stable_block = blocks[-1]
    if chat.payload.get("tools"):
        # Another turn follows, most likely; a call without tools is alone, and cache writes cost a quarter more.
        last_stable_block |= CACHE_MARK
    payload: dict[str, Any] = {
        "model": chat.model,
        "max_tokens": chat.output_tokens,
        **({"system": [{"type": "text", "text": system, **CACHE_MARK}]} if system else {}),
        "messages": messages,
        "stream": True,
    }
    if tools := chat.payload.get("tools"):
        payload["tools"] = [_tool_of(tool["function"]) for tool in tools]
    if choice := _tool_choice(chat.payload):
        payload["tool_choice"] = choice
    output: dict[str, Any] = {}
    if form := chat.payload.get("response_format"):
        output["format"] = {"type": "json_schema", "schema": _allowed_schema(form["json_schema"]["schema"])}
    if effort := chat.payload.get("reasoning_effort"):
        output["effort"] = effort
    if output:
        payload["output_config"] = output
    if thinking := chat.payload.get("thinking"):
        payload["thinking"] = thinking
    payload |= {_NAMES.get(name, name): value for name, value in chat.parameters.items()}
    return ProviderRequest(PATH, encode_payload(payload), writes_cache=True)


def _native_request(chat: Chat) -> ProviderRequest:
    """A message that came in this form, with its own marks for the cache."""
    options = {name: value for name, value in chat.payload.items() if name != BETAS and value is not None}
    parameters = {_NAMES.get(name, name): value for name, value in chat.parameters.items()}
    payload = {"model": chat.model, "max_tokens": chat.output_tokens, "stream": True, **parameters, **options}
    betas = chat.payload.get(BETAS) or ()
    thinking, gaps = mapping_of(options.get("thinking")), list[Gap]()
    most_thoughts = chat.output_tokens - 1
    if isinstance(budget := thinking.get("budget_tokens"), int) and budget > most_thoughts:
        payload["thinking"] = {**thinking, "budget_tokens": most_thoughts}
        gaps.append(Gap(f"the budget of thoughts beyond {most_thoughts} tokens", "the reservation bounds them"))
    body = encode_payload(payload)
    return ProviderRequest(
        PATH,
        body,
        writes_cache=b'"cache_control"' in body,
        caches_1h=b'"1h"' in body,
        headers={"anthropic-beta": ",".join(betas)} if betas else {},
        gaps=tuple(gaps),
    )


def added_tokens(payload: Mapping[str, Any]) -> int:
    """Tokens that the vendor adds to a request, in its own form or in that of a chat."""
    tools = [mapping_of(tool) for tool in payload.get("tools") or ()]
    kinds = (plain_text(tool.get("type", "custom")).partition("_20")[0] for tool in tools)
    form = payload.get("response_format") or mapping_of(payload.get("output_config")).get("format")
    return (
        (TOOL_PROMPT_TOKENS if tools else 0)
        + (FORMAT_TOKENS if form else 0)
        + sum(KIND_TOKENS.get(kind, OTHER_KIND_TOKENS) for kind in kinds)
    )


def _tool_choice(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Which tools must be called; {} where nothing is said."""
    kind, name = tool_choice_of(payload)
    serial_option = (
        {} if kind == "none" or payload.get("parallel_tool_calls", True) else {"disable_parallel_tool_use": True}
    )
    if kind == "named":
        return {"type": "tool", "name": name, **serial_option}
    kind = {"none": "none", "required": "any"}.get(kind, "auto" if serial_option and payload.get("tools") else "")
    return {"type": kind, **serial_option} if kind else {}


def _allowed_schema(schema: Any) -> Any:
    """A schema without the keywords that the API refuses; what is made by it is checked whole afterwards."""
    if isinstance(schema, list):
        return [_allowed_schema(row) for row in schema]
    if not isinstance(schema, dict):
        return schema
    allowed = {name: value for name, value in schema.items() if name not in REFUSED_KEYWORDS}
    if allowed.get("minItems", 0) > 1:
        del allowed["minItems"]
    named = {
        name: {key: _allowed_schema(row) for key, row in allowed[name].items()}
        for name in KEYED_BY_NAME
        if name in allowed
    }
    return {name: value if name in KEYED_BY_NAME else _allowed_schema(value) for name, value in allowed.items()} | named


def _tool_of(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": {"type": "object", **function["parameters"]},
    }


def _message_blocks(message: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    content = message.get("content")
    blocks_shown: Any = content if isinstance(content, str) else [_block_of(part) for part in content_parts(content)]
    if message["role"] == "tool":
        return "user", [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": blocks_shown}]
    blocks: list[dict[str, Any]] = [dict(block) for block in message.get("thinking_blocks", ())]
    if blocks_shown:  # The provider refuses empty text.
        blocks += [{"type": "text", "text": blocks_shown}] if isinstance(blocks_shown, str) else blocks_shown
    for call in message.get("tool_calls", ()):
        arguments = read_object(call["function"]["arguments"]) or {}
        blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments})
    return message["role"], blocks or [{"type": "text", "text": "(nothing)"}]


def _block_of(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    media_type, data = data_of(part)
    kind = "image" if part["type"] == "image_url" else "document"
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _thought_block(block: Mapping[str, Any]) -> dict[str, str]:
    """A block of thoughts as it is handed back; {} of any other."""
    if block.get("type") not in THOUGHT_TYPES:
        return {}
    return {name: plain_text(block[name]) for name in THOUGHT_FIELDS if isinstance(block.get(name), str)}


class _NativeBlock:
    """A block of a streamed message, put together as its provider meant it."""

    def __init__(self, block: dict[str, Any]) -> None:
        self._block = dict(block)
        self._pieces: dict[str, list[str]] = {}

    def add_delta(self, delta: dict[str, Any]) -> None:
        """Add a delta to the field that it names."""
        for name in _DELTA_FIELDS:
            if isinstance(delta.get(name), str):
                self._pieces.setdefault(name, []).append(delta[name])
        if citation := mapping_of(delta.get("citation")):
            if not isinstance(self._block.get("citations"), list):
                self._block["citations"] = []
            self._block["citations"].append(citation)

    def as_json_object(self) -> dict[str, Any]:
        """The block as far as it came."""
        fields = {name: "".join(pieces) for name, pieces in self._pieces.items()}
        if (text := fields.pop("partial_json", "")) and (arguments := read_object(text)) is not None:
            self._block["input"] = arguments
        return self._block | {name: plain_text(self._block.get(name)) + text for name, text in fields.items()}


class MessagesAssembly(Assembly):
    """One answer out of a message or out of its events."""

    def __init__(self, outgoing: ProviderRequest | None = None) -> None:
        super().__init__(outgoing)
        self._counts: dict[str, Any] = {}
        self._empty_calls: dict[int, bool] = {}
        self._blocks: dict[int, _NativeBlock] = {}
        self._end: dict[str, Any] = {}

    def _native_answer(self) -> dict[str, Any]:
        content = [block.as_json_object() for _, block in sorted(self._blocks.items())]
        return {"content": content, **self._end} if content else {}

    def _apply_native(self, event: dict[str, Any], place: int) -> None:
        """Keep what comes as it is; tell whole what no part says."""
        match event.get("type"):
            case "content_block_start" if len(self._blocks) < MAX_BLOCKS:
                self._blocks[place] = _NativeBlock(mapping_of(event.get("content_block")))
            case "content_block_delta" if place in self._blocks:
                self._blocks[place].add_delta(mapping_of(event.get("delta")))
            case "content_block_stop" if place in self._blocks:
                self._tell_block(place, self._blocks[place].as_json_object())
            case "message_delta":
                self._keep_end(mapping_of(event.get("delta")) | event)

    def _tell_block(self, place: int, block: dict[str, Any]) -> None:
        if not is_told_in_parts(block):
            self._queue_piece(block_part(place), block_json(block))

    def _keep_end(self, fields: dict[str, Any]) -> None:
        self._end |= {name: fields[name] for name in _END_FIELDS if fields.get(name) is not None}

    def _apply_event(self, event: dict[str, Any]) -> None:
        index = event.get("index")
        place = index if isinstance(index, int) else 0
        if self._outgoing.native:
            self._apply_native(event, place)
        match event.get("type"):
            case "message_start":
                # Its output is that of the start.
                message = mapping_of(event.get("message"))
                self._apply_head(message | {"usage": mapping_of(message.get("usage")) | {"output_tokens": None}})
            case "content_block_start":
                block = mapping_of(event.get("content_block"))
                if block.get("type") == "tool_use":
                    self._add_call(place, block.get("id"), plain_text(block.get("name")), None)
                    self._empty_calls[place] = True
                self._add_thought(place, _thought_block(block))
                if block.get("type") == "text":
                    self._add_text(plain_text(block.get("text")))
            case "content_block_delta":
                delta = mapping_of(event.get("delta"))
                piece = plain_text(delta.get("partial_json"))
                if delta.get("type") == "input_json_delta" and place in self._empty_calls and piece:
                    self._empty_calls[place] = False
                    self._add_call(place, None, "", piece)
                self._add_thought(
                    place, {name: plain_text(delta[name]) for name in THOUGHT_FIELDS[1:] if delta.get(name)}
                )
                if delta.get("type") == "text_delta":
                    self._add_text(plain_text(delta.get("text")))
            case "content_block_stop":
                if self._empty_calls.get(place):
                    self._add_call(place, None, "", {})
            case "message_delta":
                self._apply_head({**mapping_of(event.get("delta")), "usage": event.get("usage")})
            case "message_stop":
                self.over = True
            case _:
                pass

    def _apply_body(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("content"), list):
            self._set_no_answer_fault("content")
            return
        self._apply_head(body)
        if self._outgoing.native:
            self._blocks = {place: _NativeBlock(block) for place, block in enumerate(rows_of(body["content"]))}
            self._keep_end(body)
        for index, block in enumerate(rows_of(body["content"])):
            if block.get("type") == "tool_use":
                self._add_call(index, block.get("id"), plain_text(block.get("name")), mapping_of(block.get("input")))
            self._add_thought(index, _thought_block(block))
            if block.get("type") == "text":
                self._add_text(plain_text(block.get("text")))

    def _read_usage(self, body: dict[str, Any]) -> Usage | None:
        # Those of a stream come in two events, the later one counts.
        counts = {name: value for name, value in mapping_of(body.get("usage")).items() if value is not None}
        self._counts |= counts
        return _usage_of_counts(self._counts) if counts else None

    def _apply_head(self, message: dict[str, Any]) -> None:
        self._model = short_text(message.get("model")) or self._model
        self._tell_usage(self._read_usage(message))
        if reason := short_text(message.get("stop_reason")):
            self._finish = _REASONS.get(reason, reason)
        if reason == "refusal":
            # What was said until then is to be thrown away, the vendor says.
            details = mapping_of(message.get("stop_details"))
            self._add_refusal(
                plain_text(details.get("explanation")) or plain_text(details.get("category")) or "it gives no reason"
            )


def _usage_of_counts(counts: dict[str, Any]) -> Usage | None:
    """Counts of a message, and those of its iterations (a compaction is one) where they are larger together."""
    usages = list(filter(None, map(_usage_of_row, (counts, *rows_of(counts.get("iterations"))))))
    if len(usages) < 2:
        return usages[0] if usages else None
    sums = reduce(operator.add, usages[1:]).model_copy(update={"model_calls": 1})
    return larger_usage(sums, usages[0])


def _usage_of_row(counts: dict[str, Any]) -> Usage | None:
    """Tokens read from the cache and written to it stand beside the input there; here all are input."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    fresh, cached, written = (token_count(counts.get(name)) or 0 for name in names)
    writes = mapping_of(counts.get("cache_creation"))
    briefly, hour = (token_count(writes.get(f"ephemeral_{time}_input_tokens")) or 0 for time in ("5m", "1h"))
    written = max(written, briefly + hour)
    return usage_of(
        fresh + cached + written,
        token_count(counts.get("output_tokens")),
        cached,
        token_count(mapping_of(counts.get("output_tokens_details")).get("thinking_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
    )
