"""OpenAI's responses. Whatever the provider does by itself is no part of an answer."""

from typing import Any

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.assembly import FILTERED, Assembly
from bulkhead_services.model_gateway.providers.fields import count, mapping, plain, rows, short, usage_of
from bulkhead_services.model_gateway.providers.narrowing import choice_of
from bulkhead_services.model_gateway.providers.port import Chat, Outgoing, encode

PATH = "responses"
_REASONS = {"max_output_tokens": "length", "content_filter": f"{FILTERED}: content_filter"}
_ITEMS = frozenset({"message", "function_call", "reasoning", ""})


def request(chat: Chat) -> Outgoing:
    """One response, streamed; the provider keeps nothing of it."""
    payload: dict[str, Any] = {
        "model": chat.model,
        "input": [item for message in chat.payload["messages"] for item in _items(message)],
        "max_output_tokens": chat.output_tokens,
        "stream": True,
        "store": False,
    }
    if tools := chat.payload.get("tools"):
        payload["tools"] = [{"type": "function", **tool["function"], "strict": False} for tool in tools]
    if form := chat.payload.get("response_format"):
        payload["text"] = {"format": {"type": "json_schema", **form["json_schema"]}}
    kind, name = choice_of(chat.payload)
    if kind:
        payload["tool_choice"] = {"type": "function", "name": name} if kind == "named" else kind
    if not chat.payload.get("parallel_tool_calls", True):
        payload["parallel_tool_calls"] = False
    given = dict(chat.parameters)
    reasoning = {"effort": given.pop("reasoning_effort", ""), "summary": chat.payload.get("reasoning_summary", "")}
    if any(reasoning.values()):
        payload["reasoning"] = {name: value for name, value in reasoning.items() if value}
    payload |= given
    return Outgoing(PATH, encode(payload))


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    items = [{"role": message["role"], "content": message["content"]}] if message.get("content") else []
    for call in message.get("tool_calls", ()):
        items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    return items


class ResponsesAssembly(Assembly):
    """One answer out of a response or out of its events."""

    def __init__(self, outgoing: Outgoing | None = None) -> None:
        super().__init__(outgoing)
        self._heard: set[int | None] = set()
        """Places of the items that came in pieces."""

    def _event(self, found: dict[str, Any]) -> None:
        index, delta = found.get("output_index"), plain(found.get("delta"))
        place = index if isinstance(index, int) else None
        match found.get("type"):
            case "response.output_text.delta":
                self._add(delta)
            case "response.output_item.added":
                self._call_begins(place, mapping(found.get("item")))
            case "response.function_call_arguments.delta" if place is not None and place in self._calls:
                self._heard.add(place)
                self._call(place, None, "", delta)
            case "response.reasoning_summary_part.added":
                self._reason("\n\n" if place in self._heard else "")
            case "response.reasoning_summary_text.delta":
                self._heard.add(place)
                self._reason(delta)
            case "response.refusal.delta":
                self._refuse(plain(found.get("delta")))
            case "response.output_item.done":
                self._item(place, mapping(found.get("item")))
            case "response.completed" | "response.incomplete":
                self._end(mapping(found.get("response")))
                self.over = True
            case "response.failed":
                response = mapping(found.get("response"))
                self._end(response)
                self.fault = errors.in_body(response.get("error") or "the response failed")
            case "error":
                self.fault = errors.in_body({**found, "type": found.get("code")})
            case _:
                pass

    def _whole(self, found: dict[str, Any]) -> None:
        if not isinstance(found.get("output"), list):
            self._no_answer("output")
            return
        self._end(found)
        for index, item in enumerate(rows(found["output"])):
            self._item(index, item)
            for part in rows(item.get("content")) if item.get("type") == "message" else ():
                self._add(plain(part.get("text")))
                self._refuse(plain(part.get("refusal")))

    def _call_begins(self, index: int | None, item: dict[str, Any]) -> None:
        if item.get("type") == "function_call" and index is not None:
            self._call(index, item.get("call_id"), plain(item.get("name")), None)

    def _item(self, index: int | None, item: dict[str, Any]) -> None:
        if index in self._heard:
            return
        if item.get("type") == "reasoning":
            self._reason("\n\n".join(plain(part.get("text")) for part in rows(item.get("summary"))))
        if item.get("type") == "function_call" and index is not None:
            self._call(index, item.get("call_id"), plain(item.get("name")), item.get("arguments"))
        elif plain(item.get("type")) not in _ITEMS:
            self._leave_out(plain(item.get("type")))

    def _end(self, response: dict[str, Any]) -> None:
        self.usage = _usage(response.get("usage")) or self.usage
        details = mapping(mapping(response.get("usage")).get("input_tokens_details"))
        self.cache_write_tokens = count(details.get("cache_write_tokens")) or 0
        self._model = short(response.get("model")) or self._model
        status = response.get("status")
        if status == "completed":
            self._finish = "stop"
        elif status == "incomplete":
            reason = short(mapping(response.get("incomplete_details")).get("reason")) or "incomplete"
            self._finish = _REASONS.get(reason, reason)


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict) or found.get("output_tokens") is None:
        return None
    cached = mapping(found.get("input_tokens_details")).get("cached_tokens")
    thought = count(mapping(found.get("output_tokens_details")).get("reasoning_tokens"))
    return usage_of(count(found.get("input_tokens")), count(found["output_tokens"]), count(cached), thought)
