"""The outline of Anthropic's messages: checked here, passed on as they are. Pure."""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import Fields, refuse_unknown_kind, unfit_field

ROLES = ("user", "assistant", "system")


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """The messages."""
    rows = body.get_objects("messages", bounds.MAX_CONVERSATION_ROWS)
    if not rows:
        raise unfit_field("messages", "is missing" if rows is None else "is empty", "send at least one message")
    for row in rows:
        if row.get_choice("role", ROLES) is None:
            raise unfit_field(row.field_path("role"), f"is missing; it is one of {', '.join(ROLES)}")
        _check_content(row, "content")
    return tuple(row.as_dict() for row in rows)


def check_system(body: Fields) -> None:
    """The system's words: a text, or blocks of text."""
    if isinstance(body.get_raw("system"), list):
        for block in body.get_objects("system", bounds.MAX_PARTS) or ():
            if block.require_text("type") != "text":
                refuse_unknown_kind(block, "type", ("text",))
            block.require_any_text("text")
    else:
        body.get_text("system")


def _check_content(row: Fields, name: str) -> None:
    if isinstance(row.get_raw(name), str):
        return
    blocks = row.require_present(name, row.get_objects(name, bounds.MAX_PARTS))
    if not blocks:
        raise unfit_field(row.field_path(name), "is empty")
    for block in blocks:
        _check_block(block)


def _check_block(block: Fields) -> None:
    match block.require_text("type", bounds.MAX_SUMMARY_CHARS):
        case "text":
            block.require_any_text("text")
        case "thinking":
            block.require_any_text("thinking")
        case "image" | "document":
            block.require_object("source").require_text("type")
        case "tool_use":
            block.require_object("input")
            block.require_text("name", bounds.MAX_SUMMARY_CHARS)
            block.require_text("id", bounds.MAX_SUMMARY_CHARS)
        case "tool_result":
            block.require_text("tool_use_id", bounds.MAX_SUMMARY_CHARS)
            block.get_flag("is_error")
            if block.get_raw("content") not in (None, "", []):
                _check_content(block, "content")
        case _:
            pass  # The model gateway knows which kinds are passed on, and names those that are not.
