"""A reader of the journal, which lags behind the inboxes and may be rebuilt with new numbers.

In: the broker under the operator's identity. Out: messages in journal order (a task's of one that was made again: as
they were said), all of one journal, with everything that the inboxes had when the reading began.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from bulkhead.bus.port import Bus, BusUnavailable, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.journal.order import in_publication_order, published_unix_ms
from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead.runtime.decider.history import at_its_source, source_of
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import catalog, subjects

BATCH = 256
MAX_MESSAGES = 100_000
PATIENCE_S = 10.0
"""So long a reader waits for a journal that lags or is being made again."""
PAUSE_S = 0.1
SLACK_MS = 300_000
"""So long before and after what is known of a task its reservations are looked for: clocks differ, and a publish that
is tried again is stored late."""
EVERY_TASK = "*.*.*.*"


class JournalBehind(BusUnavailable):
    """The journal lags behind the inboxes, or was rebuilt while it was read; the message says what to do."""


class JournalRenumbered(Exception):
    """The journal was rebuilt with other numbers: begin again."""


async def read_journal(
    bus: Bus, task: str, *, whole: bool = True, reservations: bool = True, as_it_lies: bool = False
) -> list[StoredMessage]:
    """All stored messages of a task, from every service, in journal order and with the journal's times; those of a
    rebuilt journal in the order of their publication and with the inboxes' times. Raises BusError.

    whole: wait until the journal has everything that the inboxes have, and raise JournalBehind when that takes long.
    reservations: also those that share a message with others, for which all later ones of the tenant are read.
    as_it_lies: in journal order and with its times, even of a rebuilt one.
    """
    place = place_of(task)
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        messages: list[StoredMessage] = []
        try:
            if whole:
                await wait_until_caught_up(bus, place)
            async for page in read_pages(bus, f"mesh.*.*.{place}"):
                messages += page
                if len(messages) >= MAX_MESSAGES:
                    break
            if reservations:
                messages = await _add_reservations(bus, task, messages, whole=whole)
            return messages if as_it_lies else await in_publication_order(bus, place, messages)
        except JournalBehind:
            raise
        except (JournalRenumbered, BusUnavailable) as error:
            if asyncio.get_running_loop().time() > deadline:
                reason = "the journal is made again and again" if isinstance(error, JournalRenumbered) else str(error)
                raise JournalBehind(_lag_message(reason)) from None
            await asyncio.sleep(PAUSE_S)


def place_of(task: str, tenant: str = "*") -> str:
    """Place of a task in subjects: its partition, tenant and id, and any key."""
    return f"{subjects.partition_of(task)}.{tenant}.{subjects.check_token(task)}.*"


async def _add_reservations(bus: Bus, task: str, messages: list[StoredMessage], *, whole: bool) -> list[StoredMessage]:
    """The messages with the reservations that share a message with the tenant's others. Raises as `read_pages` does.

    Reservations are found by their time of publication, not by position: a rebuilt journal has one inbox behind
    the other, and storage times of its own.
    """
    reservations: list[StoredMessage] = []
    times = [published_unix_ms(message) for message in messages]
    for tenant in {message.tenant for message in messages}:
        book = packed_facts.batch_subject(tenant)
        if whole:
            await wait_until_caught_up(bus, ".".join(book.split(".")[3:]), ("journal",))
        newest = await bus.last(subjects.JOURNAL_STREAM, book)
        if newest is None:
            continue
        begin = await last_before(
            bus, subjects.JOURNAL_STREAM, book, min(times) - SLACK_MS, newest.sequence, published_unix_ms
        )
        async for page in read_pages(bus, book, after=begin):
            reservations += [
                replace(
                    stored,
                    subject=subjects.mesh_subject(fact.sender, fact.receiver, fact.tenant, fact.task),
                    headers={**stored.headers, **fact.envelope.to_headers()},
                    body=fact.body.encode(),
                )
                for stored in page
                for fact in facts_of(stored)
                if fact.task == task
            ]
            if published_unix_ms(page[-1]) > max(times) + SLACK_MS or len(reservations) >= MAX_MESSAGES:
                break
    return sorted((*messages, *reservations), key=lambda one: one.sequence) if reservations else messages


def facts_of(stored: StoredMessage) -> list[inbound.ReceivedMessage]:
    """The facts of one stored message of the journal; none of what cannot be read."""
    try:
        return list(packed_facts.unpack_facts(inbound.read_message(stored, "journal")))
    except Unreadable:
        return []


async def read_pages(bus: Bus, subject: str, after: int = 0) -> AsyncIterator[list[StoredMessage]]:
    """Pages of the journal for a subject, from a sequence on. Raises JournalRenumbered, BusError."""
    last: StoredMessage | None = None
    while True:
        # Each page begins with the end of the one before: in another journal something else stands there.
        after = last.sequence - 1 if last is not None else after
        page = await bus.read(subjects.JOURNAL_STREAM, subject, after=after, limit=BATCH)
        if last is not None:
            if not page or _message_identity(page[0]) != _message_identity(last):
                raise JournalRenumbered
            page = page[1:]
        if not page:
            return
        yield page
        last = page[-1]


async def wait_until_caught_up(bus: Bus, place: str = EVERY_TASK, inboxes: Sequence[str] = catalog.INBOXES) -> None:
    """Return when the journal has what lies in the inboxes now: of a task (see place_of) or all. Raises
    JournalBehind, BusError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    heads = await _inbox_heads(bus, place, inboxes)
    while True:
        try:
            if not (behind := await _describe_lag(bus, heads)):
                return
        except BusUnavailable:
            # Dropped, and not yet made.
            behind = "the journal cannot be read"
        if loop.time() > deadline:
            raise JournalBehind(_lag_message(behind))
        await asyncio.sleep(PAUSE_S)


async def _inbox_heads(bus: Bus, place: str, inboxes: Sequence[str]) -> dict[str, int]:
    """The number of the last message in each inbox that has one."""

    async def last_number(name: str) -> int:
        newest = await bus.last(subjects.inbox_stream(name), f"mesh.*.{name}.{place}")
        return newest.sequence if newest is not None else 0

    numbers = await asyncio.gather(*(last_number(name) for name in inboxes))
    return {name: number for name, number in zip(inboxes, numbers, strict=True) if number}


async def _describe_lag(bus: Bus, wanted: Mapping[str, int]) -> str:
    """The inbox that the journal has not read so far, in words; "" when there is none."""

    async def last_read_number(name: str) -> int:
        newest = await bus.last(subjects.JOURNAL_STREAM, f"mesh.*.{name}.>")
        return at_its_source(newest).sequence if newest is not None else 0

    numbers = await asyncio.gather(*(last_read_number(name) for name in wanted))
    for (name, head), number in zip(wanted.items(), numbers, strict=True):
        if number < head:
            return f"the journal has read {subjects.inbox_stream(name)} up to number {number}, and {head} is wanted"
    return ""


def _message_identity(stored: StoredMessage) -> tuple[int, str, str]:
    return stored.sequence, stored.subject, source_of(stored)


def _lag_message(what: str) -> str:
    return f"{what}: it lags, or is being made again of the inboxes; try again in a moment"
