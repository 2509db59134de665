"""Answers of a call: whole, or streamed as they come; refusals in each API's own form.

In: a call and the form that it was asked in. Out: an HTTP answer. A call goes on for a while without
its client (abandon_s). A stream holds little text: more is taken when its reader has room for it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bulkhead.model_apis.gaps import describe_gaps
from bulkhead.runtime.background import cancel_tasks
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.port import ApiForm
from bulkhead_services.doors.forms.sse import to_json
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, RunSpending, StoredCall

HEARTBEAT_S = 10.0
MAX_HELD_CHARS = 64 * 1024
MAX_WARNING_CHARS = 1_000
T = TypeVar("T")
JSON = "application/json"


def spending_headers(standing: RunSpending) -> dict[str, str]:
    """The run's id, what it spent, and what is left to it."""
    headers = {"X-Bulkhead-Task": standing.task, "X-Bulkhead-Spent-Usd": _format_usd(standing.spent_usd_micros)}
    if standing.left_usd_micros is not None:
        headers["X-Bulkhead-Left-Usd"] = _format_usd(standing.left_usd_micros)
    if standing.left_tokens is not None:
        headers["X-Bulkhead-Left-Tokens"] = str(standing.left_tokens)
    if standing.warning:
        headers["X-Bulkhead-Warning"] = _printable(standing.warning)
    return headers


def left_out_header(left_out: Sequence[str]) -> dict[str, str]:
    """Parts of the request that no provider was sent, with the reason of each."""
    return {"X-Bulkhead-Left-Out": _printable(describe_gaps(left_out))} if left_out else {}


def _printable(text: str) -> str:
    """Words of strangers, in a header's one line."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:MAX_WARNING_CHARS]


def _format_usd(micros: int) -> str:
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


async def run_unless_disconnected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of some work, unless the client goes away before. Raises ClientDisconnect."""
    task, disconnected = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await cancel_tasks(task, disconnected)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class PieceBuffer:
    """The answer of a call between its source and its reader: a reader that lags finds several pieces, and a source
    that is ahead by `MAX_HELD_CHARS` waits for it."""

    def __init__(self, call: StoredCall, receive: Receive) -> None:
        self._held: list[AnswerPiece] = []
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._source = asyncio.create_task(self._read_pieces(call))
        self._gone = asyncio.create_task(_wait_for_disconnect(receive))
        for task in (self._source, self._gone):
            task.add_done_callback(lambda _: self._changed.set())

    async def _read_pieces(self, call: StoredCall) -> None:
        chars = 0
        async for piece in call.follow_pieces():
            chars += len(piece.text)
            self._held.append(piece)
            self._changed.set()
            if chars >= MAX_HELD_CHARS:
                self._room.clear()
                await self._room.wait()
                chars = 0

    async def take_pieces(self) -> list[AnswerPiece] | None:
        """The pieces that are there, none after `HEARTBEAT_S`; None after the last one. Raises ClientDisconnect,
        DoorRefusal.
        """
        if not self._changed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._changed.wait()
        if self._gone.done():
            raise ClientDisconnect
        self._changed.clear()
        pieces, self._held = self._held, []
        self._room.set()
        if not pieces and self._source.done():
            self._source.result()
            return None
        if self._source.done():
            self._changed.set()
        return pieces

    async def close(self) -> None:
        """Stop reading: the caller does not ask how the text ended."""
        await cancel_tasks(self._source, self._gone)
        if not self._source.cancelled():
            self._source.exception()


class AnswerStream(Response):
    """An answer as server-sent events.

    Its head is sent with the first piece, or after `HEARTBEAT_S`: a call that is refused before is an error of HTTP,
    which SDKs read better than one in a stream. refused: makes that error. closed: called at the end, however it ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        call: StoredCall,
        form: ApiForm,
        headers: dict[str, str],
        refused: Callable[[DoorRefusal], Response],
        closed: Callable[[], None],
    ) -> None:
        super().__init__(headers=headers | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._call, self._form, self._refused, self._closed = call, form, refused, closed
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        pieces = PieceBuffer(self._call, receive)
        try:
            with contextlib.suppress(ClientDisconnect):
                await self._send_all(pieces, send)
        except DoorRefusal as refusal:
            if not self._begun:
                await self._refused(refusal)(scope, receive, send)
            else:
                await self._send_last(send, self._form.render_failure(refusal))
        finally:
            self._closed()
            await pieces.close()

    async def _send_all(self, pieces: PieceBuffer, send: Send) -> None:
        while (batch := await pieces.take_pieces()) is not None:
            begun = await self._send_head(send)
            # Of pieces that its form has no words for its reader is told that they come.
            events = b"".join(map(self._form.render_piece, batch)) or sse.HEARTBEAT
            await self._send_events(send, begun + events)
        answer = await self._call.wait_for_answer()
        begun = await self._send_head(send)
        await self._send_last(send, begun + self._form.render_end(answer))

    async def _send_head(self, send: Send) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        return self._form.render_start(self._call.call_id, time.time_ns() // 1_000_000)

    async def _send_events(self, send: Send, events: bytes) -> None:
        await send({"type": "http.response.body", "body": events, "more_body": True})

    async def _send_last(self, send: Send, events: bytes) -> None:
        await send({"type": "http.response.body", "body": events, "more_body": False})


@dataclass(frozen=True, slots=True)
class VendorApi:
    """One vendor's API. request_id_header: where its SDK looks for the request's id."""

    error: Callable[[DoorRefusal, str], dict[str, Any]]
    request_id_header: str

    def render_refusal(self, refusal: DoorRefusal, request_id: str) -> Response:
        """An error as an HTTP answer."""
        headers = errors.error_headers(refusal) | {self.request_id_header: request_id}
        return Response(
            to_json(self.error(refusal, request_id)).encode("utf-8", "replace"), refusal.status, headers, JSON
        )


OPENAI = VendorApi(errors.openai_body, "x-request-id")
ANTHROPIC = VendorApi(errors.anthropic_body, "request-id")


def api_of(path: str) -> VendorApi:
    """The API that a path belongs to. Runs are the doors' own, and speak as OpenAI's does."""
    return ANTHROPIC if path.startswith("/anthropic/") else OPENAI
