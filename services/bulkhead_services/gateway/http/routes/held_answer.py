"""A large answer that keeps its place until its client has it: so many are in memory at a time, however slowly they go.

In: bytes, and what gives the place back. Out: an ASGI response, in pieces: a server waits between them for a slow
client. One that takes longer than its size allows is cut off.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bulkhead.telemetry.log import Log

PIECE_BYTES = 64 * 1024
PATIENCE_S = 30.0
MIN_BYTES_PER_S = 64 * 1024
log = Log("gateway.held_answer")


class SlotHoldingResponse(StreamingResponse):
    """Sends `raw`; calls `leave` once, when all of it is sent or nothing more will be."""

    def __init__(self, raw: bytes, headers: Mapping[str, str], media_type: str, leave: Callable[[], None]) -> None:
        super().__init__(_split_pieces(raw), 200, {**headers, "Content-Length": str(len(raw))}, media_type)
        self._leave, self._limit_s = leave, PATIENCE_S + len(raw) / MIN_BYTES_PER_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as any response."""
        try:
            async with asyncio.timeout(self._limit_s):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            # The server closes what is not complete.
            log.warning("slow_client_cut_off", path=scope["path"], after_s=round(self._limit_s))
        finally:
            self._leave()


async def _split_pieces(raw: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(raw)
    for start in range(0, len(raw), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]
