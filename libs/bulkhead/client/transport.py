"""HTTP to one gateway: repeats of what may be repeated, streams of events, and errors for people.

In: methods, paths, bodies. Out: JSON objects and events. Raises Refused when the mesh says no; Unreachable when nothing
answers, or something else than a mesh; Closed after `close`.
"""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx
from pydantic import ValidationError

from bulkhead.client.errors import Closed, Refused, Unreachable
from bulkhead.client.sse import ServerEventTooLarge, SseParser

if TYPE_CHECKING:
    from bulkhead.gateway_api.query import Query, R

TIMEOUT_S = 30.0
SILENCE_S = 60.0
"""A stream is silent for longer than its heartbeats allow: reconnect."""
POST_ATTEMPTS = 4
POST_GIVE_UP_S = 8.0
"""After a 503 no attempt begins later: each may take seconds to fail, and the caller hears nothing meanwhile."""
TOO_MANY = 429
RETRYABLE = (TOO_MANY, 502, 503, 504)
MAX_RETRY_AFTER_S = 60.0
"""The longest Retry-After for which a client waits by itself."""


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of a task: name (`task.accepted`, `text`, …), its data, and the opaque id to resume after it."""

    name: str
    data: dict[str, Any]
    id: str


class Transport:
    """The connections to one gateway."""

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout_s: float, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self.url = url
        self.reached = False
        """Whether the gateway has answered anything yet."""
        # To read the list of authorities takes longer than the rest of a short program: without TLS there are none.
        trusted = True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=trusted,
            headers=headers,
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(
        self, method: str, path: str, key: str = "", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """A request that may be repeated, because its key makes repeats harmless. key: "" for one made here. Raises
        Refused, Unreachable, Unfit."""
        # Here, for it knows the forms of messages: what only reads begins without them.
        from bulkhead.client import request_checks

        key = request_checks.check_key(key) or str(uuid.uuid4())
        loop = asyncio.get_running_loop()
        began = loop.time()
        for attempt in range(POST_ATTEMPTS):
            pause_s = 0.25 * 2**attempt
            last = attempt == POST_ATTEMPTS - 1
            try:
                return await self.request_json(
                    method, path, headers={"Idempotency-Key": key, **(headers or {})}, **more
                )
            except Unreachable:
                if last:
                    raise
            except Refused as error:
                if last or not (error.code == "idempotency_in_flight" or error.status in RETRYABLE):
                    raise
                if error.retry_after_s > MAX_RETRY_AFTER_S:
                    raise
                pause_s = max(pause_s, error.retry_after_s)
                if error.status != TOO_MANY and loop.time() + pause_s - began > POST_GIVE_UP_S:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def request_json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """One request; its answer as an object."""
        self._check_open()
        try:
            answer = await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise self.unreachable_error(error) from error
        self.reached = True
        if answer.is_error:
            raise _refusal_of(answer)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_redirect or not isinstance(body, dict):
            raise self.foreign_answer(
                f"HTTP {answer.status_code}, {answer.headers.get('content-type', 'no type')[:80]}"
            )
        return body

    async def read_json(self, query: "Query[Any]") -> dict[str, Any]:
        """The reply of a read, as an object."""
        path, texts = query.address()
        return await self.request_json("GET", path, params=texts)

    async def read_reply(self, query: "Query[R]") -> "R":
        """The reply of a read, as its model."""
        model = query.reply_model()
        try:
            return model.model_validate(await self.read_json(query))
        except ValidationError as error:
            raise self.foreign_answer(f"no {model.__name__}") from error

    async def fetch_file(self, path: str, most_bytes: int) -> bytes:
        """A file, of at most so many bytes."""
        self._check_open()
        parts: list[bytes] = []
        size = 0
        try:
            async with self._http.stream("GET", path) as answer:
                self.reached = True
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal_of(answer)
                async for piece in answer.aiter_bytes():
                    parts.append(piece)
                    size += len(piece)
                    if size > most_bytes:
                        raise self.foreign_answer(f"more than {most_bytes:,} bytes")
        except httpx.HTTPError as error:
            raise self.unreachable_error(error) from error
        return b"".join(parts)

    def _check_open(self) -> None:
        if self._http.is_closed:
            raise Closed("this Mesh was closed", "ask within its `async with Mesh(...)`, or make another one")

    def require_field(self, answer: dict[str, Any], name: str) -> Any:
        """A field that every answer of a mesh has."""
        if name not in answer:
            raise self.foreign_answer(f"JSON without {name!r}")
        return answer[name]

    def foreign_answer(self, what: str) -> Unreachable:
        """The error of an answer that no gateway gives."""
        return Unreachable(
            f"something else than a mesh answers at {self.url}: {what}",
            "check the address: it is the one that `bulkhead up` tells, without a path",
        )

    def unreachable_error(self, error: Exception) -> Unreachable:
        """The error of a connection, for people."""
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"no answer from {self.url}: {reason}",
            "start the mesh (`bulkhead up`) or check the address (--url, BULKHEAD_URL)",
        )

    async def stream_events(self, task_id: str, parser: SseParser) -> AsyncGenerator[TaskEvent, None]:
        """One connection's events after `parser.last_id`. Raises Refused, Unreachable."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": parser.last_id} if parser.last_id else {})
        timeout = httpx.Timeout(SILENCE_S, connect=5.0)
        self._check_open()
        try:
            async with self._http.stream(
                "GET", f"/v1/tasks/{task_id}/events", headers=headers, timeout=timeout
            ) as answer:
                self.reached = True
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal_of(answer)
                async with aclosing(_read_lines(answer)) as lines:
                    async for line in lines:
                        event = parser.feed_line(line)
                        if event is not None:
                            yield TaskEvent(event.name, json.loads(event.data), event.id)
        except (httpx.HTTPError, ServerEventTooLarge, json.JSONDecodeError) as error:
            raise self.unreachable_error(error) from error


async def _read_lines(answer: httpx.Response) -> AsyncGenerator[str, None]:
    """Lines as they come. Only CR and LF end a line here: httpx would split at U+2028 too."""
    partial_line = ""
    # httpx's iterator is an asynchronous generator, which its annotation does not say.
    async with aclosing(cast(AsyncGenerator[str, None], answer.aiter_text())) as pieces:
        async for piece in pieces:
            *lines, partial_line = (partial_line + piece).replace("\r\n", "\n").split("\n")
            for line in lines:
                yield line


def _refusal_of(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "title" not in problem:
        problem = {
            "title": f"HTTP {answer.status_code} from {answer.url.host}",
            "hint": "is this really the address of a mesh's gateway?",
        }
    retry_after = answer.headers.get("retry-after", "")
    return Refused(
        answer.status_code, problem, float(retry_after) if retry_after.isdecimal() and len(retry_after) < 9 else 0.0
    )
