"""Clocks of the in-memory broker: the machine's, or one that moves only by `advance`.

Times are unix milliseconds.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

Cancel = Callable[[], None]


class Clock(Protocol):
    """The clock interface of the in-memory broker."""

    def now_ms(self) -> int:
        """Unix milliseconds."""

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """Run `callback` at a time (a past one: as soon as possible); returns what cancels it."""


class MachineClock:
    """The machine's time, on the running event loop."""

    def now_ms(self) -> int:
        """See Clock."""
        return time.time_ns() // 1_000_000

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """See Clock."""
        delay_s = max(0.0, when_ms / 1000 - time.time())
        return asyncio.get_running_loop().call_later(delay_s, callback).cancel


class StandingClock(MachineClock):
    """Stands where it began: between two messages lies no pause, however busy the machine is. What is set for later
    comes as much later as by the machine's time."""

    def __init__(self) -> None:
        self._at_ms = super().now_ms()

    def now_ms(self) -> int:
        """See Clock."""
        return self._at_ms

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """See Clock."""
        return asyncio.get_running_loop().call_later(max(0, when_ms - self._at_ms) / 1000, callback).cancel


class VirtualClock:
    """Time that moves only by `advance`: what is due runs in order of time, then of setting."""

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = start_ms
        self._serial = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()

    def now_ms(self) -> int:
        """See Clock."""
        return self._now_ms

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Cancel:
        """See Clock."""
        self._serial += 1
        serial = self._serial
        heapq.heappush(self._due, (when_ms, serial, callback))
        return lambda: self._cancelled.add(serial)

    def next_ms(self) -> int | None:
        """When the next callback is due; None when none is set."""
        while self._due and self._due[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._due)[1])
        return self._due[0][0] if self._due else None

    def advance(self, by_ms: int) -> None:
        """Move on, running everything that falls due on the way."""
        until_ms = self._now_ms + by_ms
        while (when_ms := self.next_ms()) is not None and when_ms <= until_ms:
            _, _, callback = heapq.heappop(self._due)
            self._now_ms = max(self._now_ms, when_ms)
            callback()
        self._now_ms = until_ms
