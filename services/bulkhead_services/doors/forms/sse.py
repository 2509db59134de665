"""Server-sent events. Pure."""

import json
from typing import Any

HEARTBEAT = b": alive\n\n"
"""A comment: readers skip it, and proxies see that the connection lives."""
DONE = b"data: [DONE]\n\n"


def to_json(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def data_event(value: dict[str, Any]) -> bytes:
    """An event without a name."""
    return f"data: {to_json(value)}\n\n".encode("utf-8", "replace")


def named_event(value: dict[str, Any]) -> bytes:
    """An event whose name is its `type`."""
    return f"event: {value['type']}\ndata: {to_json(value)}\n\n".encode("utf-8", "replace")
