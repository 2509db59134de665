"""A session with one replica of an MCP server, by the official SDK.

Enters: a server and, of streamable HTTP, the replica's URL. Leaves: its tools as it tells them, results of calls.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import jsonschema.validators  # noqa: F401 - the SDK imports it with the first result: seconds, in the event loop.
from mcp import Client
from mcp.client.session import IncomingMessage, MessageHandlerFnT
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation, PaginatedRequestParams, RequestParamsMeta, Tool
from mcp_types import ToolListChangedNotification as ListChanged

from bulkhead.tools.api import Call
from bulkhead.tools.mcp_file import McpServer
from bulkhead.tools.mcp_pins import AdvertisedTool
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.mcp import http_transport
from bulkhead_services.tool_executor.mcp.stdio_transport import stdio_streams

KEY_FIELD = "bulkhead/idempotency_key"
MAX_PAGES = 100
CLIENT_INFO = Implementation(name="bulkhead", version="1")


class McpSession:
    """An open session."""

    def __init__(self, client: Client) -> None:
        self._session = client.session
        info = client.server_info
        self.server_label = f"{info.name} {info.version}" if info is not None else ""

    async def list_tools(self) -> tuple[AdvertisedTool, ...]:
        """All tools, of at most MAX_PAGES pages; one more than the bound at most, so that its caller sees the cut."""
        tools: list[Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            tools.extend(page.tools)
            cursor = page.next_cursor
            if cursor is None or len(tools) > bounds.MAX_MCP_TOOLS:
                break
        return tuple(map(_advertised_tool, tools[: bounds.MAX_MCP_TOOLS + 1]))

    async def call_tool(self, tool: str, arguments: Mapping[str, Any], call: Call) -> CallToolResult:
        """One call; its server is asked for progress where somebody wants to hear of it. Raises MCPError,
        ValidationError, RuntimeError.
        """
        report_progress = call.report_progress

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            assert report_progress is not None
            await report_progress(progress, total, message or "")

        return await self._session.call_tool(
            tool,
            dict(arguments),
            progress_callback=on_progress if report_progress is not None else None,
            meta=cast(RequestParamsMeta, {KEY_FIELD: call.key}),
        )


def _advertised_tool(tool: Tool) -> AdvertisedTool:
    return AdvertisedTool(tool.name, tool.title or "", tool.description or "", tool.input_schema, tool.output_schema)


@asynccontextmanager
async def open_session(
    server: McpServer, url: str, stderr_lines: deque[str], on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[McpSession]:
    """A session, negotiated. stderr_lines: takes what a process writes to its standard error. on_change: called when
    the server
    says that its tools did. Raises what the SDK and the system do."""

    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, ListChanged):
            on_change()

    if not url:
        async with _open_client(stdio_streams(server, stderr_lines), on_message) as session:
            yield session
        return
    async with http_transport.rpc_error_client(server.headers) as http:
        most = bounds.MAX_MCP_ANSWER_BYTES
        streams = streamable_http_client(url, http_client=http, max_sse_event_size=most)
        async with _open_client(streams, on_message) as session:
            yield session


@asynccontextmanager
async def _open_client(
    streams: AbstractAsyncContextManager[Any], message_handler: MessageHandlerFnT
) -> AsyncIterator[McpSession]:
    async with Client(streams, message_handler=message_handler, client_info=CLIENT_INFO, cache=None) as client:
        yield McpSession(client)
