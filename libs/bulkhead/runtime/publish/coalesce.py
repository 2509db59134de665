"""Delays low-priority publishes by up to 5 ms and sends them together.

In: publishes to one receiver, in order. Out: the same order; a low-priority publish waits up to HOLD_S, or until an
urgent one goes the same way. Why: each stored message costs an fsync and wakes three programs. Published at once, a
task's progress would delay the step that it reports (ADR 0027).
"""

import asyncio
from collections import deque

from bulkhead.telemetry.latency import LATENCY

HOLD_S = LATENCY.coalesce_s


class PublishQueue:
    """The queue to one receiver."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._released = 0
        """Publishes that may go and have not run since. A new one goes behind them."""
        self._timer: asyncio.TimerHandle | None = None

    async def wait_turn(self, *, can_wait: bool) -> None:
        """Wait until this publish may go."""
        if not can_wait and not self._waiting and not self._released:
            return
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        if can_wait:
            self._waiting.append(place)
            if self._timer is None:
                self._timer = loop.call_later(HOLD_S, self._release_waiting)
        else:
            self._release_waiting()
            self._released += 1
            loop.call_soon(_release_place, place)  # Those ahead run first: a future that is done is not waited for.
        try:
            await place
        finally:
            if not can_wait or (place.done() and not place.cancelled()):
                self._released -= 1

    def _release_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self._released += 1
                place.set_result(None)


def _release_place(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_result(None)
