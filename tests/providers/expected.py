"""What a recorded answer says, read without our wire forms: the plainest reading of each API's own documents."""

import json
from typing import Any, NamedTuple


class Expected(NamedTuple):
    """usage: input, output and cached input tokens; None where the record tells none. error: or a refusal."""

    text: str = ""
    calls: list[tuple[str, Any]] = []
    finish: str = ""
    usage: tuple[int, int, int] | None = None
    error: bool = False


def arguments(text: str) -> Any:
    """Arguments without the accidents of their spelling."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def of_body(api: str, body: dict[str, Any]) -> Expected:
    """A body that is not a stream."""
    match api:
        case "openai-chat":
            return _chat(body)
        case "openai-responses":
            return _response(body)
        case "anthropic":
            return _message(body)
    return _generation([body])


def of_stream(api: str, text: str) -> Expected:
    """A stream of events: each vendor's own way to put them together."""
    blocks = text.replace("\r\n", "\n").split("\n\n")
    data = ["".join(line[5:].strip() for line in one.split("\n") if line.startswith("data:")) for one in blocks]
    events = [json.loads(one) for one in data if one and one != "[DONE]"]
    match api:
        case "openai-chat":
            return _chat_chunks(events)
        case "openai-responses":
            last = [event for event in events if event["type"] in ("response.completed", "response.incomplete")]
            return _response(last[-1]["response"]) if last else Expected(error=True)
        case "anthropic":
            return _message_events(events)
    return _generation(events)


def _parts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if isinstance(part.get("text"), str))


def _chat(body: dict[str, Any]) -> Expected:
    if body.get("error") or not body.get("choices"):
        return Expected(error=True)
    choice = body["choices"][0]
    message = choice["message"]
    calls = [
        (one["function"]["name"], arguments(one["function"].get("arguments") or ""))
        for one in message.get("tool_calls") or ()
    ]
    text = _parts(message.get("content"))
    if message.get("refusal") or (choice.get("finish_reason") == "content_filter" and not text and not calls):
        return Expected(error=True)
    return Expected(
        text, calls, _chat_finish(choice.get("finish_reason") or "stop", calls), _chat_usage(body.get("usage"))
    )


def _chat_finish(reason: str | None, calls: list[Any]) -> str:
    if reason == "length":
        return "length"
    return "tool_calls" if calls else "stop" if reason == "stop" else ""


def _chat_usage(found: dict[str, Any] | None) -> tuple[int, int, int] | None:
    if not found or not found.get("prompt_tokens"):
        return None
    cached = (found.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return found["prompt_tokens"], found["completion_tokens"], cached


def _chat_chunks(events: list[dict[str, Any]]) -> Expected:
    text, reason, usage = "", None, None
    calls: dict[int, tuple[str, str]] = {}
    for event in events:
        if event.get("error"):
            return Expected(error=True)
        usage = event.get("usage") or usage
        for choice in (event.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            text += _parts(delta.get("content"))
            if delta.get("refusal"):
                return Expected(error=True)
            reason = choice.get("finish_reason") or reason
            for position, one in enumerate(delta.get("tool_calls") or ()):
                place = one["index"] if one.get("index") is not None else position
                name, given = calls.get(place, ("", ""))
                function = one.get("function") or {}
                calls[place] = name + (function.get("name") or ""), given + (function.get("arguments") or "")
    made = [(name, arguments(given)) for _, (name, given) in sorted(calls.items())]
    return Expected(text, made, _chat_finish(reason, made), _chat_usage(usage), error=reason is None)


def _response(body: dict[str, Any]) -> Expected:
    if body.get("error") or "output" not in body or body.get("status") not in ("completed", "incomplete"):
        return Expected(error=True)
    messages = [item for item in body["output"] if item["type"] == "message"]
    parts = [part for item in messages for part in item["content"]]
    if any(part.get("refusal") for part in parts):
        return Expected(error=True)
    text = "".join(part.get("text") or "" for part in parts)
    calls = [(item["name"], arguments(item["arguments"])) for item in body["output"] if item["type"] == "function_call"]
    finish = "tool_calls" if calls else "stop"
    if body["status"] == "incomplete":
        finish = "length" if body["incomplete_details"]["reason"] == "max_output_tokens" else finish if calls else ""
    usage = body.get("usage")
    cached = ((usage or {}).get("input_tokens_details") or {}).get("cached_tokens") or 0
    counts = (usage["input_tokens"], usage["output_tokens"], cached) if usage and usage["input_tokens"] else None
    return Expected(text, calls, finish, counts)


def _message(body: dict[str, Any]) -> Expected:
    if body.get("type") == "error" or body["stop_reason"] == "refusal":
        return Expected(error=True)
    text = "".join(block["text"] for block in body["content"] if block["type"] == "text")
    calls = [(block["name"], block["input"]) for block in body["content"] if block["type"] == "tool_use"]
    reason, usage = body["stop_reason"], body["usage"]
    finish = "tool_calls" if calls else "stop" if reason in ("end_turn", "stop_sequence") else ""
    if reason in ("max_tokens", "model_context_window_exceeded"):
        finish = "length"
    read, written = (usage.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
    whole = usage["input_tokens"] + read + written
    return Expected(text, calls, finish, (whole, usage["output_tokens"], read) if whole else None)


def _message_events(events: list[dict[str, Any]]) -> Expected:
    blocks: dict[int, dict[str, Any]] = {}
    body: dict[str, Any] = {"stop_reason": None, "usage": {}}
    for event in events:
        match event["type"]:
            case "error":
                return Expected(error=True)
            case "message_start":
                body["usage"] = dict(event["message"]["usage"])
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "json": ""}
            case "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                elif delta["type"] == "input_json_delta":
                    block["json"] += delta["partial_json"]
            case "message_delta":
                body["stop_reason"] = event["delta"]["stop_reason"]
                body["usage"] |= {name: value for name, value in event["usage"].items() if value is not None}
    for block in blocks.values():
        if block["type"] == "tool_use" and block["json"]:
            block["input"] = json.loads(block["json"])
    if body["stop_reason"] is None:
        return Expected(error=True)
    return _message({**body, "content": [block for _, block in sorted(blocks.items())]})


def _generation(chunks: list[dict[str, Any]]) -> Expected:
    text, reason, blocked = "", None, False
    calls: list[tuple[str, Any]] = []
    usage: dict[str, Any] = {}
    for chunk in chunks:
        if chunk.get("error"):
            return Expected(error=True)
        usage = chunk.get("usageMetadata") or usage
        blocked = blocked or bool((chunk.get("promptFeedback") or {}).get("blockReason"))
        for candidate in (chunk.get("candidates") or ())[:1]:
            reason = candidate.get("finishReason") or reason
            for part in (candidate.get("content") or {}).get("parts") or ():
                if not part.get("thought"):
                    text += part.get("text") or ""
                if "functionCall" in part:
                    calls.append((part["functionCall"]["name"], part["functionCall"].get("args") or {}))
    empty = not text.strip() and not calls and reason not in ("STOP", "MAX_TOKENS")
    if reason is None or blocked or empty:
        return Expected(error=True)
    finish = "length" if reason == "MAX_TOKENS" else "tool_calls" if calls else "stop" if reason == "STOP" else ""
    counts = None
    if usage.get("promptTokenCount"):
        whole = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
        out = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
        counts = (whole, out, min(usage.get("cachedContentTokenCount", 0), whole))
    return Expected(text, calls, finish, counts)
