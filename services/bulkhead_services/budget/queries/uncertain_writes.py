"""Which writes of a task may or may not have been done, for people who ask: its messages in the journal are read.

In: WritesRequested (rpc, from the gateway, which knows that the asker may read this task). Out: WritesReplied. Answered
when the journal has what lay in the inboxes when it was asked: a reply that it lacks would make a write doubtful.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TypeVar

from bulkhead.bus.port import Bus, BusError, Stored
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.uncertain_writes import Write, origin_of, unknown
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.bounds import MAX_WRITES_BYTES, MAX_WRITES_LISTED, WRITES_TIMEOUT_MS
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import facts
from bulkhead_contracts.tool import ToolCallRequested, UncertainWrite, WritesReplied
from bulkhead_contracts.types import Body

R = TypeVar("R")
PAGE = 64
"""Small: admissions are answered between two pages."""
PAUSE_S = 0.05
MAX_MESSAGES = 20_000
AT_ONCE = 2
"""Requests of two tenants at a time: neither waits for the whole of the other's."""
MAX_WAITING = 16
"""Requests of one tenant that may wait."""
HEARD = ("gateway", "planner", "worker", "tool_executor")
"""Inboxes that hold what it is made of: end, plan and tools, replies, calls."""


@dataclass(frozen=True, slots=True)
class Fact:
    """As `doubtful.Told`."""

    body: Body | None
    id: str
    at_unix_ms: int
    tenant: str
    task: str
    origin: str


class TooMuch(Exception):
    """More messages than one answer is made of."""


# Pure


def said(stored: list[Stored]) -> list[Fact]:
    """A task's facts, by the times of their authors: a journal that was made again has another order. Raises Unreadable
    for what only a newer budget can read."""
    found: list[Fact] = []
    for one in stored:
        try:
            message = inbound.read(one, one.subject.split(".")[2])
        except Unreadable as error:
            if error.later:
                raise
            continue  # Nobody took it for anything either.
        head = message.envelope
        origin = origin_of(head.grant) if isinstance(message.body, ToolCallRequested) else ""
        found += [
            Fact(body, head.id, head.time_unix_ms, message.tenant, message.task, origin) for body in facts(message.body)
        ]
    return sorted(found, key=lambda one: one.at_unix_ms)


def listed(writes: list[Write]) -> WritesReplied:
    """As many as there is room for."""
    room, rows = MAX_WRITES_BYTES, []
    for one in writes[:MAX_WRITES_LISTED]:
        room -= len(one.arguments_json.encode())
        if room < 0:
            break
        rows.append(UncertainWrite(**asdict(one)))
    return WritesReplied(writes=tuple(rows), more=len(writes) - len(rows))


# The streams


class TaskJournal:
    """Reads what the journal has of a task, for one question of a tenant after the other."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def facts(self, message: Received) -> list[Fact] | Failure:
        """The facts of the asker's task; why they cannot be had."""

        async def read() -> list[Fact]:
            await self._caught_up(HEARD)
            return said(await self._read(message.tenant, message.task))

        return await self._held(message, read)

    async def page(self, message: Received, after: int) -> list[Stored] | Failure:
        """The next messages of the asker's task, at most one page; the first is had when the journal has what lay in
        all inboxes."""

        async def read() -> list[Stored]:
            if not after:
                await self._caught_up(catalog.INBOXES)
            return await self._bus.read(
                subjects.JOURNAL_STREAM, _subject_of(message.tenant, message.task), after=after, limit=PAGE
            )

        return await self._held(message, read)

    async def _held(self, message: Received, read: Callable[[], Awaitable[R]]) -> R | Failure:
        if self._places.waiting(message.tenant) >= MAX_WAITING:
            return Failure.of("busy", "others ask the same of other tasks at the same time", "ask again in a moment")
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(WRITES_TIMEOUT_MS / 1_000 * 0.8), self._places.held(message.tenant):
                return await read()
        except TimeoutError:
            return Failure.of("unavailable", "the journal lags behind the inboxes", "ask again in a moment")
        except TooMuch:
            what = f"the task has more than {MAX_MESSAGES:,} messages"
            return Failure.of("too_much", what, f"`bulkhead why {message.task}` looks through all of them")
        except BusError as error:
            return Failure.of("unavailable", f"the journal cannot be read: {error}", "ask again in a moment")
        except Unreadable as error:
            return Failure.of(
                "unavailable", f"a fact cannot be read: {error.reason}", "start the newer version of budget"
            )

    async def _caught_up(self, inboxes: Iterable[str]) -> None:
        """Raises BusError."""
        heads = {one: await self._bus.last_sequence(subjects.inbox_stream(one)) for one in inboxes}
        while behind := [one for one, head in heads.items() if head > await self._reached(one)]:
            heads = {one: heads[one] for one in behind}
            await asyncio.sleep(PAUSE_S)

    async def _reached(self, inbox: str) -> int:
        """How far the journal has read an inbox."""
        found = await self._bus.last(subjects.JOURNAL_STREAM, f"mesh.*.{inbox}.>")
        return at_its_source(found).sequence if found is not None else 0

    async def _read(self, tenant: str, task: str) -> list[Stored]:
        found: list[Stored] = []
        subject = _subject_of(tenant, task)
        while page := await self._bus.read(
            subjects.JOURNAL_STREAM, subject, limit=PAGE, after=found[-1].sequence if found else 0
        ):
            found += page
            if len(found) > MAX_MESSAGES:
                raise TooMuch
        return found


def _subject_of(tenant: str, task: str) -> str:
    return f"mesh.*.*.{subjects.partition_of(task)}.{subjects.token(tenant)}.{subjects.token(task)}"


class WriteBook(TaskJournal):
    """Answers which writes of a task are in doubt."""

    async def answer(self, message: Received) -> WritesReplied:
        """Look through the journal of the asker's task."""
        told = await self.facts(message)
        return WritesReplied(failure=told) if isinstance(told, Failure) else listed(unknown(told))
