"""An MCP server of our own, by the official SDK, run as a process: streamable HTTP on a port, or stdio.

In: --port (stdio without), --name, --log (a file that its writes append to), --says (the description of `where`),
--tools (so many more), --json (answers as JSON and not as a stream of events). Out: the protocol.
"""

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError


def made(options: argparse.Namespace) -> MCPServer:
    server = MCPServer("sample")
    log = Path(options.log)

    def _append(text: str) -> None:
        with log.open("a") as file:
            file.write(f"{options.name} {text}\n")

    @server.tool(description=options.says)
    async def where(wait_s: float = 0) -> str:
        _append("asked")
        await asyncio.sleep(wait_s)
        return str(options.name)

    @server.tool(description="Adds.")
    async def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @server.tool(description="Writes a line, then waits.")
    async def append(text: str, wait_s: float = 0) -> str:
        _append(text)
        await asyncio.sleep(wait_s)
        return "written"

    @server.tool(description="Writes a line once per key, then waits.")
    async def append_once(text: str, ctx: Context[Any, Any], wait_s: float = 0) -> str:
        meta: dict[str, Any] = dict(ctx.request_context.meta or {})
        key = str(meta.get("bulkhead/idempotency_key"))
        if not log.exists() or key not in log.read_text():
            _append(f"{text} {key}")
        await asyncio.sleep(wait_s)
        return "written"

    @server.tool(description="Tells of each step; returns whether it was asked to.")
    async def steps(count: int, ctx: Context[Any, Any], every_s: float = 0.6) -> str:
        for number in range(1, count + 1):
            await ctx.report_progress(number, count, f"step\n{number}")
            await asyncio.sleep(every_s)
        return str("progress_token" in (ctx.request_context.meta or {}))

    @server.tool(description="Fails.")
    async def fail() -> str:
        raise ToolError("there is no such desk")

    @server.tool(description="Shows.", structured_output=False)
    async def picture() -> list[Any]:
        return ["a picture:", Image(data=b"GIF89a", format="gif")]

    @server.tool(description="Tells its environment.")
    async def environment() -> str:
        return " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()))

    @server.tool(description="Says much.", structured_output=False)
    async def big(size: int) -> str:
        return "x" * size

    @server.tool(description="Ends the process.")
    async def die() -> str:
        os._exit(9)

    for number in range(options.tools):
        server.tool(name=f"tool_{number}", description="All about desks. " * 200)(_another)
    return server


async def _another(text: str) -> str:
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="a")
    parser.add_argument("--log", default="/dev/null")
    parser.add_argument("--says", default="Says who answers.")
    parser.add_argument("--tools", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.port:
        made(given).run("streamable-http", host="127.0.0.1", port=given.port, json_response=given.json)
    else:
        made(given).run("stdio")
