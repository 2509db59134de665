"""A limit on the publishes to one stream that are under way at a time; the others wait here, in order.

In: publishes by subject. Out: a slot for each, given back when the broker has answered. Why: a stream without replicas
stores all messages that have reached it, one fsync after the other, before it answers or delivers any of them. After a
burst of two hundred the first answer takes two hundred fsyncs, and the service behind it is idle meanwhile (ADR 0025).
"""

import asyncio
from collections import deque

from bulkhead.telemetry.latency import LATENCY

WIDTH = LATENCY.publish_window


class PublishWindow:
    """The publishes to one stream: first come, first served."""

    def __init__(self, width: int = WIDTH) -> None:
        self.free = width
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._coming = 0
        """Tasks that were given a slot and have not run since. A new one waits behind them."""

    async def wait_for_slot(self) -> None:
        """Wait for a slot; give it back by `release_slot`. The wait is bounded by the timeouts of the publishes
        ahead.
        """
        if self.free and not self._coming:
            self.free -= 1
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            # The slot was given in the moment in which the caller gave up.
            if slot.done() and not slot.cancelled():
                self._coming -= 1
                self.release_slot()
            raise
        self._coming -= 1
        self._give_slots()

    def release_slot(self) -> None:
        """Give a slot back: the task that has waited longest gets it, never one that comes now."""
        self.free += 1
        self._give_slots()

    def _give_slots(self) -> None:
        while self.free and self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                self.free -= 1
                self._coming += 1
                slot.set_result(None)


class PublishWindows:
    """The windows of one connection, one per stream."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], PublishWindow] = {}

    def window_of(self, subject: str) -> PublishWindow:
        """The window of a subject: one per inbox, and one per prefix of other subjects."""
        plane, _, tail = subject.partition(".")
        name = (plane, tail.split(".", 2)[1] if plane == "mesh" and "." in tail else "")
        if name not in self._windows:
            self._windows[name] = PublishWindow()
        return self._windows[name]
