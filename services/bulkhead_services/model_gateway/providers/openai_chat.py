"""OpenAI's chat completions, as OpenAI, Azure, Ollama and most other servers speak them."""

import json
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import FILTERED, Assembly
from bulkhead_services.model_gateway.providers.fields import count, mapping, plain, rows, short, usage_of
from bulkhead_services.model_gateway.providers.narrowing import SUMMARY
from bulkhead_services.model_gateway.providers.port import Chat, Fault, Outgoing, embeds, encode

PATH, EMBEDDINGS_PATH = "chat/completions", "embeddings"
_REASONS = {"function_call": "stop", "content_filter": f"{FILTERED}: content_filter"}


def request(chat: Chat, limit_field: str = "max_completion_tokens") -> Outgoing:
    """One chat completion, streamed, with its usage at the end; or vectors, whole."""
    if embeds(chat.payload):
        return Outgoing(EMBEDDINGS_PATH, encode({"model": chat.model, **chat.payload}))
    payload: dict[str, Any] = {"model": chat.model, **chat.payload, "stream": True}
    if any("thinking_blocks" in message for message in chat.payload["messages"]):
        # Another vendor's thoughts, signed for that one.
        payload["messages"] = [
            {name: value for name, value in message.items() if name != "thinking_blocks"}
            for message in chat.payload["messages"]
        ]
    payload.pop(SUMMARY, None)  # It says `auto`: this API has no word for it, and gives what reasoning there is.
    payload[chat.limit_field or limit_field] = chat.output_tokens
    payload["stream_options"] = {"include_usage": True}
    return Outgoing(PATH, encode({**payload, **chat.parameters}))


class ChatAssembly(Assembly):
    """One answer out of chunks, or out of a chat completion."""

    def __init__(self, outgoing: Outgoing | None = None) -> None:
        super().__init__(outgoing)
        self._places: dict[int, int] = {}
        self._opened = 0

    def _event(self, found: dict[str, Any]) -> None:
        choice = self._common(found)
        delta = choice.get("delta") if choice else None
        if isinstance(delta, dict):
            self._message(delta)

    def _whole(self, found: dict[str, Any]) -> None:
        if self._outgoing.path == EMBEDDINGS_PATH:
            self._vectors(found)
            return
        choice = self._common(found)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict):
            self._no_answer("choices")
            return
        # A body that is whole was not cut off; some servers give no reason with it.
        self._finish = self._finish or "stop"
        self._message(message)

    def _vectors(self, found: dict[str, Any]) -> None:
        """Take vectors as the answer's text, which nobody is shown live."""
        given = mapping(found.get("usage"))
        self.usage = usage_of(count(given.get("prompt_tokens")) or count(given.get("total_tokens")), 0, 0)
        self._model = short(found.get("model"))
        vectors = [row.get("embedding") for row in rows(found.get("data"))]
        if not vectors or not all(isinstance(one, str | list) and one for one in vectors):
            self._no_answer("embeddings")
            return
        text = json.dumps(vectors, separators=(",", ":"))
        if len(text) > bounds.MAX_BLOB_BYTES:
            what = f"{len(vectors)} vectors take {len(text)} bytes, and may take {bounds.MAX_BLOB_BYTES}"
            self.fault = Fault("answer_too_large", what, "send fewer inputs at once, or ask for encoding_format base64")
            return
        self._finish, self.text_bytes = "stop", len(text)
        self._pieces.append(text)

    def _common(self, found: dict[str, Any]) -> dict[str, Any] | None:
        if (told := _usage(found.get("usage"))) is not None:
            self.usage, self.cache_write_tokens = told
        self._model = short(found.get("model")) or self._model
        self._fingerprint = short(found.get("system_fingerprint")) or self._fingerprint
        choice = next(iter(rows(found.get("choices"))), None)
        reason = choice.get("finish_reason") if choice else None
        if isinstance(reason, str) and reason:
            self._finish = _REASONS.get(reason, reason)
        return choice

    def _message(self, message: dict[str, Any]) -> None:
        # DeepSeek's name, and that of Ollama and of later vLLM; some servers send both.
        self._reason(plain(message.get("reasoning_content")) or plain(message.get("reasoning")))
        self._add(plain(message.get("content")))
        for position, row in enumerate(rows(message.get("tool_calls"))):
            index, function = row.get("index"), mapping(row.get("function"))
            told = index if isinstance(index, int) and index >= 0 else position
            name = plain(function.get("name"))
            self._call(self._place(told, short(row.get("id")), name), row.get("id"), name, function.get("arguments"))
        for kind in ("images", "audio"):
            if message.get(kind):
                self._leave_out(kind)
        if refusal := plain(message.get("refusal")):
            self._refuse(refusal)

    def _place(self, told: int, call_id: str, name: str) -> int:
        """The place of a call: some servers give every call of an answer the same index, or none."""
        place = self._places.get(told)
        known = self._calls.get(place) if place is not None else None
        other = known is not None and known.name and name and (known.id != call_id if call_id else known.whole())
        if place is None or other:
            place, self._opened = self._opened, self._opened + 1
            self._places[told] = place
        return place


def _usage(found: object) -> tuple[Usage, int] | None:
    """Tokens, and those of the input that were written to the cache."""
    if not isinstance(found, dict):
        return None
    details, reasoning = mapping(found.get("prompt_tokens_details")), mapping(found.get("completion_tokens_details"))
    prompt, cached = count(found.get("prompt_tokens")), count(details.get("cached_tokens"))
    completion = count(found["completion_tokens"]) if found.get("completion_tokens") is not None else None
    thought, total = count(reasoning.get("reasoning_tokens")), count(found.get("total_tokens"))
    if prompt and completion is not None and thought and total == prompt + completion + thought:
        completion += thought  # Some vendors count thoughts beside the completion.
    usage = usage_of(prompt, completion, cached, thought)
    return None if usage is None else (usage, count(details.get("cache_write_tokens")) or 0)
