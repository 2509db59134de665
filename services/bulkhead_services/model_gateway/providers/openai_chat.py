"""OpenAI's chat completions, as OpenAI, Azure, Ollama and most other servers speak them."""

from typing import Any

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.fields import count, mapping, plain, rows, short, usage_of
from bulkhead_services.model_gateway.providers.port import Chat, Outgoing, encode

PATH = "chat/completions"


def request(chat: Chat, limit_field: str = "max_completion_tokens") -> Outgoing:
    """One chat completion, streamed, with its usage at the end."""
    payload = {"model": chat.model, **chat.payload, "stream": True}
    payload[chat.limit_field or limit_field] = chat.output_tokens
    payload["stream_options"] = {"include_usage": True}
    if chat.temperature is not None:
        payload["temperature"] = chat.temperature
    return Outgoing(PATH, encode(payload))


class ChatAssembly(Assembly):
    """One answer out of chunks, or out of a chat completion."""

    def _event(self, found: dict[str, Any]) -> str:
        choice = self._common(found)
        delta = choice.get("delta") if choice else None
        return self._message(delta) if isinstance(delta, dict) else ""

    def _whole(self, found: dict[str, Any]) -> str:
        choice = self._common(found)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict):
            return self._no_answer("choices")
        # A body that is whole was not cut off; some servers give no reason with it.
        self._finish = self._finish or "stop"
        return self._message(message)

    def _common(self, found: dict[str, Any]) -> dict[str, Any] | None:
        self.usage = _usage(found.get("usage")) or self.usage
        self._model = short(found.get("model")) or self._model
        self._fingerprint = short(found.get("system_fingerprint")) or self._fingerprint
        choice = next(iter(rows(found.get("choices"))), None)
        reason = choice.get("finish_reason") if choice else None
        if isinstance(reason, str) and reason:
            self._finish = "stop" if reason == "function_call" else reason
        return choice

    def _message(self, message: dict[str, Any]) -> str:
        for position, row in enumerate(rows(message.get("tool_calls"))):
            index, function = row.get("index"), mapping(row.get("function"))
            place = index if isinstance(index, int) and index >= 0 else position
            self._call(place, row.get("id"), plain(function.get("name")), function.get("arguments"))
        # A refusal is what the model says in an answer's place.
        return self._add(plain(message.get("content")) + plain(message.get("refusal")))


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict):
        return None
    cached = mapping(found.get("prompt_tokens_details")).get("cached_tokens")
    completion = count(found["completion_tokens"]) if found.get("completion_tokens") is not None else None
    return usage_of(count(found.get("prompt_tokens")), completion, count(cached))
