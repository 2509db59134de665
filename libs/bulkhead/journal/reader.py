"""A reader of the journal, which lags behind the inboxes and may be rebuilt with new numbers.

In: the broker under the operator's identity. Out: messages in journal order (a task's of one that was made again: as
they were said), all of one journal, with everything that the inboxes had when the reading began.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from bulkhead.bus.port import Bus, BusUnavailable, Stored
from bulkhead.bus.seek_time import last_before
from bulkhead.journal.order import as_said, said_at
from bulkhead.runtime.consume import batched_reservations, inbound
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
EVERYTHING = "*.*.*"


class JournalBehind(BusUnavailable):
    """The journal lags behind the inboxes, or was rebuilt while it was read; the message says what to do."""


class Renumbered(Exception):
    """The journal was rebuilt with other numbers: begin again."""


async def read_journal(
    bus: Bus, task: str, *, whole: bool = True, reservations: bool = True, as_it_lies: bool = False
) -> list[Stored]:
    """All stored messages of a task, from every service, in journal order and with the journal's times; those of a
    rebuilt journal in the order of their publication and with the inboxes' times. Raises BusError.

    whole: wait until the journal has everything that the inboxes have, and raise JournalBehind when that takes long.
    reservations: also those that share a message with others, for which all later ones of the tenant are read.
    as_it_lies: in journal order and with its times, even of a rebuilt one.
    """
    place = place_of(task)
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        found: list[Stored] = []
        try:
            if whole:
                await caught_up(bus, place)
            async for page in pages(bus, f"mesh.*.*.{place}"):
                found += page
                if len(found) >= MAX_MESSAGES:
                    break
            if reservations:
                found = await _with_reservations(bus, task, found, whole=whole)
            return found if as_it_lies else await as_said(bus, place, found)
        except JournalBehind:
            raise
        except (Renumbered, BusUnavailable) as error:
            if asyncio.get_running_loop().time() > deadline:
                what = "the journal is made again and again" if isinstance(error, Renumbered) else str(error)
                raise JournalBehind(_todo(what)) from None
            await asyncio.sleep(PAUSE_S)


def place_of(task: str, tenant: str = "*") -> str:
    """Where a task stands in subjects: its partition, tenant and id."""
    return f"{subjects.partition_of(task)}.{tenant}.{subjects.token(task)}"


async def _with_reservations(bus: Bus, task: str, found: list[Stored], *, whole: bool) -> list[Stored]:
    """The messages with the reservations that share a message with the tenant's others. Raises as `pages` does.

    Reservations are found by their time of publication, not by position: a rebuilt journal has one inbox behind the
    other, and storage times of its own.
    """
    more: list[Stored] = []
    times = [said_at(one) for one in found]
    for tenant in {one.tenant for one in found}:
        book = batched_reservations.subject(tenant)
        if whole:
            await caught_up(bus, ".".join(book.split(".")[3:]), ("journal",))
        newest = await bus.last(subjects.JOURNAL_STREAM, book)
        if newest is None:
            continue
        begin = await last_before(bus, subjects.JOURNAL_STREAM, book, min(times) - SLACK_MS, newest.sequence, said_at)
        async for page in pages(bus, book, after=begin):
            more += [
                replace(
                    stored,
                    subject=subjects.mesh(fact.sender, fact.receiver, fact.tenant, fact.task),
                    headers={**stored.headers, **fact.envelope.headers()},
                    body=fact.body.encode(),
                )
                for stored in page
                for fact in parts(stored)
                if fact.task == task
            ]
            if said_at(page[-1]) > max(times) + SLACK_MS or len(more) >= MAX_MESSAGES:
                break
    return sorted((*found, *more), key=lambda one: one.sequence) if more else found


def parts(stored: Stored) -> list[inbound.Received]:
    """The facts of one stored message of the journal; none of what cannot be read."""
    try:
        return list(batched_reservations.each(inbound.read(stored, "journal")))
    except Unreadable:
        return []


async def pages(bus: Bus, subject: str, after: int = 0) -> AsyncIterator[list[Stored]]:
    """What the journal holds of a subject, from a sequence on. Raises Renumbered, BusError."""
    last: Stored | None = None
    while True:
        # Each page begins with the end of the one before: in another journal something else stands there.
        after = last.sequence - 1 if last is not None else after
        page = await bus.read(subjects.JOURNAL_STREAM, subject, after=after, limit=BATCH)
        if last is not None:
            if not page or _identity(page[0]) != _identity(last):
                raise Renumbered
            page = page[1:]
        if not page:
            return
        yield page
        last = page[-1]


async def caught_up(bus: Bus, place: str = EVERYTHING, inboxes: Sequence[str] = catalog.INBOXES) -> None:
    """Return when the journal has what lies in the inboxes now: of a task (partition, tenant, id) or all. Raises
    JournalBehind, BusError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    wanted = await _heads(bus, place, inboxes)
    while True:
        try:
            if not (behind := await _behind(bus, wanted)):
                return
        except BusUnavailable:
            # Dropped, and not yet made.
            behind = "the journal cannot be read"
        if loop.time() > deadline:
            raise JournalBehind(_todo(behind))
        await asyncio.sleep(PAUSE_S)


async def _heads(bus: Bus, place: str, inboxes: Sequence[str]) -> dict[str, int]:
    """The number of the last message in each inbox that has one."""

    async def head(name: str) -> int:
        found = await bus.last(subjects.inbox_stream(name), f"mesh.*.{name}.{place}")
        return found.sequence if found is not None else 0

    numbers = await asyncio.gather(*(head(name) for name in inboxes))
    return {name: number for name, number in zip(inboxes, numbers, strict=True) if number}


async def _behind(bus: Bus, wanted: Mapping[str, int]) -> str:
    """Of which inbox the journal has not read so far; "" when of none."""

    async def reached(name: str) -> int:
        found = await bus.last(subjects.JOURNAL_STREAM, f"mesh.*.{name}.>")
        return at_its_source(found).sequence if found is not None else 0

    numbers = await asyncio.gather(*(reached(name) for name in wanted))
    for (name, head), number in zip(wanted.items(), numbers, strict=True):
        if number < head:
            return f"the journal has read {subjects.inbox_stream(name)} up to number {number}, and {head} is wanted"
    return ""


def _identity(stored: Stored) -> tuple[int, str, str]:
    return stored.sequence, stored.subject, source_of(stored)


def _todo(what: str) -> str:
    return f"{what}: it lags, or is being made again of the inboxes; try again in a moment"
