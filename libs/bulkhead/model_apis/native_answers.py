"""Answers in their provider's own API: which of their blocks are told in parts, and which whole. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from bulkhead.model_apis.chat_view import objects_in
from bulkhead_contracts.model import AnswerPart

_IN_PARTS = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "message"))


def is_told_in_parts(block: Mapping[str, Any]) -> bool:
    """True for a block or an item that parts of an answer say; any other is one part, as JSON."""
    kind = block.get("type")
    return kind in _IN_PARTS or (kind == "function_call" and not block.get("namespace"))


def block_part(place: int) -> AnswerPart:
    """The part of a whole block. Readers that know none take it for thoughts, which are no part of an answer."""
    return AnswerPart(kind="reasoning", id=str(place), block=True)


def native_blocks(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Blocks of a message, or items of a response."""
    return objects_in(body.get("content", body.get("output")))


def block_json(block: Mapping[str, Any]) -> str:
    """The same text for the same block, live and from the record."""
    return json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()
