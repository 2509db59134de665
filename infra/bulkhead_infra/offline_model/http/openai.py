"""OpenAI's wire format. Enters: a request and a reply. Leaves: bodies, stream chunks, error bodies.

Tokens are counted by a stated rule, ceil(utf-8 bytes / 4); ids are hashes of the request, and `created` is a
constant, so that the same request gets the same bytes (but for `x_sent_unix_ns` of stream chunks).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bulkhead_infra.offline_model import MODEL_NAME, SYSTEM_FINGERPRINT
from bulkhead_infra.offline_model.roles.reply import Reply, role_of

CREATED_UNIX_S = 1_767_225_600  # 2026-01-01T00:00:00Z for every answer: time must not change the bytes
BYTES_PER_TOKEN = 4
ARGUMENT_PIECE_CHARS = 24
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Completion:
    """A reply ready for the wire."""

    id: str
    reply: Reply
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


class RequestRefused(Exception):
    """A request that OpenAI would refuse: status, error type, code, parameter."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, "invalid_request_error", code, param)


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def count_tokens(text: str) -> int:
    """ceil(utf-8 bytes / 4)."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Tokens of messages, tools and response format as compact JSON."""
    counted = {key: request[key] for key in ("messages", "tools", "response_format") if key in request}
    return count_tokens(json.dumps(counted, ensure_ascii=False, separators=(",", ":")))


def check_request(request: Any) -> None:
    """Refuse what a client most often gets wrong, as OpenAI refuses it; raises `RequestRefused`."""
    if not isinstance(request, dict):
        raise RequestRefused(400, "The request body must be a JSON object.")
    if (model := request.get("model")) != MODEL_NAME:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise RequestRefused(404, message, "model_not_found")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestRefused(400, "'messages' must be a non-empty array.", "invalid_value", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            text = f"messages[{index}].role must be one of {', '.join(ROLES)}."
            raise RequestRefused(400, text, "invalid_value", "messages")
    _check_tool_messages(messages)
    if (request.get("response_format") or {}).get("type", "text") != "text" and role_of(request) == "work":
        text = "This model fills the schemas of plans and verdicts only."
        raise RequestRefused(400, text, "unsupported_value", "response_format")


def _check_tool_messages(messages: list[dict[str, Any]]) -> None:
    """Every tool call has its result right after it, and every result its call, as OpenAI demands."""
    open_ids: list[str] = []
    for index, message in enumerate([*messages, {"role": "user"}]):
        name = f"messages[{index}]"
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                text = f"{name} with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise RequestRefused(400, text, None, f"{name}.role")
            open_ids.remove(message["tool_call_id"])
            continue
        if open_ids:
            text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            raise RequestRefused(400, f"{text} 'tool_call_id'. Missing: {', '.join(open_ids)}", None, name)
        if message["role"] == "assistant":
            open_ids = [str(call.get("id")) for call in message.get("tool_calls") or ()]


def complete(request: Mapping[str, Any], reply: Reply, limit_tokens: int) -> Completion:
    """A reply whose text is cut to the request's limit, with its usage and finish reason."""
    limit = request.get("max_completion_tokens") or request.get("max_tokens") or limit_tokens
    finish = "tool_calls" if reply.calls else "stop"
    used = count_tokens(reply.content + "".join(call.name + call.arguments for call in reply.calls))
    if count_tokens(reply.content) > limit:
        content = reply.content.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
        reply, used, finish = replace(reply, content=content), limit, "length"
    counted = {key: value for key, value in request.items() if key not in ("stream", "stream_options")}
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return Completion(digest[:24], reply, finish, prompt_tokens(request), used)


def _tool_calls(done: Completion) -> list[dict[str, Any]]:
    functions = [{"name": call.name, "arguments": call.arguments} for call in done.reply.calls]
    return [{"id": f"call_{done.id}{i}", "type": "function", "function": it} for i, it in enumerate(functions)]


def _head(done: Completion, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{done.id}",
        "object": kind,
        "created": CREATED_UNIX_S,
        "model": MODEL_NAME,
        "system_fingerprint": SYSTEM_FINGERPRINT,
        "service_tier": "default",
    }


def body_of(done: Completion) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": done.reply.content, "refusal": None}
    if done.reply.calls:
        message |= {"content": done.reply.content or None, "tool_calls": _tool_calls(done)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.finish_reason}
    return {**_head(done, "chat.completion"), "choices": [choice], "usage": done.usage}


def chunks_of(done: Completion, with_usage: bool) -> Iterator[dict[str, Any]]:
    """Chunks of a streamed answer: role, deltas, finish reason, and usage with no choices when asked for."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        made = {**_head(done, "chat.completion.chunk"), "choices": [choice]}
        return made | {"usage": None} if with_usage else made

    yield chunk({"role": "assistant", "content": None if done.reply.calls else "", "refusal": None})
    for piece in re.findall(r"\s*\S+\s*", done.reply.content) or ([done.reply.content] if done.reply.content else []):
        yield chunk({"content": piece})
    for index, call in enumerate(_tool_calls(done)):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for start in range(0, len(arguments), ARGUMENT_PIECE_CHARS):
            piece = arguments[start : start + ARGUMENT_PIECE_CHARS]
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, done.finish_reason)
    if with_usage:
        yield {**chunk({}), "choices": [], "usage": done.usage}
