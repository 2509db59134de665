"""The public conformance tests of others before a mesh's doors.

In: a folder that holds them. Out: what failed. They know of no keys: a proxy adds one, and hands on everything else as
it stands, the Host too.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bulkhead.http_server.tcp_ports import free_port
from tests.eventually import until

HOP = ("connection", "content-length", "transfer-encoding")
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]
LASTS_S = 480


@asynccontextmanager
async def serving(app: Starlette, port: int) -> AsyncIterator[str]:
    """An application on a port. Out: its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@dataclass(frozen=True)
class Sent:
    """A request's headers and body."""

    headers: dict[str, str]
    body: bytes


Adapt = Callable[[Sent], Awaitable[Sent]]


@asynccontextmanager
async def proxy(url: str, adapt: Adapt) -> AsyncIterator[str]:
    """An address whose requests another one gets. adapt: changes a request before that."""

    async def handed_on(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in HOP}
        sent = await adapt(Sent(headers, await request.body()))
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = http.build_request(request.method, url + path, headers=sent.headers, content=sent.body)
        answer = await http.send(asked, stream=True)
        own = {name: value for name, value in answer.headers.items() if name not in HOP}
        return StreamingResponse(_read(answer), answer.status_code, own)

    app = Starlette(routes=[Route("/{path:path}", handed_on, methods=METHODS)])
    async with httpx.AsyncClient(timeout=None) as http, serving(app, free_port()) as own:
        yield own


@asynccontextmanager
async def with_key(url: str, key: str) -> AsyncIterator[str]:
    """The address under which everybody has the key."""

    async def adapt(sent: Sent) -> Sent:
        return Sent({**sent.headers, "authorization": f"Bearer {key}"}, sent.body)

    async with proxy(url, adapt) as own:
        yield own


async def _read(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of a body; a client that goes away ends the stream behind the proxy, too."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


async def conformance(folder: Path, url: str, revision: str, expected: Path) -> tuple[int, str]:
    """Run what a revision of MCP requires. Out: the exit code, which heeds the failures that are expected, and the
    summary."""
    program = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    words = ["server", "--url", url, "--requirements", revision, "--expected-failures", str(expected)]
    code, text = await ran([str(folder / "node_modules/node/bin/node"), str(program), *words], folder)
    return code, text[text.rfind("=== SUMMARY ===") :]


async def ran(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """A program, to its end. Out: its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), LASTS_S)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, re.sub(r"\x1b\[[0-9;]*m", "", said.decode(errors="replace"))
