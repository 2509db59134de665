"""Answers and errors as each vendor's API words them, for the scripted provider.

Enters: what a model says (`Said`), or the name of an error. Leaves: a body, the events of a stream, or an error.
`test_sdk_contract.py` holds them to the types of the vendors' own SDKs.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from bulkhead_services.model_gateway.providers.forms import Api

End = Literal["stop", "length", "tool_calls", "filter", "refusal", "unknown"]
ErrorName = Literal["rate_limit", "overloaded", "server", "overflow", "key", "credit", "filter", "request"]
Json = dict[str, Any]
MODEL, WHEN = "scripted-1", 1_760_000_000
STATUS: dict[ErrorName, int] = {
    "rate_limit": 429,
    "overloaded": 503,
    "server": 500,
    "overflow": 400,
    "key": 401,
    "credit": 429,
    "filter": 400,
    "request": 400,
}


@dataclass(frozen=True)
class Said:
    """What a model says. calls: id, name, arguments. counts: input, output, cached input, thoughts; None: not told.

    junk_usage: stands in every field of the usage.
    """

    text: str = ""
    thoughts: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    end: End = "stop"
    counts: tuple[int, int, int, int] | None = (100, 20, 15, 8)
    junk_usage: object = None


class Dialect(ABC):
    """One vendor's words. api: the wire form that reads them. base: of the path."""

    def __init__(self, api: Api, base: str = "/v1") -> None:
        self.api, self.base = api, base

    @abstractmethod
    def stream(self, said: Said) -> list[Json]:
        """The events of a stream, without the line that ends it."""

    @abstractmethod
    def whole(self, said: Said) -> Json:
        """The body that is no stream."""

    @abstractmethod
    def error(self, name: ErrorName, message: str = "") -> Json:
        """The body of an error."""

    def status(self, name: ErrorName) -> int:
        """The status of an error."""
        return STATUS[name]

    def late_error(self, name: ErrorName) -> Json:
        """An error inside of a stream."""
        return self.error(name)

    def frame(self, event: Json) -> bytes:
        """One event on the wire."""
        return f"data: {json.dumps(event)}\n\n".encode()

    closing = b""


class Chat(Dialect):
    """OpenAI's chat completions, and Azure's and Ollama's ways with them."""

    closing = b"data: [DONE]\n\n"
    _ends = {"filter": "content_filter", "refusal": "stop", "unknown": "tired"}

    def stream(self, said: Said) -> list[Json]:
        head = [{**self._chunk({}), "choices": [], "prompt_filter_results": []}] if self.api == "azure-openai" else []
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{self._thoughts: piece} for piece in _halves(said.thoughts)]
        name = "refusal" if said.end == "refusal" else "content"
        deltas += [{name: piece} for piece in _halves(said.text)]
        for index, (call_id, function, arguments) in enumerate(said.calls):
            first, *rest = _halves(arguments) or [""]
            row = {"index": index, "id": call_id, "type": "function"}
            deltas.append({"tool_calls": [{**row, "function": {"name": function, "arguments": first}}]})
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in rest]
        last = self._chunk({}, self._ends.get(said.end, said.end))
        usage = self._usage(said)
        tail = [{**self._chunk({}), "choices": [], "usage": usage}] if usage is not None else []
        return [*head, *map(self._chunk, deltas), last, *tail]

    def whole(self, said: Said) -> Json:
        message: Json = {"role": "assistant", "content": said.text or None, "refusal": None}
        if said.end == "refusal":
            message |= {"content": None, "refusal": said.text}
        if said.thoughts:
            message[self._thoughts] = said.thoughts
        if said.calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in said.calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": self._ends.get(said.end, said.end), "logprobs": None}
        body = {**self._chunk({}), "object": "chat.completion", "choices": [choice]}
        usage = self._usage(said)
        return body if usage is None else {**body, "usage": usage}

    def error(self, name: ErrorName, message: str = "") -> Json:
        kinds = {
            "rate_limit": "requests",
            "overloaded": "server_error",
            "server": "server_error",
            "overflow": "invalid",
        }
        codes = {
            "rate_limit": "rate_limit_exceeded",
            "overflow": "context_length_exceeded",
            "key": "invalid_api_key",
            "credit": "insufficient_quota",
            "filter": "content_filter" if self.api == "azure-openai" else "invalid_prompt",
        }
        kind = kinds.get(name, "invalid_request_error")
        if self.api == "ollama":
            codes = {}
        said = message or (f"This model's maximum context length is 9 tokens ({name})" if name == "overflow" else name)
        return {"error": {"message": said, "type": kind, "param": None, "code": codes.get(name)}}

    @property
    def _thoughts(self) -> str:
        return "reasoning" if self.api == "ollama" else "reasoning_content"

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        kind = "chat.completion.chunk"
        head = {"id": "chatcmpl-1", "object": kind, "created": WHEN, "model": MODEL, "system_fingerprint": "fp_1"}
        return {**head, "choices": choices}

    def _usage(self, said: Said) -> Json | None:
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        if said.junk_usage is not None:
            return dict.fromkeys(names, said.junk_usage)
        if said.counts is None:
            return None
        prompt, completion, cached, thoughts = said.counts
        counts: Json = dict(zip(names, (prompt, completion, prompt + completion), strict=True))
        if self.api == "ollama":
            return counts
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        return {**counts, **details, "completion_tokens_details": {"reasoning_tokens": thoughts}}


class Responses(Dialect):
    """OpenAI's responses."""

    def frame(self, event: Json) -> bytes:
        return f"event: {event['type']}\n".encode() + super().frame(event)

    def stream(self, said: Said) -> list[Json]:
        body = self.whole(said)
        begun = {**body, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        events: list[Json] = [{"type": "response.created", "response": begun}]
        for index, item in enumerate(body["output"]):
            place = {"output_index": index}
            blank = {**item, "content": []} if item["type"] == "message" else item
            events.append({"type": "response.output_item.added", **place, "item": blank})
            if item["type"] == "function_call":
                at = {**place, "item_id": item["id"]}
                for piece in _halves(item["arguments"]):
                    events.append({"type": "response.function_call_arguments.delta", **at, "delta": piece})
            for part in item["content"] if item["type"] == "message" else ():
                at = {**place, "item_id": item["id"], "content_index": 0}
                events.append({"type": "response.content_part.added", **at, "part": part})
                kind = "refusal" if part["type"] == "refusal" else "output_text"
                more: Json = {} if kind == "refusal" else {"logprobs": []}
                for piece in _halves(said.text):
                    events.append({"type": f"response.{kind}.delta", **at, "delta": piece, **more})
            events.append({"type": "response.output_item.done", **place, "item": item})
        end = "incomplete" if body["status"] == "incomplete" else "completed"
        events.append({"type": f"response.{end}", "response": body})
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]

    def whole(self, said: Said) -> Json:
        output: list[Json] = []
        if said.thoughts:
            summary = [{"type": "summary_text", "text": said.thoughts}]
            output.append({"type": "reasoning", "id": "rs_1", "summary": summary})
        if said.text:
            part: Json = {"type": "output_text", "text": said.text, "annotations": []}
            if said.end == "refusal":
                part = {"type": "refusal", "refusal": said.text}
            row = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
            output.append(row)
        for call_id, name, arguments in said.calls:
            row = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "status": "completed"}
            output.append({**row, "name": name, "arguments": arguments})
        reasons = {"length": "max_output_tokens", "filter": "content_filter", "unknown": "tired"}
        details = {"reason": reasons[said.end]} if said.end in reasons else None
        head = {"id": "resp_1", "object": "response", "created_at": WHEN, "model": MODEL, "error": None}
        usual = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "instructions": None}
        state = {"status": "incomplete" if details else "completed", "incomplete_details": details}
        return {**head, **usual, **state, "output": output, "usage": self._usage(said)}

    def error(self, name: ErrorName, message: str = "") -> Json:
        return Chat("openai-chat").error(name, message)

    def late_error(self, name: ErrorName) -> Json:
        error = self.error(name)["error"]
        codes = {"server": "server_error", "overloaded": "server_error"}
        code = error["code"] or codes.get(name, "invalid_request_error")
        if name in ("server", "filter", "rate_limit"):
            failed = {**self.whole(Said()), "status": "failed", "usage": None}
            response = {**failed, "error": {"code": code, "message": error["message"]}}
            return {"type": "response.failed", "response": response, "sequence_number": 9}
        return {"type": "error", "code": code, "message": error["message"], "param": None, "sequence_number": 9}

    def _usage(self, said: Said) -> Json | None:
        names = ("input_tokens", "output_tokens", "total_tokens")
        if said.junk_usage is not None:
            return dict.fromkeys(names, said.junk_usage)
        if said.counts is None:
            return None
        given, made, cached, thoughts = said.counts
        counts = dict(zip(names, (given, made, given + made), strict=True))
        details = {"input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0}}
        return {**counts, **details, "output_tokens_details": {"reasoning_tokens": thoughts}}


class Messages(Dialect):
    """Anthropic's messages."""

    _ends = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "filter": "refusal"}
    _kinds: dict[ErrorName, str] = {
        "rate_limit": "rate_limit_error",
        "overloaded": "overloaded_error",
        "server": "api_error",
        "key": "authentication_error",
        "credit": "billing_error",
    }

    def frame(self, event: Json) -> bytes:
        return f"event: {event['type']}\n".encode() + super().frame(event)

    def status(self, name: ErrorName) -> int:
        return {"overloaded": 529, "credit": 402}.get(name) or super().status(name)

    def stream(self, said: Said) -> list[Json]:
        body = self.whole(said)
        usage = body["usage"]
        started = {"input_tokens": (usage or {}).get("input_tokens", 1), "output_tokens": 1}
        message = {**body, "content": [], "stop_reason": None, "stop_details": None, "usage": started}
        events: list[Json] = [{"type": "message_start", "message": message}, {"type": "ping"}]
        for index, block in enumerate(body["content"]):
            place = {"index": index}
            blank, deltas = self._deltas(block)
            events.append({"type": "content_block_start", **place, "content_block": blank})
            events += [{"type": "content_block_delta", **place, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", **place})
        delta = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
        last: Json = {"type": "message_delta", "delta": delta}
        events.append(last if usage is None else {**last, "usage": usage})
        return [*events, {"type": "message_stop"}]

    def whole(self, said: Said) -> Json:
        content: list[Json] = []
        if said.thoughts:
            content.append({"type": "thinking", "thinking": said.thoughts, "signature": "c2ln"})
        if said.text:
            content.append({"type": "text", "text": said.text})
        for call_id, name, arguments in said.calls:
            content.append({"type": "tool_use", "id": call_id, "name": name, "input": _read(arguments)})
        refused = said.end in ("refusal", "filter")
        details = {"type": "refusal", "category": "cyber", "explanation": said.text or None} if refused else None
        reason = self._ends.get(said.end, said.end if refused else "tired")
        end = {"stop_reason": reason, "stop_sequence": None, "stop_details": details}
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL}
        return {**head, "content": content, **end, "usage": self._usage(said)}

    def error(self, name: ErrorName, message: str = "") -> Json:
        said = {
            "overflow": "prompt is too long: 210000 tokens > 200000 maximum",
            "filter": "Output blocked by content filtering policy",
            "credit": "Your credit balance is too low to access the Anthropic API.",
        }
        kind = self._kinds.get(name, "invalid_request_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": message or said.get(name, name)},
            "request_id": None,
        }

    def _deltas(self, block: Json) -> tuple[Json, list[Json]]:
        match block["type"]:
            case "text":
                deltas = [{"type": "text_delta", "text": piece} for piece in _halves(block["text"])]
                return {**block, "text": ""}, deltas
            case "thinking":
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _halves(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
                return {**block, "thinking": "", "signature": ""}, deltas
        text = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": row} for row in _halves(text)]

    def _usage(self, said: Said) -> Json | None:
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
        if said.junk_usage is not None:
            return dict.fromkeys(names, said.junk_usage)
        if said.counts is None:
            return None
        given, made, cached, _ = said.counts
        return dict(zip(names, (given - cached, cached, 0, made), strict=True))


class Generation(Dialect):
    """Google's Gemini."""

    _ends = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "filter": "SAFETY", "unknown": "OTHER"}
    _kinds: dict[ErrorName, tuple[str, str]] = {
        "rate_limit": ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        "overloaded": ("UNAVAILABLE", "The model is overloaded. Please try again later."),
        "server": ("INTERNAL", "An internal error has occurred."),
        "overflow": ("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        "key": ("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    }

    def frame(self, event: Json) -> bytes:
        return f"data: {json.dumps(event)}\r\n\r\n".encode()

    def status(self, name: ErrorName) -> int:
        return 400 if name == "key" else super().status(name)

    def stream(self, said: Said) -> list[Json]:
        parts = self._parts(said)
        pieces = [
            [{**part, "text": piece} for piece in _halves(part["text"])] if "text" in part else [part] for part in parts
        ]
        chunks = [self._chunk([part]) for row in pieces for part in row]
        if self._blocked(said):
            return [self.whole(said)]
        last = self._chunk([{"text": ""}])
        last["candidates"][0]["finishReason"] = self._ends[said.end]
        usage = self._usage(said)
        told: Json = {} if usage is None else {"usageMetadata": usage}
        # What an answer has used until then stands in every chunk.
        return [*({**chunk, **told} for chunk in chunks), {**last, **told}]

    def whole(self, said: Said) -> Json:
        usage = self._usage(said)
        told: Json = {} if usage is None else {"usageMetadata": usage}
        if self._blocked(said):
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **told, "modelVersion": MODEL}
        body = self._chunk(self._parts(said))
        body["candidates"][0]["finishReason"] = self._ends[said.end]
        return {**body, **told}

    def error(self, name: ErrorName, message: str = "") -> Json:
        status, said = self._kinds.get(name, ("INVALID_ARGUMENT", name))
        return {"error": {"code": self.status(name), "message": message or said, "status": status}}

    def _blocked(self, said: Said) -> bool:
        return said.end == "refusal"

    def _parts(self, said: Said) -> list[Json]:
        parts: list[Json] = [{"text": said.thoughts, "thought": True}] if said.thoughts else []
        parts += [{"text": said.text}] if said.text else []
        for call_id, name, arguments in said.calls:
            made = {"name": name, "args": _read(arguments)}
            parts.append({"functionCall": {"id": call_id, **made} if call_id else made})
        return parts

    def _chunk(self, parts: list[Json]) -> Json:
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        return {"candidates": [candidate], "modelVersion": MODEL, "responseId": "r-1"}

    def _usage(self, said: Said) -> Json | None:
        names = ("promptTokenCount", "candidatesTokenCount", "cachedContentTokenCount", "thoughtsTokenCount")
        if said.junk_usage is not None:
            return dict.fromkeys(names, said.junk_usage)
        if said.counts is None:
            return None
        given, made, cached, thoughts = said.counts
        return {
            **dict(zip(names, (given, made - thoughts, cached, thoughts), strict=True)),
            "totalTokenCount": given + made,
        }


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


def _read(arguments: str) -> Any:
    """Arguments as an object, where the API has them as one; as they are when they are none."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


DIALECTS: dict[Api, Dialect] = {
    "openai-chat": Chat("openai-chat"),
    "openai-responses": Responses("openai-responses"),
    "azure-openai": Chat("azure-openai", "/openai/v1"),
    "anthropic": Messages("anthropic"),
    "gemini": Generation("gemini", "/v1beta"),
    "ollama": Chat("ollama"),
}
