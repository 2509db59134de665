"""A provider that does exactly what a test tells it, over a real socket: status, headers, bytes, silence, cuts.

Enters: one script per request. Leaves: what was asked, and whether the client hung up.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

DEADLINE_S = 10.0


class Exchange:
    """One request and the line to answer it on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, body: bytes) -> None:
        self.reader, self.writer = reader, writer
        lines = head.split("\r\n")
        self.path = lines[0].split(" ")[1]
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
        self.body: dict[str, Any] = json.loads(body)
        self.sent = body

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def json(self, status: int, body: object, **headers: str) -> None:
        await self.whole(status, json.dumps(body).encode(), **headers)

    async def begin(self, kind: str = "text/event-stream") -> None:
        await self.raw(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())

    async def piece(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, data: object) -> None:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        await self.piece(f"data: {text}\n\n".encode())

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def drop(self) -> None:
        """Break the connection at once."""
        self.writer.transport.abort()

    async def hung_up(self) -> bool:
        """Wait until the client has closed its side."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedProvider:
    """`async with ScriptedProvider() as p: p.will(script, ...)`; without a script left, the last one is repeated."""

    def __init__(self) -> None:
        self.asked: list[Exchange] = []
        self.connections = 0
        self._scripts: list[Script] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []

    def will(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.failures, self.failures

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(next(x.split(":")[1] for x in head.split("\r\n") if x.lower().startswith("content-length")))
                exchange = Exchange(reader, writer, head, await reader.readexactly(size))
                self.asked.append(exchange)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                await script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # a broken script must fail its test
            self.failures.append(error)
        finally:
            writer.close()
            self._tasks.discard(task)


# Scripts


def usage(prompt: int = 100, completion: int = 20, cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"model": "scripted-1", "system_fingerprint": "fp_1", "choices": choices, **more}


def says(text: str, finish: str = "stop", told: dict[str, Any] | None = None, silent_usage: bool = False) -> Script:
    """Streams the text word by word, or answers it whole when no stream was asked for."""

    async def script(x: Exchange) -> None:
        found = {} if silent_usage else {"usage": told or usage()}
        if not x.body.get("stream"):
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "finish_reason": finish}]
            await x.json(200, {"model": "scripted-1", "system_fingerprint": "fp_1", "choices": choices, **found})
            return
        await x.begin()
        await x.event(chunk({"role": "assistant", "content": ""}))
        for word in text.split(" ") if text else []:
            await x.event(chunk({"content": word if word == text.split(" ")[0] else " " + word}))
        await x.event(chunk(finish=finish))
        if found:
            await x.event({"choices": [], **found})
        await x.event("[DONE]")
        await x.end()

    return script


def calls(*made: dict[str, Any], finish: str = "tool_calls") -> Script:
    """Answers with tool calls: dicts with id, name, arguments; streamed in two halves each."""

    async def script(x: Exchange) -> None:
        await x.begin()
        for index, one in enumerate(made):
            half = len(one["arguments"]) // 2
            head = {"index": index, "id": one["id"], "type": "function"}
            first = {"name": one["name"], "arguments": one["arguments"][:half]}
            await x.event(chunk({"tool_calls": [{**head, "function": first}]}))
            rest = {"index": index, "function": {"arguments": one["arguments"][half:]}}
            await x.event(chunk({"tool_calls": [rest]}))
        await x.event(chunk(finish=finish))
        await x.event({"choices": [], "usage": usage()})
        await x.event("[DONE]")
        await x.end()

    return script


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Script:
    """Answers with an error status and OpenAI's error body."""

    async def script(x: Exchange) -> None:
        await x.json(status, {"error": {"message": message, "type": "t", "code": code}}, **headers)

    return script
