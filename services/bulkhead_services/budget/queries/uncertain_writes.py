"""Which writes of a task may or may not have been done, for people who ask: its messages in the journal are read.

In: WritesRequested (rpc, from the gateway, which knows that the asker may read this task). Out: WritesReplied. Answered
when the journal has what lay in the inboxes when it was asked: a reply that it lacks would make a write doubtful.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TypeVar

from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.journal.uncertain_writes import Write, find_uncertain_writes, origin_of
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.bounds import MAX_WRITES_BYTES, MAX_WRITES_LISTED, WRITES_TIMEOUT_MS
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import list_facts
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
class TaskFact:
    """Fields of `doubtful.Told`."""

    body: Body | None
    id: str
    at_unix_ms: int
    tenant: str
    task: str
    origin: str


class TooManyTaskMessages(Exception):
    """More messages than one answer is made of."""


# Pure


def facts_of(stored: list[StoredMessage]) -> list[TaskFact]:
    """A task's facts, by the times of their authors: a journal that was made again has another order. Raises Unreadable
    for what only a newer budget can read."""
    task_facts: list[TaskFact] = []
    for raw_message in stored:
        try:
            message = inbound.read_message(raw_message, raw_message.subject.split(".")[2])
        except Unreadable as error:
            if error.later:
                raise
            continue  # Nobody took it for anything either.
        head = message.envelope
        origin = origin_of(head.grant) if isinstance(message.body, ToolCallRequested) else ""
        task_facts += [
            TaskFact(body, head.id, head.time_unix_ms, message.tenant, message.task, origin)
            for body in list_facts(message.body)
        ]
    return sorted(task_facts, key=lambda one: one.at_unix_ms)


def writes_reply(writes: list[Write]) -> WritesReplied:
    """Writes, as room allows."""
    room, rows = MAX_WRITES_BYTES, []
    for write in writes[:MAX_WRITES_LISTED]:
        room -= len(write.arguments_json.encode())
        if room < 0:
            break
        rows.append(UncertainWrite(**asdict(write)))
    return WritesReplied(writes=tuple(rows), more=len(writes) - len(rows))


# The streams


class TaskJournal:
    """Reads what the journal has of a task, for one question of a tenant after the other."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def read_facts(self, message: ReceivedMessage) -> list[TaskFact] | Failure:
        """The facts of the asker's task; why they cannot be had."""

        async def read_all() -> list[TaskFact]:
            await self._wait_until_caught_up(HEARD)
            return facts_of(await self._read_task(message.tenant, message.task))

        return await self._read_in_turn(message, read_all)

    async def read_page(self, message: ReceivedMessage, after: int) -> list[StoredMessage] | Failure:
        """The next messages of the asker's task, at most one page; the first is had when the journal has what lay in
        all inboxes."""

        async def read_next() -> list[StoredMessage]:
            if not after:
                await self._wait_until_caught_up(catalog.INBOXES)
            return await self._bus.read(
                subjects.JOURNAL_STREAM, _subject_of(message.tenant, message.task), after=after, limit=PAGE
            )

        return await self._read_in_turn(message, read_next)

    async def _read_in_turn(self, message: ReceivedMessage, read: Callable[[], Awaitable[R]]) -> R | Failure:
        if self._places.count_waiting(message.tenant) >= MAX_WAITING:
            return Failure.from_text(
                "busy", "others ask the same of other tasks at the same time", "ask again in a moment"
            )
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(WRITES_TIMEOUT_MS / 1_000 * 0.8), self._places.hold_slot(message.tenant):
                return await read()
        except TimeoutError:
            return Failure.from_text("unavailable", "the journal lags behind the inboxes", "ask again in a moment")
        except TooManyTaskMessages:
            reason = f"the task has more than {MAX_MESSAGES:,} messages"
            return Failure.from_text("too_much", reason, f"`bulkhead why {message.task}` looks through all of them")
        except BusError as error:
            return Failure.from_text("unavailable", f"the journal cannot be read: {error}", "ask again in a moment")
        except Unreadable as error:
            return Failure.from_text(
                "unavailable", f"a fact cannot be read: {error.reason}", "start the newer version of budget"
            )

    async def _wait_until_caught_up(self, inboxes: Iterable[str]) -> None:
        """Raises BusError."""
        heads = {inbox: await self._bus.last_sequence(subjects.inbox_stream(inbox)) for inbox in inboxes}
        while behind := [inbox for inbox, head in heads.items() if head > await self._sequence_reached(inbox)]:
            heads = {inbox: heads[inbox] for inbox in behind}
            await asyncio.sleep(PAUSE_S)

    async def _sequence_reached(self, inbox: str) -> int:
        """Sequence up to which an inbox was read."""
        last_message = await self._bus.last(subjects.JOURNAL_STREAM, f"mesh.*.{inbox}.>")
        return at_its_source(last_message).sequence if last_message is not None else 0

    async def _read_task(self, tenant: str, task: str) -> list[StoredMessage]:
        messages: list[StoredMessage] = []
        subject = _subject_of(tenant, task)
        while page := await self._bus.read(
            subjects.JOURNAL_STREAM, subject, limit=PAGE, after=messages[-1].sequence if messages else 0
        ):
            messages += page
            if len(messages) > MAX_MESSAGES:
                raise TooManyTaskMessages
        return messages


def _subject_of(tenant: str, task: str) -> str:
    return f"mesh.*.*.{subjects.partition_of(task)}.{subjects.check_token(tenant)}.{subjects.check_token(task)}"


class UncertainWriteQuery(TaskJournal):
    """Answers which writes of a task are in doubt."""

    async def answer_writes(self, message: ReceivedMessage) -> WritesReplied:
        """Look through the journal of the asker's task."""
        task_facts = await self.read_facts(message)
        return (
            WritesReplied(failure=task_facts)
            if isinstance(task_facts, Failure)
            else writes_reply(find_uncertain_writes(task_facts))
        )
