"""Anthropic's messages. Tools that the provider runs itself are no part of an answer; what it thinks is kept beside it,
for an outside agent that hands it back."""

from collections.abc import Mapping
from typing import Any

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.fields import count, mapping, plain, read_object, rows, short, usage_of
from bulkhead_services.model_gateway.providers.narrowing import choice_of
from bulkhead_services.model_gateway.providers.port import Chat, Outgoing, encode

PATH = "messages"
VERSION = "2023-06-01"
MAX_TEMPERATURE = 1.0
CACHED = {"cache_control": {"type": "ephemeral"}}
"""Everything up to here is the same in the calls that follow: the provider reads it from its cache for a tenth."""
REFUSED = frozenset(
    (
        *("maxItems", "uniqueItems", "minLength", "maxLength", "minProperties", "maxProperties"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""Keywords of a schema that the API answers with 400."""
NAMED = ("properties", "$defs")
"""Keywords whose keys are names and no keywords."""
THOUGHTS = ("thinking", "redacted_thinking")
THOUGHT = ("type", "thinking", "signature", "data")
"""Fields of their blocks."""
_NAMES = {"stop": "stop_sequences"}
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


def request(chat: Chat) -> Outgoing:
    """One message, streamed. The system's words and the turns of a call with tools are marked for the cache."""
    system = ""
    messages: list[dict[str, Any]] = []
    repeated: dict[str, Any] = {}
    for index, message in enumerate(chat.payload["messages"]):
        if message["role"] == "system":
            system = message["content"]
            continue
        role, blocks = _blocks(message)
        if messages and messages[-1]["role"] == role:
            # A turn is one message there: results of tools stand first in the user's next one.
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
        if not chat.stable_messages or index < chat.stable_messages:
            repeated = blocks[-1]
    if chat.payload.get("tools"):
        # Another turn follows, most likely; a call without tools is alone, and cache writes cost a quarter more.
        repeated |= CACHED
    payload: dict[str, Any] = {
        "model": chat.model,
        "max_tokens": chat.output_tokens,
        **({"system": [{"type": "text", "text": system, **CACHED}]} if system else {}),
        "messages": messages,
        "stream": True,
    }
    if tools := chat.payload.get("tools"):
        payload["tools"] = [_tool(tool["function"]) for tool in tools]
    if choice := _choice(chat.payload):
        payload["tool_choice"] = choice
    output: dict[str, Any] = {}
    if form := chat.payload.get("response_format"):
        output["format"] = {"type": "json_schema", "schema": _taken(form["json_schema"]["schema"])}
    if effort := chat.payload.get("reasoning_effort"):
        output["effort"] = effort
    if output:
        payload["output_config"] = output
    if thinking := chat.payload.get("thinking"):
        payload["thinking"] = thinking
    payload |= {_NAMES.get(name, name): value for name, value in chat.parameters.items()}
    return Outgoing(PATH, encode(payload), writes_cache=True)


def _choice(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Which tools must be called; {} where nothing is said."""
    kind, name = choice_of(payload)
    alone = {} if kind == "none" or payload.get("parallel_tool_calls", True) else {"disable_parallel_tool_use": True}
    if kind == "named":
        return {"type": "tool", "name": name, **alone}
    kind = {"none": "none", "required": "any"}.get(kind, "auto" if alone and payload.get("tools") else "")
    return {"type": kind, **alone} if kind else {}


def _taken(schema: Any) -> Any:
    """A schema without the keywords that the API refuses; what is made by it is checked whole afterwards."""
    if isinstance(schema, list):
        return [_taken(row) for row in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in REFUSED}
    if kept.get("minItems", 0) > 1:
        del kept["minItems"]
    named = {name: {key: _taken(row) for key, row in kept[name].items()} for name in NAMED if name in kept}
    return {name: value if name in NAMED else _taken(value) for name, value in kept.items()} | named


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": {"type": "object", **function["parameters"]},
    }


def _blocks(message: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
        return "user", [result]
    blocks: list[dict[str, Any]] = [dict(block) for block in message.get("thinking_blocks", ())]
    if message.get("content"):  # The provider refuses empty text.
        blocks.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls", ()):
        given = read_object(call["function"]["arguments"]) or {}
        blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given})
    return message["role"], blocks or [{"type": "text", "text": "(nothing)"}]


def _thought(block: Mapping[str, Any]) -> dict[str, str]:
    """A block of thoughts as it is handed back; {} of any other."""
    if block.get("type") not in THOUGHTS:
        return {}
    return {name: plain(block[name]) for name in THOUGHT if isinstance(block.get(name), str)}


class MessagesAssembly(Assembly):
    """One answer out of a message or out of its events."""

    def __init__(self, outgoing: Outgoing | None = None) -> None:
        super().__init__(outgoing)
        self._counts: dict[str, Any] = {}
        self._empty_calls: dict[int, bool] = {}

    def _event(self, found: dict[str, Any]) -> None:
        index = found.get("index")
        place = index if isinstance(index, int) else 0
        match found.get("type"):
            case "message_start":
                # Its counts are those of the start: an answer that is cut off has used more.
                self._common(mapping(found.get("message")), whole=False)
            case "content_block_start":
                block = mapping(found.get("content_block"))
                if block.get("type") == "tool_use":
                    self._call(place, block.get("id"), plain(block.get("name")), None)
                    self._empty_calls[place] = True
                self._think(place, _thought(block))
                if block.get("type") == "text":
                    self._add(plain(block.get("text")))
            case "content_block_delta":
                delta = mapping(found.get("delta"))
                piece = plain(delta.get("partial_json"))
                if delta.get("type") == "input_json_delta" and place in self._empty_calls and piece:
                    self._empty_calls[place] = False
                    self._call(place, None, "", piece)
                self._think(place, {name: plain(delta[name]) for name in THOUGHT[1:] if delta.get(name)})
                if delta.get("type") == "text_delta":
                    self._add(plain(delta.get("text")))
            case "content_block_stop":
                if self._empty_calls.get(place):
                    self._call(place, None, "", {})
            case "message_delta":
                usage = mapping(found.get("usage"))
                self._common({**mapping(found.get("delta")), "usage": usage}, whole=bool(usage))
            case "message_stop":
                self.over = True
            case _:
                pass

    def _whole(self, found: dict[str, Any]) -> None:
        if not isinstance(found.get("content"), list):
            self._no_answer("content")
            return
        self._common(found)
        for index, block in enumerate(rows(found["content"])):
            if block.get("type") == "tool_use":
                self._call(index, block.get("id"), plain(block.get("name")), mapping(block.get("input")))
            self._think(index, _thought(block))
            if block.get("type") == "text":
                self._add(plain(block.get("text")))

    def _common(self, message: dict[str, Any], *, whole: bool = True) -> None:
        self._model = short(message.get("model")) or self._model
        # Those of a stream come in two events, the later one counts.
        self._counts |= {name: value for name, value in mapping(message.get("usage")).items() if value is not None}
        self.usage = _usage(self._counts) if whole else None
        self.cache_write_tokens = count(self._counts.get("cache_creation_input_tokens")) or 0
        if reason := short(message.get("stop_reason")):
            self._finish = _REASONS.get(reason, reason)
        if reason == "refusal":
            # What was said until then is to be thrown away, the vendor says.
            details = mapping(message.get("stop_details"))
            self._refuse(plain(details.get("explanation")) or plain(details.get("category")) or "it gives no reason")


def _usage(found: dict[str, Any]) -> Usage | None:
    """Tokens read from the cache and written to it stand beside the input there; here all are input."""
    if found.get("output_tokens") is None:
        return None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    fresh, cached, written = (count(found.get(name)) for name in names)
    if fresh is None or cached is None or written is None:
        return None
    return usage_of(fresh + cached + written, count(found["output_tokens"]), cached)
