"""The public conformance tests of MCP before a mesh's tool door.

In: a folder of npm that holds them. Out: the failed scenarios of a revision. They know of no keys: a proxy adds one,
and hands on everything else as it stands, the Host too.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bulkhead.tcp_ports import free_port
from tests.eventually import until

HOP = ("connection", "content-length", "transfer-encoding")
LASTS_S = 240


@asynccontextmanager
async def with_key(url: str, key: str) -> AsyncIterator[str]:
    """The address under which everybody has the key."""

    async def handed_on(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in HOP}
        headers["authorization"] = f"Bearer {key}"
        asked = http.build_request(request.method, f"{url}/mcp", headers=headers, content=await request.body())
        answer = await http.send(asked, stream=True)
        own = {name: value for name, value in answer.headers.items() if name not in HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, own)

    app = Starlette(routes=[Route("/mcp", handed_on, methods=["GET", "POST", "DELETE"])])
    server = uvicorn.Server(uvicorn.Config(app, port=(port := free_port()), log_level="error"))
    async with httpx.AsyncClient(timeout=None) as http:
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.should_exit = True
            await serving


async def conformance(folder: Path, url: str, revision: str, expected: Path) -> tuple[int, str]:
    """Run what a revision requires. Out: the exit code, which heeds the failures that are expected, and the summary."""
    program = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    words = ["server", "--url", url, "--requirements", revision, "--expected-failures", str(expected)]
    process = await asyncio.create_subprocess_exec(
        str(folder / "node_modules/node/bin/node"),
        str(program),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), LASTS_S)
    except TimeoutError:
        process.kill()
        raise
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.decode(errors="replace"))
    return process.returncode or 0, text[text.rfind("=== SUMMARY ===") :]
