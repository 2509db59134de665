"""An MCP server as a process of its own: one JSON-RPC message a line, on its standard input and output.

Enters: a server with a command. Leaves: the SDK's pair of streams. The SDK's own transport would pass HOME, USER and
SHELL on and read a line of any length; this one gives a process nothing of the executor's environment but PATH, a
directory of its own, and bounds what is read. It ends with its session, and all that it started with it.
"""

import asyncio
import os
import shutil
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from bulkhead.runtime.background import cancel_tasks
from bulkhead.tools.mcp_file import McpServer
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.private_folders import make_private_folder

MAX_END_S = 2.0
"""Time to end by itself after its input was closed, then after SIGTERM."""
MAX_STDERR_CHARS = 300
Streams = tuple[Any, Any]


@asynccontextmanager
async def stdio_streams(server: McpServer, stderr_lines: deque[str]) -> AsyncIterator[Streams]:
    """Start the process; end it. stderr_lines: takes the last lines of its standard error. Raises OSError where it
    cannot be
    started, or a variable's file cannot be read."""
    home = make_private_folder("bulkhead-mcp-")
    try:
        process = await asyncio.create_subprocess_exec(
            *server.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_build_environment(server, home),
            cwd=server.cwd or home,
            start_new_session=True,
            limit=bounds.MAX_MCP_ANSWER_BYTES,
        )
        async with _open_streams(process, stderr_lines) as streams:
            yield streams
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _build_environment(server: McpServer, home: str) -> dict[str, str]:
    variables = {
        name: value if isinstance(value, str) else value.file.read_text().strip() for name, value in server.env.items()
    }
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"} | variables


@asynccontextmanager
async def _open_streams(process: asyncio.subprocess.Process, stderr_lines: deque[str]) -> AsyncIterator[Streams]:
    from_process_in, from_process = anyio.create_memory_object_stream[SessionMessage | Exception](16)
    to_process, to_process_out = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = (
        asyncio.create_task(_read_messages(process, from_process_in), name="mcp stdout"),
        asyncio.create_task(_write_messages(process, to_process_out), name="mcp stdin"),
        asyncio.create_task(_drain_stderr(process, stderr_lines), name="mcp stderr"),
    )
    try:
        yield from_process, to_process
    finally:
        await _end_process(process)
        await cancel_tasks(*tasks)
        for stream in (from_process_in, from_process, to_process, to_process_out):
            stream.close()


async def _read_messages(process: asyncio.subprocess.Process, incoming: Any) -> None:
    """Messages of the process, until it ends or says too much. What is no message is dropped: some print to it."""
    assert process.stdout is not None
    async with incoming:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                return  # A line above the bound: the session ends, and the process with it.
            if not line:
                return
            try:
                await incoming.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
            except ValidationError:
                continue
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # The session is over.


async def _write_messages(process: asyncio.subprocess.Process, outgoing: Any) -> None:
    assert process.stdin is not None
    async with outgoing:
        async for message in outgoing:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            with suppress(ConnectionError):  # It ended; the reader tells.
                await process.stdin.drain()


async def _drain_stderr(process: asyncio.subprocess.Process, stderr_lines: deque[str]) -> None:
    """Drain what it writes to standard error: a full pipe would hold it up."""
    assert process.stderr is not None
    while piece := await process.stderr.read(64 * 1024):
        stderr_lines.extend(line[:MAX_STDERR_CHARS] for line in piece.decode("utf-8", "replace").splitlines())


async def _end_process(process: asyncio.subprocess.Process) -> None:
    """End it, in time or at once where that is cancelled, with all that it started and left behind."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        for end_signal in (None, signal.SIGTERM):
            if end_signal is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, end_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), MAX_END_S)
                break
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process._transport.close()  # type: ignore[attr-defined]  # Its pipes: nothing public closes them.
    await asyncio.sleep(0)
