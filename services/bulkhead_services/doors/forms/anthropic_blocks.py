"""Anthropic's messages and their content blocks as messages of OpenAI's chat form. Pure."""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, not_taken, unfit, unknown_kind
from bulkhead_services.doors.forms.sse import to_json

THOUGHTS = ("thinking", "redacted_thinking")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_KINDS = {"user": ("text", "image", "tool_result"), "assistant": ("text", "tool_use", *THOUGHTS)}


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """The system's words and the messages."""
    found: list[dict[str, Any]] = []
    if system := _system(body):
        found.append({"role": "system", "content": system})
    rows = body.objects("messages", bounds.MAX_CONVERSATION)
    if not rows:
        raise unfit("messages", "is missing" if rows is None else "is empty", "send at least one message")
    for row in rows:
        role = row.choice("role", tuple(_KINDS))
        if role is None:
            raise unfit(row.path("role"), "is missing; it is user or assistant")
        found += _assistant(row) if role == "assistant" else _user(row)
    if found[-1]["role"] == "assistant":
        raise not_taken(rows[-1].at, "the last message is the assistant's (a prefill)", "end with a user's message")
    if len(found) > bounds.MAX_CONVERSATION:
        what = f"must have at most {bounds.MAX_CONVERSATION} messages, in which each tool_result counts as one"
        raise unfit("messages", what)
    return tuple(found)


def _system(body: Fields) -> str:
    if not isinstance(body.raw("system"), list):
        return body.text("system") or ""
    texts = []
    for block in body.objects("system", bounds.MAX_PARTS) or ():
        if block.needed("type") != "text":
            unknown_kind(block, "type", ("text",))
        texts.append(_text(block))
    return "\n\n".join(text for text in texts if text)


def _blocks(row: Fields, role: str) -> list[Fields] | None:
    """The blocks of a message; None where its content is a string."""
    content = row.raw("content")
    if isinstance(content, str):
        return None
    blocks = row.objects("content", bounds.MAX_PARTS)
    if blocks is None:
        raise unfit(row.path("content"), "is missing")
    if not blocks:
        raise unfit(row.path("content"), "is empty")
    for block in blocks:
        if block.needed("type") not in _KINDS[role]:
            unknown_kind(block, "type", _KINDS[role])
    return blocks


def _assistant(row: Fields) -> list[dict[str, Any]]:
    blocks = _blocks(row, "assistant")
    if blocks is None:
        return [{"role": "assistant", "content": row.raw("content")}]
    message: dict[str, Any] = {"role": "assistant"}
    texts = [_text(block) for block in blocks if block.raw("type") == "text"]
    message["content"] = "".join(texts) or None
    if thoughts := [_thought(block) for block in blocks if block.raw("type") in THOUGHTS]:
        message["thinking_blocks"] = thoughts
    calls = []
    for block in blocks:
        if block.raw("type") == "tool_use":
            given = block.object("input")
            if given is None:
                raise unfit(block.path("input"), "is missing")
            function = {"name": block.needed("name", bounds.MAX_SUMMARY_CHARS), "arguments": to_json(given.whole())}
            call_id = block.needed("id", bounds.MAX_SUMMARY_CHARS)
            calls.append({"id": call_id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    return [message]


def _thought(block: Fields) -> dict[str, str]:
    """What the model thought, signed by its provider, as it was told."""
    if block.raw("type") == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.needed("data")}
    said = block.text("thinking")
    if said is None:
        raise unfit(block.path("thinking"), "is missing")
    return {"type": "thinking", "thinking": said, "signature": block.text("signature") or ""}


def _user(row: Fields) -> list[dict[str, Any]]:
    """Results of tools stand before the user's own words: they answer the message before."""
    blocks = _blocks(row, "user")
    if blocks is None:
        return [{"role": "user", "content": row.raw("content")}]
    results = [_result(block) for block in blocks if block.raw("type") == "tool_result"]
    parts = [_part(block) for block in blocks if block.raw("type") != "tool_result"]
    if not parts:
        return results
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if alone else parts}]


def _part(block: Fields) -> dict[str, Any]:
    if block.raw("type") == "text":
        return {"type": "text", "text": _text(block)}
    source = block.object("source")
    if source is None:
        raise unfit(block.path("source"), "is missing")
    match source.needed("type"):
        case "base64":
            media_type = source.choice("media_type", _IMAGES)
            if media_type is None:
                raise unfit(source.path("media_type"), "is missing")
            url = f"data:{media_type};base64,{source.needed('data')}"
        case "url":
            url = source.needed("url")
        case _:
            unknown_kind(source, "type", ("base64", "url"))
    return {"type": "image_url", "image_url": {"url": url}}


def _result(block: Fields) -> dict[str, Any]:
    content = block.raw("content")
    if isinstance(content, list):
        texts = []
        for part in block.objects("content", bounds.MAX_PARTS) or ():
            if part.needed("type") != "text":
                unknown_kind(part, "type", ("text",))
            texts.append(_text(part))
        said = "\n".join(texts)
    else:
        said = block.text("content") or ""
    if block.flag("is_error"):
        # The chat form has no mark for it, and a model must not take a failure for a result.
        said = f"Error: {said}"
    return {"role": "tool", "tool_call_id": block.needed("tool_use_id", bounds.MAX_SUMMARY_CHARS), "content": said}


def _text(block: Fields) -> str:
    text = block.text("text")
    if text is None:
        raise unfit(block.path("text"), "is missing")
    block.refuse({"citations": "answers here hold no citations of the provider"})
    return text
