"""Pins of live servers, for `bulkhead mcp pin`.

Enters: a server of the file. Leaves: what is to be written of it, or why it cannot be read.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import jsonschema_rs

from bulkhead.runtime.background import cancel
from bulkhead.tools.mcp_file import McpFile, McpServer, PinnedServer
from bulkhead.tools.mcp_pins import ToolSaid, clean, pin
from bulkhead_services.tool_executor.mcp.replica import reason_of
from bulkhead_services.tool_executor.mcp.session import open_session
from bulkhead_services.tool_executor.mcp.tools import schema_of

READ_TIMEOUT_S = 120.0
"""A first start may install the server."""


class Unread(Exception):
    """A server that could not be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a server says now."""

    pinned: PinnedServer
    server: str


async def look(name: str, server: McpServer) -> Look:
    """Connect to the first replica and read its tools. Raises Unread."""
    told: deque[str] = deque(maxlen=3)
    task = asyncio.create_task(_tools(server, told))
    try:
        await asyncio.wait({task}, timeout=READ_TIMEOUT_S)
    finally:
        await cancel(task)
    if task.cancelled() or task.exception() is not None:
        raise Unread(reason_of(task, told))
    tools, who = task.result()
    pinned = pin(name, tools)
    left_out = dict(pinned.left_out)
    for tool_name, tool in McpFile({name: server}, {name: pinned}).tools().items():
        try:
            schema_of(tool)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            left_out[clean(tool.pin.tool, 64)] = clean(f"its schema cannot be used: {error}", 300)
            del pinned.tools[tool_name]
    return Look(pinned.model_copy(update={"left_out": left_out}), clean(who, 100))


async def _tools(server: McpServer, told: deque[str]) -> tuple[tuple[ToolSaid, ...], str]:
    async with open_session(server, server.urls[0] if server.urls else "", told) as session:
        return await session.tools(), session.server
