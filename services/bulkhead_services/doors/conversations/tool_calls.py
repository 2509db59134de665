"""The tool calls, thoughts and own form of an answer, where they are contents of their own. In: a reply."""

import json
from collections.abc import Mapping
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


async def native_answer_of(blobs: Blobs, tenant: str, reply: ModelCallReplied) -> Mapping[str, Any]:
    """A reply in its provider's own form; {} where none is kept. Raises as `calls_of` does."""
    value = json.loads(await blobs.get_text(tenant, reply.native)) if reply.native is not None else {}
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value
