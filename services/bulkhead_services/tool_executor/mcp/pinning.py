"""Pins of live servers, for `bulkhead mcp pin`.

Enters: a server of the file. Leaves: what is to be written of it, or why it cannot be read.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import jsonschema_rs

from bulkhead.runtime.background import cancel_tasks
from bulkhead.tools.mcp_file import McpFile, McpServer, PinnedServer
from bulkhead.tools.mcp_pins import AdvertisedTool, clean_line, pin_tools
from bulkhead_services.tool_executor.mcp.replica import session_end_reason
from bulkhead_services.tool_executor.mcp.session import open_session
from bulkhead_services.tool_executor.mcp.tools import schema_of

READ_TIMEOUT_S = 120.0
"""A first start may install the server."""


class ServerUnreadable(Exception):
    """A server that could not be read; the message says why."""


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """Description that a server gives of itself now."""

    pinned: PinnedServer
    server: str


async def read_server(name: str, server: McpServer) -> ServerDescription:
    """Connect to the first replica and read its tools. Raises ServerUnreadable."""
    stderr_lines: deque[str] = deque(maxlen=3)
    task = asyncio.create_task(_read_tools(server, stderr_lines))
    try:
        await asyncio.wait({task}, timeout=READ_TIMEOUT_S)
    finally:
        await cancel_tasks(task)
    if task.cancelled() or task.exception() is not None:
        raise ServerUnreadable(session_end_reason(task, stderr_lines))
    tools, identity = task.result()
    pinned = pin_tools(name, tools)
    left_out = dict(pinned.left_out)
    for tool_name, tool in McpFile({name: server}, {name: pinned}).pinned_tools().items():
        try:
            schema_of(tool)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            left_out[clean_line(tool.pin.tool, 64)] = clean_line(f"its schema cannot be used: {error}", 300)
            del pinned.tools[tool_name]
    return ServerDescription(pinned.model_copy(update={"left_out": left_out}), clean_line(identity, 100))


async def _read_tools(server: McpServer, stderr_lines: deque[str]) -> tuple[tuple[AdvertisedTool, ...], str]:
    async with open_session(server, server.urls[0] if server.urls else "", stderr_lines) as session:
        return await session.list_tools(), session.server_label
