"""The tool calls and thoughts of an answer, where they are contents of their own.

In: a reply. Out: its calls; as messages have them; its thoughts.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bulkhead.blobs import Blobs
from bulkhead_contracts.model import AdoptedToolCalls, ModelCallReplied, ToolCall


async def calls_of(blobs: Blobs, tenant: str, reply: ModelCallReplied) -> tuple[ToolCall, ...]:
    """The calls of a reply. Raises BlobMissing, BlobCorrupt, ValueError, BusError."""
    if reply.calls is None:
        return reply.tool_calls
    return AdoptedToolCalls.model_validate_json(await blobs.get(tenant, reply.calls)).calls


async def thoughts_of(blobs: Blobs, tenant: str, reply: ModelCallReplied) -> tuple[Mapping[str, str], ...]:
    """The blocks of a reply's thoughts. Raises BlobMissing, BlobCorrupt, ValueError, BusError."""
    return tuple(json.loads(await blobs.get_text(tenant, reply.thoughts))) if reply.thoughts is not None else ()


def in_chat_form(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Calls as a message has them."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
        for call in calls
    ]
