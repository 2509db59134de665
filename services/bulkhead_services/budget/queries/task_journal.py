"""A task's messages in the journal, for people who ask: its doubtful writes, a cited call, all of them page by page.

In: WritesRequested, CitedCallRequested, TaskMessagesRequested (rpc, from the gateway, which knows that the asker may
read this task). Out: their replies, when the journal has what lay in the inboxes when it was asked: a reply that it
lacks would make a write doubtful. No message leaves with a grant that somebody could act under.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.journal.reader import place_of
from bulkhead.journal.uncertain_writes import find_uncertain_writes, origin_of
from bulkhead.journal.why.reason import Write
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.decider.history_secrets import GRANT, without_secrets
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.bounds import MAX_TOLD_BYTES, MAX_WRITES_BYTES, MAX_WRITES_LISTED, WRITES_TIMEOUT_MS
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import list_facts
from bulkhead_contracts.tool import (
    CitedCall,
    CitedCallReplied,
    CitedCallRequested,
    ToolCallReplied,
    ToolCallRequested,
    UncertainWrite,
    WritesReplied,
)
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
WRITE_INBOXES = ("gateway", "planner", "worker", "tool_executor")
"""Inboxes that hold what it is made of: end, plan and tools, replies, calls."""

FRAME_BYTES = 512
"""Of one message in a page, beside its headers and body."""


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


def find_cited_call(task_facts: Iterable[TaskFact], sha256: str) -> CitedCall | None:
    """The first call whose reply has this content."""
    requests: dict[str, TaskFact] = {}
    for fact in task_facts:
        body = fact.body
        if isinstance(body, ToolCallRequested):
            requests.setdefault(body.call_id, fact)
        elif isinstance(body, ToolCallReplied) and body.content is not None and body.content.sha256 == sha256:
            request = requests.get(body.call_id)
            if request is not None and isinstance(call := request.body, ToolCallRequested):
                same = {name: getattr(call, name) for name in ("step_id", "attempt", "tool", "arguments_json")}
                return CitedCall(asked_unix_ms=request.at_unix_ms, **same)
    return None


def messages_reply(page: Sequence[StoredMessage], *, keep_grants: bool = False) -> TaskMessagesReplied:
    """Messages of this page, as many as there is room for: always one at least, without its body where that is
    too large.
    """
    room, rows = MAX_TOLD_BYTES - FRAME_BYTES, list[ToldMessage]()
    for stored, bare in zip(page, without_secrets(list(page)), strict=True):
        headers = {
            name: value for name, value in bare.headers.items() if name != GRANT or keep_grants or _is_call(bare)
        }
        body, left_out = _decode_body(bare.body)
        size = FRAME_BYTES + len(json.dumps(headers)) + len(json.dumps(body))
        if size > room and not rows:
            left_out, body, size = len(stored.body), "", 0
        room -= size
        if room < 0:
            break
        rows.append(
            ToldMessage(
                sequence=stored.sequence,
                inbox_sequence=at_its_source(stored).sequence,
                stored_unix_ms=stored.time_unix_ms,
                sender=stored.sender,
                receiver=stored.receiver,
                key=stored.key,
                headers=headers,
                body=body,
                left_out_bytes=left_out,
            )
        )
    return TaskMessagesReplied(messages=tuple(rows), more=len(rows) < len(page) or len(page) == PAGE)


def _decode_body(body: bytes) -> tuple[str, int]:
    """The body, or how large one is that nobody can read."""
    try:
        return body.decode(), 0
    except UnicodeDecodeError:
        return "", len(body)


def _is_call(stored: StoredMessage) -> bool:
    """True for a call: its grant names the task under whose name a write's key is, a fork's."""
    return stored.ce_type.startswith(f"{ToolCallRequested.TYPE}.")


# The streams


class TaskJournalQuery:
    """Answers from the journal, one question of a tenant after the other."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def answer_writes(self, message: ReceivedMessage) -> WritesReplied:
        """Writes of the asker's task that are in doubt."""
        task_facts = await self._read_facts(message)
        if isinstance(task_facts, Failure):
            return WritesReplied(failure=task_facts)
        return writes_reply(find_uncertain_writes(task_facts))

    async def answer_cited_call(self, message: ReceivedMessage) -> CitedCallReplied:
        """The call of the asker's task that gave the content which an answer cites."""
        assert isinstance(message.body, CitedCallRequested)
        task_facts = await self._read_facts(message)
        if isinstance(task_facts, Failure):
            return CitedCallReplied(failure=task_facts)
        return CitedCallReplied(call=find_cited_call(task_facts, message.body.sha256))

    async def answer_task_messages(self, message: ReceivedMessage) -> TaskMessagesReplied:
        """The next page of the asker's task; the first is had when the journal has what lay in all inboxes."""
        body = message.body
        assert isinstance(body, TaskMessagesRequested)

        async def read_page() -> list[StoredMessage]:
            if not body.after:
                await self._wait_until_caught_up(catalog.INBOXES)
            subject = f"mesh.*.*.{place_of(message.task, message.tenant)}"
            return await self._bus.read(subjects.JOURNAL_STREAM, subject, after=body.after, limit=PAGE)

        page = await self._read_in_turn(message, read_page)
        if isinstance(page, Failure):
            return TaskMessagesReplied(failure=page)
        return messages_reply(page, keep_grants=body.claims)

    async def _read_facts(self, message: ReceivedMessage) -> list[TaskFact] | Failure:
        async def read_all() -> list[TaskFact]:
            await self._wait_until_caught_up(WRITE_INBOXES)
            return facts_of(await self._read_task(message.tenant, message.task))

        return await self._read_in_turn(message, read_all)

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
        subject = f"mesh.*.*.{place_of(task, tenant)}"
        async for stored in stored_messages(self._bus, subjects.JOURNAL_STREAM, subject, page_size=PAGE):
            messages.append(stored)
            if len(messages) > MAX_MESSAGES:
                raise TooManyTaskMessages
        return messages
