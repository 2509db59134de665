"""The tools of a mesh for a program that starts MCP servers itself and speaks with them over stdin and stdout.

In: one JSON-RPC message per line on stdin. Out: what the mesh's own MCP door answers to each, on stdout, and nothing
else there. A call bears a key of its own: sent again after a lost answer it is made once all the same.
"""

import asyncio
import json
import sys
import uuid
from typing import Any

import httpx

from bulkhead_cli.output import Exit

ATTEMPTS = 5
PAUSE_S = 0.5
MAX_LINE_BYTES = 128 * 1024
AT_ONCE = 64
NO_ANSWER, NO_JSON = -32000, -32700
META = "io.modelcontextprotocol/"
KEY = "io.bulkhead/idempotency-key"
SESSION, VERSION = "mcp-session-id", "mcp-protocol-version"
AGAIN = (502, 503, 504)


async def serve_mcp(url: str, api_key: str, run: str) -> Exit:
    """Serve until stdin ends. url: of the doors. run: a name for the task of its calls; "": that of the key."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json, text/event-stream"}
    headers |= {"X-Bulkhead-Run": run} if run else {}
    places, working = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()
    # No bound on an answer: the door has its own, and says that it is alive meanwhile.
    async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(60.0, read=None)) as http:
        relay = McpStdioRelay(http, f"{url.rstrip('/')}/mcp")
        while line := await _read_line(reader):
            await places.acquire()
            task = asyncio.create_task(relay.relay_message(line))
            working.add(task)
            task.add_done_callback(working.discard)
            task.add_done_callback(lambda _: places.release())
            if b'"initialize"' in line:
                await task  # What comes after it stands in the session that it opens.
        await asyncio.gather(*working)
    return Exit.OK


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line; b"" at the end. One beyond the bound is told as no JSON."""
    try:
        return await reader.readline()
    except ValueError:
        return b"-\n"


class McpStdioRelay:
    """Messages to the door at `url`, answers to stdout."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url, self._own = http, url, uuid.uuid4().hex
        self._session: dict[str, str] = {}

    async def relay_message(self, line: bytes) -> None:
        """One message of the client's."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            _write_message(
                {"jsonrpc": "2.0", "id": None, "error": {"code": NO_JSON, "message": f"no JSON-RPC message: {error}"}}
            )
            return
        if "method" in message:
            await self._send_message(message, self._request_headers(message))

    def _request_headers(self, message: dict[str, Any]) -> dict[str, str]:
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        meta = meta if isinstance(meta, dict) else {}
        if message["method"] == "tools/call":
            message["params"] = params | {"_meta": {KEY: f"{self._own}/{message.get('id')}"} | meta}
        version = meta.get(f"{META}protocolVersion")
        if not isinstance(version, str):
            return dict(self._session)
        named = [params[key] for key in ("name", "taskId") if isinstance(params.get(key), str)]
        name = {"mcp-name": named[0]} if named else {}
        return {VERSION: version, "mcp-method": str(message["method"]), **name}

    async def _send_message(self, message: dict[str, Any], headers: dict[str, str]) -> None:
        """Until there is an answer; a key makes repeats harmless."""
        failure = ""
        for attempt in range(ATTEMPTS):
            try:
                async with self._http.stream("POST", self._url, json=message, headers=headers) as answer:
                    if answer.status_code not in AGAIN:
                        await self._relay_answer(message, answer)
                        return
                    failure = f"HTTP {answer.status_code}: {(await answer.aread()).decode(errors='replace')[:500]}"
            except httpx.HTTPError as error:
                failure = f"{type(error).__name__}: {error}"
            await asyncio.sleep(PAUSE_S * 2**attempt)
        self._reply_failure(
            message, f"{self._url} does not answer ({failure}); look whether the mesh runs, then call again"
        )

    async def _relay_answer(self, message: dict[str, Any], answer: httpx.Response) -> None:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            async for line in answer.aiter_lines():
                if line.startswith("data:") and (data := line[5:].strip()):
                    _write_message(json.loads(data))
            return
        raw = await answer.aread()
        try:
            reply = json.loads(raw) if raw else {}
        except ValueError:
            reply = {}
        if "jsonrpc" in reply:
            if message["method"] == "initialize" and "result" in reply:
                self._session = {VERSION: str(reply["result"].get("protocolVersion", ""))}
                if session := answer.headers.get(SESSION):
                    self._session[SESSION] = session
            _write_message(reply)
        elif not answer.is_success:
            self._reply_failure(message, f"HTTP {answer.status_code}: {raw.decode(errors='replace')[:500]}")

    def _reply_failure(self, message: dict[str, Any], reason: str) -> None:
        if "id" in message:
            _write_message({"jsonrpc": "2.0", "id": message["id"], "error": {"code": NO_ANSWER, "message": reason}})


def _write_message(message: object) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()
