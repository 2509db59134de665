"""The queue behind a live subscription: bounded, and lossy when its reader is slow.

In: messages as a listener hears them. Out: the same, in order, as an asynchronous iteration.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from bulkhead.bus.port import LiveMessage


class LiveQueue:
    """See port.LiveSubscription, but for `close`. The newest message is dropped when there is no room, so that what was
    heard stays in order."""

    def __init__(self, max_pending: int) -> None:
        self.dropped = 0
        self._max_pending = max_pending
        self._pending: deque[LiveMessage] = deque()
        self._more = asyncio.Event()
        self._ended = False

    def add_message(self, message: LiveMessage) -> None:
        """Queue one message, or count it as dropped."""
        if len(self._pending) >= self._max_pending:
            self.dropped += 1
            return
        self._pending.append(message)
        self._more.set()

    def end(self) -> None:
        """End the iteration after what was already heard."""
        self._ended = True
        self._more.set()

    async def __aiter__(self) -> AsyncIterator[LiveMessage]:
        while True:
            while self._pending:
                yield self._pending.popleft()
            if self._ended:
                return
            self._more.clear()
            await self._more.wait()
