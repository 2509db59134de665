"""Binary search for the first sequence of a stream at or after a timestamp.

In: a bus, a stream, a subject. Out: a sequence.
"""

from collections.abc import Callable

from bulkhead.bus.port import Bus, StoredMessage


def stored_at(stored: StoredMessage) -> int:
    """When a stream took a message; in one that was made again, that is when it was made again."""
    return stored.time_unix_ms


async def last_before(
    bus: Bus, stream: str, subject: str, unix_ms: int, end: int, time_of: Callable[[StoredMessage], int] = stored_at
) -> int:
    """The last sequence, `end` at most, up to which all of a subject is older than a time. Raises BusError."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        page = await bus.read(stream, subject, after=middle, limit=1)
        if not page or time_of(page[0]) >= unix_ms:
            high = middle
        else:
            low = page[0].sequence
    return min(low, high)
