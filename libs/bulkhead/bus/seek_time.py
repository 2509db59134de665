"""Binary search for the first sequence of a stream at or after a timestamp.

In: a bus, a stream, a subject. Out: a sequence.
"""

from collections.abc import Callable

from bulkhead.bus.port import Bus, Stored


def stored_at(stored: Stored) -> int:
    """When a stream took a message; in one that was made again, that is when it was made again."""
    return stored.time_unix_ms


async def last_before(
    bus: Bus, stream: str, subject: str, unix_ms: int, end: int, time_of: Callable[[Stored], int] = stored_at
) -> int:
    """The last sequence, `end` at most, up to which all of a subject is older than a time. Raises BusError."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        found = await bus.read(stream, subject, after=middle, limit=1)
        if not found or time_of(found[0]) >= unix_ms:
            high = middle
        else:
            low = found[0].sequence
    return min(low, high)
