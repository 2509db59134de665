"""Responses that a plain JSON response cannot be: streams, silence, cut bodies. Enters: a completion, a fault.

Each one marks in its log entry whether the client went away before the end.
"""

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bulkhead_infra.offline_model.http.faults import Fault
from bulkhead_infra.offline_model.http.openai import Completion, chunks_of

FOREVER_S = 3_600.0
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class _RawResponse(Response):
    """A response that sends its own ASGI messages, with status 200."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.status_code, self.background, self.entry = 200, None, entry

    async def begin(self, send: Send, headers: Mapping[str, str]) -> None:
        self.entry["status"] = 200
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})

    async def unless_gone(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Do `work` until it ends or the client goes away, whichever is first; the log entry tells which."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self.entry["client_cut"] = not working.done() or isinstance(working.exception(), OSError)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
            self.entry["finished"] = True


class StreamResponse(_RawResponse):
    """Server-sent chunks, one word or so each, paced; `x_sent_unix_ns` is stamped as each one leaves."""

    def __init__(
        self, done: Completion, body: Mapping[str, Any], fault: Fault | None, entry: dict[str, Any], delay_ms: float
    ) -> None:
        super().__init__(entry)
        self.done, self.fault, self.ended = done, fault or Fault("none"), False
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.with_usage = with_usage and self.fault.name != "missing_usage"
        slow = self.fault.name == "long_answer" and self.fault.delay_ms
        self.delay_s = (slow or delay_ms) / 1_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.begin(send, {**EVENT_STREAM, "x-request-id": f"req_{self.done.id}"})
        await self.unless_gone(self._send_all(send), receive)
        if self.ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        for number, chunk in enumerate(chunks_of(self.done, self.with_usage)):
            last = bool(chunk["choices"]) and chunk["choices"][0]["finish_reason"] is not None
            reached = number == self.fault.after_chunks or last
            if self.fault.name == "stall" and reached:
                await asyncio.sleep(self.fault.delay_ms / 1_000 or FOREVER_S)
            if self.fault.name == "cut_stream" and reached:
                # Abrupt: the body never ends and the server drops the connection; else it ends as if whole.
                self.ended = not self.fault.abrupt
                return
            chunk["x_sent_unix_ns"] = time.time_ns()
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
            self.entry["chunks_sent"] += 1
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        self.ended = True


class SilentResponse(_RawResponse):
    """Sends nothing, not even a status, until the client goes away or `delay_ms` is over; then drops the line."""

    def __init__(self, delay_ms: int, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.wait_s = delay_ms / 1_000 or FOREVER_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.unless_gone(asyncio.sleep(self.wait_s), receive)
        if not self.entry["client_cut"]:
            # A promised body that never comes makes the server drop the connection rather than send a 500.
            await self.begin(send, {"content-length": "2"})


class CutResponse(_RawResponse):
    """Half of a body whose length was promised; the server then drops the connection."""

    def __init__(self, body: bytes, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.whole = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.begin(send, {"content-type": "application/json", "content-length": str(len(self.whole))})
        await send({"type": "http.response.body", "body": self.whole[: len(self.whole) // 2], "more_body": True})
        self.entry["finished"] = True
