"""Anthropic's messages and their content blocks as messages of OpenAI's chat form. Pure."""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, refuse_unknown_kind, unfit_field, unsupported_field
from bulkhead_services.doors.forms.sse import to_json

THOUGHTS = ("thinking", "redacted_thinking")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_KINDS = {"user": ("text", "image", "tool_result"), "assistant": ("text", "tool_use", *THOUGHTS)}


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """The system's words and the messages."""
    messages: list[dict[str, Any]] = []
    if system := _system_text(body):
        messages.append({"role": "system", "content": system})
    rows = body.get_objects("messages", bounds.MAX_CONVERSATION)
    if not rows:
        raise unfit_field("messages", "is missing" if rows is None else "is empty", "send at least one message")
    for row in rows:
        role = row.get_choice("role", tuple(_KINDS))
        if role is None:
            raise unfit_field(row.field_path("role"), "is missing; it is user or assistant")
        messages += _assistant_message(row) if role == "assistant" else _user_messages(row)
    if messages[-1]["role"] == "assistant":
        raise unsupported_field(
            rows[-1].at, "the last message is the assistant's (a prefill)", "end with a user's message"
        )
    if len(messages) > bounds.MAX_CONVERSATION:
        problem = f"must have at most {bounds.MAX_CONVERSATION} messages, in which each tool_result counts as one"
        raise unfit_field("messages", problem)
    return tuple(messages)


def _system_text(body: Fields) -> str:
    if not isinstance(body.get_raw("system"), list):
        return body.get_text("system") or ""
    texts = []
    for block in body.get_objects("system", bounds.MAX_PARTS) or ():
        if block.require_text("type") != "text":
            refuse_unknown_kind(block, "type", ("text",))
        texts.append(_block_text(block))
    return "\n\n".join(text for text in texts if text)


def _content_blocks(row: Fields, role: str) -> list[Fields] | None:
    """The blocks of a message; None where its content is a string."""
    content = row.get_raw("content")
    if isinstance(content, str):
        return None
    blocks = row.require_present("content", row.get_objects("content", bounds.MAX_PARTS))
    if not blocks:
        raise unfit_field(row.field_path("content"), "is empty")
    for block in blocks:
        if block.require_text("type") not in _KINDS[role]:
            refuse_unknown_kind(block, "type", _KINDS[role])
    return blocks


def _assistant_message(row: Fields) -> list[dict[str, Any]]:
    blocks = _content_blocks(row, "assistant")
    if blocks is None:
        return [{"role": "assistant", "content": row.get_raw("content")}]
    message: dict[str, Any] = {"role": "assistant"}
    texts = [_block_text(block) for block in blocks if block.get_raw("type") == "text"]
    message["content"] = "".join(texts) or None
    if thoughts := [_thinking_block(block) for block in blocks if block.get_raw("type") in THOUGHTS]:
        message["thinking_blocks"] = thoughts
    calls = []
    for block in blocks:
        if block.get_raw("type") == "tool_use":
            tool_input = block.require_object("input")
            function = {
                "name": block.require_text("name", bounds.MAX_SUMMARY_CHARS),
                "arguments": to_json(tool_input.as_dict()),
            }
            call_id = block.require_text("id", bounds.MAX_SUMMARY_CHARS)
            calls.append({"id": call_id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    return [message]


def _thinking_block(block: Fields) -> dict[str, str]:
    """A block of the model's thoughts, signed by its provider, as it was told."""
    if block.get_raw("type") == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.require_text("data")}
    thinking = block.require_any_text("thinking")
    return {"type": "thinking", "thinking": thinking, "signature": block.get_text("signature") or ""}


def _user_messages(row: Fields) -> list[dict[str, Any]]:
    """Results of tools stand before the user's own words: they answer the message before."""
    blocks = _content_blocks(row, "user")
    if blocks is None:
        return [{"role": "user", "content": row.get_raw("content")}]
    results = [_tool_result(block) for block in blocks if block.get_raw("type") == "tool_result"]
    parts = [_content_part(block) for block in blocks if block.get_raw("type") != "tool_result"]
    if not parts:
        return results
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if alone else parts}]


def _content_part(block: Fields) -> dict[str, Any]:
    if block.get_raw("type") == "text":
        return {"type": "text", "text": _block_text(block)}
    source = block.require_object("source")
    match source.require_text("type"):
        case "base64":
            media_type = source.require_present("media_type", source.get_choice("media_type", _IMAGES))
            url = f"data:{media_type};base64,{source.require_text('data')}"
        case "url":
            url = source.require_text("url")
        case _:
            refuse_unknown_kind(source, "type", ("base64", "url"))
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_result(block: Fields) -> dict[str, Any]:
    content = block.get_raw("content")
    if isinstance(content, list):
        texts = []
        for part in block.get_objects("content", bounds.MAX_PARTS) or ():
            if part.require_text("type") != "text":
                refuse_unknown_kind(part, "type", ("text",))
            texts.append(_block_text(part))
        result_text = "\n".join(texts)
    else:
        result_text = block.get_text("content") or ""
    if block.get_flag("is_error"):
        # The chat form has no mark for it, and a model must not take a failure for a result.
        result_text = f"Error: {result_text}"
    return {
        "role": "tool",
        "tool_call_id": block.require_text("tool_use_id", bounds.MAX_SUMMARY_CHARS),
        "content": result_text,
    }


def _block_text(block: Fields) -> str:
    text = block.require_any_text("text")
    block.refuse_fields({"citations": "answers here hold no citations of the provider"})
    return text
