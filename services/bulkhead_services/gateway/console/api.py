"""The gateway's own API, called in the process with a person's session: what the console may read and do.

In: a method, a path, a session's token. Out: the answer's JSON, or events of a stream; Refused where the API says no.
The console knows no other way to the mesh, so each look and each act is authorised, bounded and on record as that of
any other client.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message, Receive, Scope

from bulkhead.runtime.background import cancel

OPENED = "opened"
"""The first event of a stream, made here: the API has let it in, though nothing may happen for long."""
HELD_CHUNKS = 32
"""Of a stream whose reader is slower than its source; then the source waits."""
Query = Mapping[str, str | int]
Json = dict[str, Any]


class Refused(Exception):
    """The API's problem details, or what stands for them. status: of HTTP."""

    def __init__(self, status: int, told: Json) -> None:
        self.status = status
        self.title = str(told.get("title") or "This did not work")
        self.detail = str(told.get("detail") or "")
        self.hint = str(told.get("hint") or "")
        super().__init__(self.detail)


@dataclass(frozen=True, slots=True)
class Answer:
    """status, headers in small letters, and the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        """The body of a good answer. Raises Refused for any other."""
        try:
            found = json.loads(self.body) if self.body else {}
        except ValueError:
            found = {}
        if self.status >= 400:
            raise Refused(self.status, found if isinstance(found, dict) else {})
        assert isinstance(found, dict)
        return found


class Api:
    """Requests to the application that serves the API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(self, token: str, path: str, query: Query | None = None) -> Json:
        """The JSON at a path. Raises Refused."""
        return (await self.ask("GET", token, path, query=query)).json()

    async def post(self, token: str, path: str, body: Json, key: str, method: str = "POST") -> Json:
        """The JSON of a change. key: its Idempotency-Key, the same when the same form is sent again. Raises Refused."""
        return (await self.ask(method, token, path, body=json.dumps(body).encode(), key=key)).json()

    async def ask(
        self, method: str, token: str, path: str, *, query: Query | None = None, body: bytes = b"", key: str = ""
    ) -> Answer:
        """Any answer, whole."""
        status, headers, chunks = 500, dict[str, str](), list[bytes]()

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        await self._app(_scope(method, token, path, query, body, key), _sent(body), send)
        return Answer(status, headers, b"".join(chunks))

    async def events(self, token: str, path: str) -> AsyncIterator[tuple[str, Json]]:
        """Name and data of each event of a stream, OPENED before all; an end without a word when the task has ended.
        Raises Refused."""
        chunks: asyncio.Queue[Message | None] = asyncio.Queue(HELD_CHUNKS)

        async def answer() -> None:
            await self._app(_scope("GET", token, path, None, b"", ""), _sent(b""), chunks.put)
            await chunks.put(None)

        task = asyncio.create_task(answer())
        try:
            async for event in _events(chunks, task):
                yield event
        finally:
            await cancel(task)


def _sent(body: bytes) -> Receive:
    """A request's body; then nothing more: nobody hangs up, and who waits for that is cancelled at the answer's end."""
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _scope(method: str, token: str, path: str, query: Query | None, body: bytes, key: str) -> Scope:
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"console")]
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if key:
        headers.append((b"idempotency-key", key.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": urlencode({name: value for name, value in (query or {}).items() if value != ""}).encode(),
        "headers": headers,
        "client": ("console", 0),
        "server": ("console", 0),
    }


async def _events(
    chunks: "asyncio.Queue[Message | None]", source: "asyncio.Task[None]"
) -> AsyncIterator[tuple[str, Json]]:
    text, status, said = "", 200, b""
    while (message := await _next(chunks, source)) is not None:
        if message["type"] == "http.response.start":
            status = message["status"]
            if status < 400:
                yield OPENED, {}
        elif status >= 400:
            said += message.get("body", b"")
        else:
            text += message.get("body", b"").decode()
            *whole, text = text.split("\n\n")
            for block in whole:
                if (event := _parsed(block)) is not None:
                    yield event
    if status >= 400:
        Answer(status, {}, said).json()


async def _next(chunks: "asyncio.Queue[Message | None]", source: "asyncio.Task[None]") -> Message | None:
    """The next message; None after the last, and where the source has failed."""
    if source.done() and chunks.empty():
        return None
    getting = asyncio.ensure_future(chunks.get())
    try:
        await asyncio.wait({getting, source}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
    finally:
        if not getting.done():
            getting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await getting
    return None if chunks.empty() else chunks.get_nowait()


def _parsed(block: str) -> tuple[str, Json] | None:
    # Lines end with a line feed alone: to splitlines() a text's U+0085, U+2028 and U+2029 would end one too.
    fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
    return (fields.get("event", "message"), json.loads(fields["data"])) if "data" in fields else None
