"""Long loops that let others have their turn: the process that sums what was spent also admits calls.

In: items. Out: the same items, with a pause after each TURN of them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

TURN = 500
"""Items that are looked through before admissions are answered."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, which may not change meanwhile; between two turns whatever else is ready in this process runs."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)
