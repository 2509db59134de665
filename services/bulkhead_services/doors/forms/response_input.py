"""The input of OpenAI's responses as messages of the chat form. Pure."""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, not_taken, unfit, unknown_kind

_ROLES = ("user", "assistant", "system", "developer")
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_NOT_KEPT = {"item_reference": "items are not kept here; send the item itself"}


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """Instructions and input."""
    messages: list[dict[str, Any]] = []
    if instructions := body.text("instructions"):
        messages.append({"role": "system", "content": instructions})
    given = body.raw("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        rows = body.objects("input", bounds.MAX_CONVERSATION)
        if not rows:
            raise unfit("input", "is missing" if rows is None else "is empty")
        for row in rows:
            _add(messages, row)
    if len(messages) > bounds.MAX_CONVERSATION:
        raise unfit("input", f"must have at most {bounds.MAX_CONVERSATION} items, instructions counted")
    return tuple(messages)


def _add(messages: list[dict[str, Any]], row: Fields) -> None:
    kind = row.text("type") or "message"
    if kind in _NOT_KEPT:
        raise not_taken(row.path("type"), _NOT_KEPT[kind])
    match kind:
        case "message":
            messages.append(_message(row))
        case "reasoning":
            pass  # An echo of an earlier answer, which clients send back with it: no model is told its summary again.
        case "function_call":
            function = {"name": row.needed("name", bounds.MAX_SUMMARY_CHARS), "arguments": _text(row, "arguments")}
            call = {"id": _call_id(row), "type": "function", "function": function}
            # Text and calls of one turn are one message there, and items of their own here.
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            output = row.raw("output")
            content = _parts(row, "output") if isinstance(output, list) else _text(row, "output")
            messages.append({"role": "tool", "tool_call_id": _call_id(row), "content": content})
        case _:
            unknown_kind(row, "type", _ITEMS)


def _message(row: Fields) -> dict[str, Any]:
    role = row.choice("role", _ROLES)
    if role is None:
        raise unfit(row.path("role"), f"is missing; it is one of {', '.join(_ROLES)}")
    content = row.raw("content")
    if isinstance(content, list):
        parts = _parts(row, "content")
        said = "".join(part["text"] for part in parts) if all(part["type"] == "text" for part in parts) else None
        whole = said is not None and (role == "assistant" or len(parts) == 1)
        return {"role": "system" if role == "developer" else role, "content": said if whole else parts}
    return {"role": "system" if role == "developer" else role, "content": _text(row, "content")}


def _parts(row: Fields, name: str) -> list[dict[str, Any]]:
    return [_part(part) for part in row.objects(name, bounds.MAX_PARTS) or ()]


def _part(part: Fields) -> dict[str, Any]:
    match part.needed("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _text(part, "text")}
        case "refusal":
            return {"type": "text", "text": _text(part, "refusal")}
        case "input_image":
            part.refuse({"file_id": "files are not kept here; send the image as a data URL"})
            image: dict[str, Any] = {"url": part.needed("image_url")}
            if detail := part.text("detail"):
                image["detail"] = detail
            return {"type": "image_url", "image_url": image}
        case "input_file":
            part.refuse({"file_id": "files are not kept here", "file_url": "files are not fetched here"})
            file = {"file_data": part.needed("file_data"), "filename": part.text("filename") or "file"}
            return {"type": "file", "file": file}
        case _:
            unknown_kind(part, "type", ("input_text", "input_image", "input_file"))


def _text(row: Fields, name: str) -> str:
    value = row.text(name)
    if value is None:
        raise unfit(row.path(name), "is missing")
    return value


def _call_id(row: Fields) -> str:
    return row.needed("call_id", bounds.MAX_SUMMARY_CHARS)
