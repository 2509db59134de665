"""Messages of a stream one after another, read page by page.

In: a bus, a stream, a subject. Out: what is stored, in its order, to the end that the stream has when it is reached.
"""

from collections.abc import AsyncIterator

from bulkhead.bus.port import Bus, StoredMessage


async def stored_messages(
    bus: Bus, stream: str, subject: str, *, after: int = 0, page_size: int = 256
) -> AsyncIterator[StoredMessage]:
    """Messages of a subject filter behind a sequence. Raises BusError."""
    while page := await bus.read(stream, subject, after=after, limit=page_size):
        for stored in page:
            yield stored
        after = page[-1].sequence
