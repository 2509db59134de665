"""OpenAI's responses. Whatever the provider does by itself is no part of an answer, but to an outside agent that asks
in this form: its items are passed on, and given back, as they are."""

from typing import Any

from bulkhead.model_apis.native_answers import block_json, block_part, is_told_in_parts
from bulkhead.model_apis.token_counts import token_count
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.assembly import FILTERED, Assembly
from bulkhead_services.model_gateway.providers.fields import mapping_of, plain_text, rows_of, short_text, usage_of
from bulkhead_services.model_gateway.providers.narrowing import content_parts, tool_choice_of
from bulkhead_services.model_gateway.providers.port import Chat, ProviderRequest, encode_payload

PATH = "responses"
MAX_ITEMS = 1_000
_REASONS = {"max_output_tokens": "length", "content_filter": f"{FILTERED}: content_filter"}
_ITEMS = frozenset({"message", "function_call", "reasoning", ""})


def build_request(chat: Chat) -> ProviderRequest:
    """One response, streamed; the provider keeps nothing of it."""
    if chat.api:
        return _native_request(chat)
    payload: dict[str, Any] = {
        "model": chat.model,
        "input": [item for message in chat.payload["messages"] for item in _message_items(message)],
        "max_output_tokens": chat.output_tokens,
        "stream": True,
        "store": False,
    }
    if tools := chat.payload.get("tools"):
        payload["tools"] = [{"type": "function", **tool["function"], "strict": False} for tool in tools]
    if form := chat.payload.get("response_format"):
        payload["text"] = {"format": {"type": "json_schema", **form["json_schema"]}}
    kind, name = tool_choice_of(chat.payload)
    if kind:
        payload["tool_choice"] = {"type": "function", "name": name} if kind == "named" else kind
    if not chat.payload.get("parallel_tool_calls", True):
        payload["parallel_tool_calls"] = False
    parameters = dict(chat.parameters)
    reasoning = {"effort": parameters.pop("reasoning_effort", ""), "summary": chat.payload.get("reasoning_summary", "")}
    if any(reasoning.values()):
        payload["reasoning"] = {name: value for name, value in reasoning.items() if value}
    payload |= parameters
    return ProviderRequest(PATH, encode_payload(payload), writes_cache=True)


def _native_request(chat: Chat) -> ProviderRequest:
    """A response that was asked for in this form."""
    options = {name: value for name, value in chat.payload.items() if name != "messages" and value is not None}
    parameters = dict(chat.parameters)
    if effort := parameters.pop("reasoning_effort", ""):
        options["reasoning"] = {"effort": effort, **mapping_of(options.get("reasoning"))}
    payload = {"model": chat.model, "input": chat.payload["messages"], "max_output_tokens": chat.output_tokens}
    tier = {name: parameters[name] for name in ("service_tier",) if name in parameters}  # The mesh says it.
    payload |= {"stream": True, "store": False, **parameters, **options, **tier}
    return ProviderRequest(PATH, encode_payload(payload), writes_cache=True)


def _message_items(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    content_shown: Any = content if isinstance(content, str) else [_part_of(part) for part in content_parts(content)]
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": content_shown}]
    items = [{"role": message["role"], "content": content_shown}] if content_shown else []
    for call in message.get("tool_calls", ()):
        items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    return items


def _part_of(part: dict[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
        case _:
            return {"type": "input_file", **part["file"]}


class ResponsesAssembly(Assembly):
    """One answer out of a response or out of its events."""

    def __init__(self, outgoing: ProviderRequest | None = None) -> None:
        super().__init__(outgoing)
        self._heard: set[int | None] = set()
        """Places of the items that came in pieces."""
        self._output: dict[int, dict[str, Any]] = {}
        self._end: dict[str, Any] = {}

    def _native_answer(self) -> dict[str, Any]:
        output = [item for _, item in sorted(self._output.items())]
        return {"output": output, **self._end} if output else {}

    def _apply_event(self, event: dict[str, Any]) -> None:
        index, delta = event.get("output_index"), plain_text(event.get("delta"))
        place = index if isinstance(index, int) else None
        match event.get("type"):
            case "response.output_text.delta":
                self._add_text(delta)
            case "response.output_item.added":
                self._begin_call(place, mapping_of(event.get("item")))
            case "response.function_call_arguments.delta" if place is not None and place in self._calls:
                self._heard.add(place)
                self._add_call(place, None, "", delta)
            case "response.reasoning_summary_part.added" if not self._outgoing.native:
                self._add_reasoning("\n\n" if place in self._heard else "")
            case "response.reasoning_summary_text.delta" if not self._outgoing.native:
                self._heard.add(place)
                self._add_reasoning(delta)
            case "response.refusal.delta":
                self._add_refusal(plain_text(event.get("delta")))
            case "response.output_item.done":
                self._apply_item(place, mapping_of(event.get("item")))
            case "response.completed" | "response.incomplete":
                self._apply_end(mapping_of(event.get("response")))
                self.over = True
            case "response.failed" | "response.cancelled":
                response = mapping_of(event.get("response"))
                self._apply_end(response)
                self.fault = errors.fault_in_body(response.get("error") or "the response failed")
                self.over = True
            case "error":
                self.fault = errors.fault_in_body({**event, "type": event.get("code")})
            case _:
                pass

    def _apply_body(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("output"), list):
            self._set_no_answer_fault("output")
            return
        self._apply_end(body)
        for index, item in enumerate(rows_of(body["output"])):
            self._apply_item(index, item)
            for part in rows_of(item.get("content")) if item.get("type") == "message" else ():
                self._add_text(plain_text(part.get("text")))
                self._add_refusal(plain_text(part.get("refusal")))

    def _begin_call(self, index: int | None, item: dict[str, Any]) -> None:
        if item.get("type") == "function_call" and index is not None and not self._is_told_whole(item):
            self._add_call(index, item.get("call_id"), plain_text(item.get("name")), None)

    def _is_told_whole(self, item: dict[str, Any]) -> bool:
        return self._outgoing.native and not is_told_in_parts(item)

    def _apply_item(self, index: int | None, item: dict[str, Any]) -> None:
        if self._outgoing.native and index is not None and len(self._output) < MAX_ITEMS:
            self._output[index] = item
            if not is_told_in_parts(item):
                self._queue_piece(block_part(index), block_json(item))
                return
        if index in self._heard:
            return
        if item.get("type") == "reasoning":
            self._add_reasoning("\n\n".join(plain_text(part.get("text")) for part in rows_of(item.get("summary"))))
        if item.get("type") == "function_call" and index is not None:
            self._add_call(index, item.get("call_id"), plain_text(item.get("name")), item.get("arguments"))
        elif plain_text(item.get("type")) not in _ITEMS:
            self._note_non_text(plain_text(item.get("type")))

    def _read_usage(self, body: dict[str, Any]) -> Usage | None:
        return _usage_of_counts(body.get("usage"))

    def _apply_end(self, response: dict[str, Any]) -> None:
        self._tell_usage(self._read_usage(response))
        self._model = short_text(response.get("model")) or self._model
        status = response.get("status")
        if status == "completed":
            self._finish = "stop"
        elif status == "incomplete":
            reason = short_text(mapping_of(response.get("incomplete_details")).get("reason")) or "incomplete"
            self._finish = _REASONS.get(reason, reason)


def _usage_of_counts(counts: object) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    details = mapping_of(counts.get("input_tokens_details"))
    return usage_of(
        token_count(counts.get("input_tokens")),
        token_count(counts.get("output_tokens")),
        token_count(details.get("cached_tokens")),
        token_count(mapping_of(counts.get("output_tokens_details")).get("reasoning_tokens")),
        token_count(counts.get("total_tokens")),
        cache_write_tokens=token_count(details.get("cache_write_tokens")),
    )
