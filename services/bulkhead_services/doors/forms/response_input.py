"""The input of OpenAI's responses as messages of the chat form. Pure."""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, refuse_unknown_kind, unfit_field, unsupported_field

_ROLES = ("user", "assistant", "system", "developer")
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_NOT_KEPT = {"item_reference": "items are not kept here; send the item itself"}


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """Instructions and input."""
    messages: list[dict[str, Any]] = []
    if instructions := body.get_text("instructions"):
        messages.append({"role": "system", "content": instructions})
    sent_input = body.get_raw("input")
    if isinstance(sent_input, str):
        messages.append({"role": "user", "content": sent_input})
    else:
        rows = body.get_objects("input", bounds.MAX_CONVERSATION)
        if not rows:
            raise unfit_field("input", "is missing" if rows is None else "is empty")
        for row in rows:
            _add_item(messages, row)
    if len(messages) > bounds.MAX_CONVERSATION:
        raise unfit_field("input", f"must have at most {bounds.MAX_CONVERSATION} items, instructions counted")
    return tuple(messages)


def _add_item(messages: list[dict[str, Any]], row: Fields) -> None:
    kind = row.get_text("type") or "message"
    if kind in _NOT_KEPT:
        raise unsupported_field(row.field_path("type"), _NOT_KEPT[kind])
    match kind:
        case "message":
            messages.append(_read_message(row))
        case "reasoning":
            pass  # An echo of an earlier answer, which clients send back with it: no model is told its summary again.
        case "function_call":
            function = {
                "name": row.require_text("name", bounds.MAX_SUMMARY_CHARS),
                "arguments": _require_text(row, "arguments"),
            }
            call = {"id": _call_id(row), "type": "function", "function": function}
            # Text and calls of one turn are one message there, and items of their own here.
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            output = row.get_raw("output")
            content = _content_parts(row, "output") if isinstance(output, list) else _require_text(row, "output")
            messages.append({"role": "tool", "tool_call_id": _call_id(row), "content": content})
        case _:
            refuse_unknown_kind(row, "type", _ITEMS)


def _read_message(row: Fields) -> dict[str, Any]:
    role = row.get_choice("role", _ROLES)
    if role is None:
        raise unfit_field(row.field_path("role"), f"is missing; it is one of {', '.join(_ROLES)}")
    content = row.get_raw("content")
    if isinstance(content, list):
        parts = _content_parts(row, "content")
        joined = "".join(part["text"] for part in parts) if all(part["type"] == "text" for part in parts) else None
        is_text = joined is not None and (role == "assistant" or len(parts) == 1)
        return {"role": "system" if role == "developer" else role, "content": joined if is_text else parts}
    return {"role": "system" if role == "developer" else role, "content": _require_text(row, "content")}


def _content_parts(row: Fields, name: str) -> list[dict[str, Any]]:
    return [_content_part(part) for part in row.get_objects(name, bounds.MAX_PARTS) or ()]


def _content_part(part: Fields) -> dict[str, Any]:
    match part.require_text("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _require_text(part, "text")}
        case "refusal":
            return {"type": "text", "text": _require_text(part, "refusal")}
        case "input_image":
            part.refuse_fields({"file_id": "files are not kept here; send the image as a data URL"})
            image: dict[str, Any] = {"url": part.require_text("image_url")}
            if detail := part.get_text("detail"):
                image["detail"] = detail
            return {"type": "image_url", "image_url": image}
        case "input_file":
            part.refuse_fields({"file_id": "files are not kept here", "file_url": "files are not fetched here"})
            file = {"file_data": part.require_text("file_data"), "filename": part.get_text("filename") or "file"}
            return {"type": "file", "file": file}
        case _:
            refuse_unknown_kind(part, "type", ("input_text", "input_image", "input_file"))


def _require_text(row: Fields, name: str) -> str:
    value = row.get_text(name)
    if value is None:
        raise unfit_field(row.field_path(name), "is missing")
    return value


def _call_id(row: Fields) -> str:
    return row.require_text("call_id", bounds.MAX_SUMMARY_CHARS)
