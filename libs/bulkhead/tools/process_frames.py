"""Frames between tool_executor and the process of a plain tool: calls one way, outcomes the other.

In and out: JSON objects. `call.world`, which only an async tool has, says so when a plain one uses it.
"""

from dataclasses import fields
from typing import Any, NoReturn

from bulkhead.tools.api import Call, Done, Failed

_MAPPINGS = ("settings", "credentials")
_FIELDS = ("key", "http_allow_hosts", "http_allow_private_hosts", "counter_url", "max_output_bytes", *_MAPPINGS)


class NoWorld:
    """The world of a plain tool: none. It brings its own client."""

    def __getattr__(self, name: str) -> NoReturn:
        """Raises AttributeError with what to do instead."""
        raise AttributeError(
            f"call.world.{name} is for an `async def run` without isolation, which runs in the executor; "
            "use a client of your own here"
        )


def frame_of_call(call: Call) -> dict[str, Any]:
    """The part of a call that another process can have."""
    return {
        name: dict(value) if name in _MAPPINGS else value
        for name in _FIELDS
        if (value := getattr(call, name)) is not None
    }


def call_of(frame: dict[str, Any]) -> Call:
    """The call as the tool sees it."""
    hosts = {name: tuple(frame[name]) for name in ("http_allow_hosts", "http_allow_private_hosts")}
    return Call(world=NoWorld(), **{**frame, **hosts})


def frame_of(outcome: object, max_output_bytes: int) -> dict[str, Any]:
    """The outcome of a tool, its text cut to its bound; anything else is named by its type."""
    if isinstance(outcome, Done) and isinstance(outcome.text, str):
        cut = outcome.truncated or len(outcome.text) > max_output_bytes
        return {"done": outcome.text[:max_output_bytes], "truncated": cut, "missing": str(outcome.missing)[:500]}
    if isinstance(outcome, Failed):
        return {"failed": {field.name: _frame_value(getattr(outcome, field.name)) for field in fields(Failed)}}
    return {"returned": type(outcome).__name__}


def _frame_value(value: object) -> object:
    """None for a value that no outcome can hold: the reader tells it."""
    return value[:5_000] if isinstance(value, str) else value if isinstance(value, bool) else None
