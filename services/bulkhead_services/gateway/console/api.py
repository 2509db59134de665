"""The gateway's own API, called in the process with a person's session: what the console may read and do.

In: a method, a path, a session's token. Out: the answer's JSON, or events of a stream; ApiRefused where
the API says no. The console knows no other way to the mesh, so each look and each act is authorised,
bounded and on record as that of any other client.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope

from bulkhead.runtime.background import cancel_tasks

OPENED = "opened"
"""The first event of a stream, made here: the API has let it in, though nothing may happen for long."""
HELD_CHUNKS = 32
"""Of a stream whose reader is slower than its source; then the source waits."""
Query = Mapping[str, str | int]
Json = dict[str, Any]
SessionWatch = Callable[[str, Callable[[], object]], Callable[[], None]]


class ApiRefused(Exception):
    """The API's problem details, or what stands for them. status: of HTTP."""

    def __init__(self, status: int, told: Json) -> None:
        self.status = status
        self.title = str(told.get("title") or "This did not work")
        self.detail = str(told.get("detail") or "")
        self.hint = str(told.get("hint") or "")
        super().__init__(self.detail)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """status, headers in small letters, and the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def decode_json(self) -> Json:
        """The body of a good answer. Raises ApiRefused for any other."""
        try:
            content = json.loads(self.body) if self.body else {}
        except ValueError:
            content = {}
        if self.status >= 400:
            raise ApiRefused(self.status, content if isinstance(content, dict) else {})
        assert isinstance(content, dict)
        return content


class ConsoleApi:
    """Requests to the application that serves the API. watch_session: of `GatewayAuthenticator`."""

    def __init__(self, app: ASGIApp, watch_session: SessionWatch) -> None:
        self._app, self._watch_session = app, watch_session

    async def get(self, token: str, path: str, query: Query | None = None) -> Json:
        """The JSON at a path. Raises ApiRefused."""
        return (await self.send_request("GET", token, path, query=query)).decode_json()

    async def post(self, token: str, path: str, body: Json, key: str, method: str = "POST") -> Json:
        """The JSON of a change. key: its Idempotency-Key, the same when the same form is sent again. Raises
        ApiRefused.
        """
        return (await self.send_request(method, token, path, body=json.dumps(body).encode(), key=key)).decode_json()

    async def send_request(
        self, method: str, token: str, path: str, *, query: Query | None = None, body: bytes = b"", key: str = ""
    ) -> ApiResponse:
        """Any answer, whole."""
        return await self._collect_response(_request_scope(method, token, path, query, body, key), _body_receiver(body))

    async def forward_upload(self, request: Request, token: str, path: str, key: str) -> ApiResponse:
        """The answer to a body that a browser sends: it goes on unread, within the API's own bounds."""
        scope = _request_scope("POST", token, path, None, b"", key)
        for name in ("content-type", "content-length"):
            if value := request.headers.get(name):
                scope["headers"].append((name.encode(), value.encode("latin-1")))
        return await self._collect_response(scope, request.receive)

    async def _collect_response(self, scope: Scope, receive: Receive) -> ApiResponse:
        status, headers, chunks = 500, dict[str, str](), list[bytes]()

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return ApiResponse(status, headers, b"".join(chunks))

    async def stream_events(self, token: str, path: str) -> AsyncIterator[tuple[str, Json]]:
        """Name and data of each event of a stream, OPENED before all; an end without a word when the task has
        ended. Raises ApiRefused.
        """
        chunks: asyncio.Queue[Message | None] = asyncio.Queue(HELD_CHUNKS)

        async def run_request() -> None:
            await self._app(_request_scope("GET", token, path, None, b"", ""), _body_receiver(b""), chunks.put)
            await chunks.put(None)

        task = asyncio.create_task(run_request())
        forget_session = self._watch_session(token, task.cancel)
        try:
            async for event in _read_events(chunks, task):
                yield event
        finally:
            forget_session()
            await cancel_tasks(task)


def _body_receiver(body: bytes) -> Receive:
    """A request's body; then nothing more: nobody hangs up, and who waits for that is cancelled at the answer's end."""
    is_sent = False

    async def receive() -> Message:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _request_scope(method: str, token: str, path: str, query: Query | None, body: bytes, key: str) -> Scope:
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


async def _read_events(
    chunks: "asyncio.Queue[Message | None]", source: "asyncio.Task[None]"
) -> AsyncIterator[tuple[str, Json]]:
    text, status, error_body = "", 200, b""
    while (message := await _next_message(chunks, source)) is not None:
        if message["type"] == "http.response.start":
            status = message["status"]
            if status < 400:
                yield OPENED, {}
        elif status >= 400:
            error_body += message.get("body", b"")
        else:
            text += message.get("body", b"").decode()
            *blocks, text = text.split("\n\n")
            for block in blocks:
                if (event := _parse_block(block)) is not None:
                    yield event
    if status >= 400:
        ApiResponse(status, {}, error_body).decode_json()


async def _next_message(chunks: "asyncio.Queue[Message | None]", source: "asyncio.Task[None]") -> Message | None:
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


def _parse_block(block: str) -> tuple[str, Json] | None:
    # Lines end with a line feed alone: to splitlines() a text's U+0085, U+2028 and U+2029 would end one too.
    fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
    return (fields.get("event", "message"), json.loads(fields["data"])) if "data" in fields else None
