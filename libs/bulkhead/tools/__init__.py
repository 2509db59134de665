"""Tools and packs of tools: the API that a tool is written against, the catalog of declared tools, and packs."""

from typing import TYPE_CHECKING, Any

from bulkhead.tools.api import Call, Done, Failed

if TYPE_CHECKING:
    from bulkhead.tools.decorator import tool

__all__ = ["Call", "Done", "Failed", "tool"]


def __getattr__(name: str) -> Any:
    """`tool`, at its first use: the process of a plain tool that does without it need not wait for pydantic."""
    if name != "tool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bulkhead.tools.decorator import tool

    return tool
