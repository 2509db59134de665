"""How many publishes to one stream are under way at a time; the others wait here, in order.

In: publishes by subject. Out: a place for each, given back when the broker has answered. Why: a stream without replicas
stores whatever has reached it, one message and one fsync after the other, before it answers or delivers any of it. Two
hundred that come at once are answered after two hundred fsyncs, and who waits for the first is idle meanwhile: services
work in turns where they could work side by side (ADR 0025).
"""

import asyncio
from collections import deque

from bulkhead.latency import LATENCY

WIDTH = LATENCY.publish_window


class Lane:
    """Of one stream: first come, first served."""

    def __init__(self, width: int = WIDTH) -> None:
        self.free = width
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._coming = 0
        """Who was given a place and has not come to run since. Whoever comes now waits behind them."""

    async def enter(self) -> None:
        """Return with a place, which is to be given back by `leave`. That takes no longer than those ahead keep theirs:
        each gives up in its time, and before whoever came later."""
        if self.free and not self._coming:
            self.free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            # It was given in the moment in which nobody wanted it any more.
            if place.done() and not place.cancelled():
                self._coming -= 1
                self.leave()
            raise
        self._coming -= 1
        self._give()

    def leave(self) -> None:
        """A place goes to who has waited longest, so that nobody who comes now passes."""
        self.free += 1
        self._give()

    def _give(self) -> None:
        while self.free and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self.free -= 1
                self._coming += 1
                place.set_result(None)


class Lanes:
    """Of one connection."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}

    def of(self, subject: str) -> Lane:
        """Messages to one inbox share a stream, whoever says them; so does everything else that begins alike."""
        plane, _, rest = subject.partition(".")
        name = (plane, rest.split(".", 2)[1] if plane == "mesh" and "." in rest else "")
        found = self._lanes.get(name)
        if found is None:
            found = self._lanes[name] = Lane()
        return found
