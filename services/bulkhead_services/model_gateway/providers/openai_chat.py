"""OpenAI's chat completions, as OpenAI, Azure, Ollama and most other servers speak them."""

import json
from functools import reduce
from typing import Any

from bulkhead.model_apis.token_counts import embedded_tokens, token_count
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.providers.assembly import FILTERED, Assembly
from bulkhead_services.model_gateway.providers.fields import (
    larger_usage,
    mapping_of,
    plain_text,
    rows_of,
    short_text,
    usage_of,
)
from bulkhead_services.model_gateway.providers.narrowing import REASONING_SUMMARY
from bulkhead_services.model_gateway.providers.port import (
    Chat,
    ProviderFault,
    ProviderRequest,
    encode_payload,
    is_embedding,
)

PATH, EMBEDDINGS_PATH = "chat/completions", "embeddings"
_REASONS = {"function_call": "stop", "content_filter": f"{FILTERED}: content_filter"}


def build_request(chat: Chat, limit_field: str = "max_completion_tokens") -> ProviderRequest:
    """One chat completion, streamed, with its usage at the end; or vectors, whole."""
    if is_embedding(chat.payload):
        return ProviderRequest(EMBEDDINGS_PATH, encode_payload({"model": chat.model, **chat.payload}))
    payload: dict[str, Any] = {"model": chat.model, **chat.payload, "stream": True}
    if any("thinking_blocks" in message for message in chat.payload["messages"]):
        # Another vendor's thoughts, signed for that one.
        payload["messages"] = [
            {name: value for name, value in message.items() if name != "thinking_blocks"}
            for message in chat.payload["messages"]
        ]
    payload.pop(
        REASONING_SUMMARY, None
    )  # It says `auto`: this API has no word for it, and gives what reasoning there is.
    payload[chat.limit_field or limit_field] = chat.output_tokens
    payload["stream_options"] = {"include_usage": True}
    body = encode_payload({**payload, **chat.parameters})
    # Providers of this API write to a cache with marks and without.
    return ProviderRequest(PATH, body, writes_cache=True, caches_1h=b'"1h"' in body)


class ChatAssembly(Assembly):
    """One answer out of chunks, or out of a chat completion."""

    def __init__(self, outgoing: ProviderRequest | None = None) -> None:
        super().__init__(outgoing)
        self._places: dict[int, int] = {}
        self._opened = 0

    def _apply_event(self, event: dict[str, Any]) -> None:
        choice = self._apply_head(event)
        delta = choice.get("delta") if choice else None
        if isinstance(delta, dict):
            self._apply_message(delta)

    def _apply_body(self, body: dict[str, Any]) -> None:
        if self._outgoing.path == EMBEDDINGS_PATH:
            self._apply_vectors(body)
            return
        choice = self._apply_head(body)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict):
            self._set_no_answer_fault("choices")
            return
        # A body that is whole was not cut off; some servers give no reason with it.
        self._finish = self._finish or "stop"
        self._apply_message(message)

    def _apply_vectors(self, body: dict[str, Any]) -> None:
        """Take vectors as the answer's text, which nobody is shown live."""
        self._counts_input_alone = True
        self._model = short_text(body.get("model"))
        vectors = [row.get("embedding") for row in rows_of(body.get("data"))]
        if not vectors or not all(isinstance(vector, str | list) and vector for vector in vectors):
            self._set_no_answer_fault("embeddings")
            return
        text = json.dumps(vectors, separators=(",", ":"))
        if len(text) > bounds.MAX_BLOB_BYTES:
            message = f"{len(vectors)} vectors take {len(text)} bytes, and may take {bounds.MAX_BLOB_BYTES}"
            self.fault = ProviderFault(
                "answer_too_large", message, "send fewer inputs at once, or ask for encoding_format base64"
            )
            return
        self._finish, self.text_bytes = "stop", len(text)
        self._pieces.append(text)

    def _apply_head(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        self._tell_usage(self._read_usage(chunk))
        self._model = short_text(chunk.get("model")) or self._model
        self._fingerprint = short_text(chunk.get("system_fingerprint")) or self._fingerprint
        choice = next(iter(rows_of(chunk.get("choices"))), None)
        reason = choice.get("finish_reason") if choice else None
        if isinstance(reason, str) and reason:
            self._finish = _REASONS.get(reason, reason)
        return choice

    def _read_usage(self, body: dict[str, Any]) -> Usage | None:
        if self._outgoing.path == EMBEDDINGS_PATH:
            return usage_of(embedded_tokens(body), 0, 0)
        # Moonshot tells it in the choice, Groq in a field of its own.
        places = (body, mapping_of(body.get("x_groq")), *rows_of(body.get("choices"))[:1])
        usages = [_usage_of_counts(place.get("usage"), self._outgoing.caches_1h) for place in places]
        return reduce(larger_usage, filter(None, usages)) if any(usages) else None

    def _apply_message(self, message: dict[str, Any]) -> None:
        # DeepSeek's name, and that of Ollama and of later vLLM; some servers send both.
        self._add_reasoning(plain_text(message.get("reasoning_content")) or plain_text(message.get("reasoning")))
        self._add_text(plain_text(message.get("content")))
        for position, row in enumerate(rows_of(message.get("tool_calls"))):
            index, function = row.get("index"), mapping_of(row.get("function"))
            told_index = index if isinstance(index, int) and index >= 0 else position
            name = plain_text(function.get("name"))
            self._add_call(
                self._place_of_call(told_index, short_text(row.get("id")), name),
                row.get("id"),
                name,
                function.get("arguments"),
            )
        for kind in ("images", "audio"):
            if message.get(kind):
                self._note_non_text(kind)
        if refusal := plain_text(message.get("refusal")):
            self._add_refusal(refusal)

    def _place_of_call(self, index: int, call_id: str, name: str) -> int:
        """The place of a call: some servers give every call of an answer the same index, or none."""
        place = self._places.get(index)
        open_call = self._calls.get(place) if place is not None else None
        is_new = (
            open_call is not None
            and open_call.name
            and name
            and (open_call.id != call_id if call_id else open_call.is_whole())
        )
        if place is None or is_new:
            place, self._opened = self._opened, self._opened + 1
            self._places[index] = place
        return place


def _usage_of_counts(counts: object, caches_1h: bool) -> Usage | None:
    """caches_1h: what was written stays for an hour, for all that the counts say."""
    if not isinstance(counts, dict):
        return None
    details, reasoning = (
        mapping_of(counts.get("prompt_tokens_details")),
        mapping_of(counts.get("completion_tokens_details")),
    )
    prompt, cached = token_count(counts.get("prompt_tokens")), token_count(details.get("cached_tokens"))
    written = token_count(details.get("cache_write_tokens"))
    return usage_of(
        prompt,
        token_count(counts.get("completion_tokens")),
        cached,
        token_count(reasoning.get("reasoning_tokens")),
        token_count(counts.get("total_tokens")),
        cache_write_tokens=written,
        cache_write_1h_tokens=written if caches_1h else 0,
        input_audio_tokens=token_count(details.get("audio_tokens")),
        input_image_tokens=token_count(details.get("image_tokens")),
        output_audio_tokens=token_count(reasoning.get("audio_tokens")),
    )
