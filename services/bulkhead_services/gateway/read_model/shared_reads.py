"""One reading for all who ask for the same at about the same moment, as those do to whom a change was told.

In: keys (all that a reading depends on) and how to read. Out: what was read, begun after it was asked for: nobody is
given one that may miss the change of which he was told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

REST_S = 0.1
"""What is asked for meanwhile is one reading."""


class SharedReads(Generic[T]):
    """Readings under way, and those to come. rest_s: between two readings of the same key."""

    def __init__(self, rest_s: float = REST_S) -> None:
        self._rest_s = rest_s
        self._coming: dict[Hashable, asyncio.Task[T]] = {}
        self._rests: dict[Hashable, asyncio.Event] = {}
        """Set when the next reading may begin."""

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The result of a reading; `read` of whoever came first is called, for all. Raises what it raises."""
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = asyncio.create_task(self._read_after_rest(key, read))
        # A browser that leaves takes it from nobody else.
        return await asyncio.shield(coming)

    async def _read_after_rest(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        if (before := self._rests.get(key)) is not None:
            await before.wait()
        # Who comes from now on may know of a change that this reading misses.
        del self._coming[key]
        rested = self._rests[key] = asyncio.Event()
        try:
            return await read()
        finally:
            asyncio.get_running_loop().call_later(self._rest_s, self._end_rest, key, rested)

    def _end_rest(self, key: Hashable, rested: asyncio.Event) -> None:
        rested.set()
        if self._rests.get(key) is rested:
            del self._rests[key]
