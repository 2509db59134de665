"""The writer of reservations' facts: one by one at rest, under load those of a tenant together.

In: a fact. Out: it is stored and acked; or the broker's error. A few messages are under way at a time. Facts that come
meanwhile wait, and those of one tenant are stored as one message as soon as a message is done: a lone reservation waits
for nobody, and under load many share one write to the disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial

from bulkhead.runtime.consume import batched_reservations
from bulkhead.runtime.publish.publisher import OutgoingMessage, Publisher
from bulkhead_contracts import envelope
from bulkhead_contracts.bounds import MAX_MESSAGE_BYTES, MAX_RESERVED_TOGETHER, MAX_SUMMARY_CHARS
from bulkhead_contracts.budget import ReservedRow, ReservedTogether, ReserveRequested
from bulkhead_services.budget.ledger import facts
from bulkhead_services.budget.ledger.model import Held
from bulkhead_services.budget.ledger.rebuild import JOURNAL

AT_ONCE = 4
"""Messages under way: a squad of a few agents finds each of its facts in its task. More of them are no faster, for one
stream is written by one hand."""


@dataclass(slots=True)
class Fact:
    """A reservation that is held, as the journal is to have it. index: with the cause it makes the message's id.

    traceparent: of the ask. ready: the message that it is when it is stored alone, once it was made.
    """

    tenant: str
    task: str
    service: str
    ask: ReserveRequested
    held: Held
    cause: str
    index: str
    actor: str = ""
    grant_digest: str = ""
    traceparent: str = ""
    ready: OutgoingMessage | None = None

    def message(self, publisher: Publisher) -> OutgoingMessage:
        """The message, made once."""
        if self.ready is None:
            body = facts.reserved(self.service, self.ask, self.held)
            head = publisher.envelope(
                body,
                cause=self.cause,
                index=self.index,
                actor=self.actor,
                grant_digest=self.grant_digest,
                traceparent=self.traceparent,
            )
            self.ready = publisher.ready(JOURNAL, body, head, tenant=self.tenant, task=self.task)
        return self.ready


@dataclass(slots=True)
class _Wanted:
    """done: of every attempt that waits for this fact, which is that of the first."""

    id: str
    fact: Fact
    done: list["asyncio.Future[None]"] = field(default_factory=list)


class Appender:
    """One replica's writer."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._wanted: dict[str, _Wanted] = {}
        self._waiting: dict[str, list[_Wanted]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._ahead: Fact | None = None

    def prepare(self, fact: Fact) -> None:
        """Make a fact's message before it is known whether it is stored. Only the last one that was made so counts."""
        self._ahead = fact
        fact.message(self._publisher)

    def meanwhile(self, make: Callable[..., object], *args: object) -> None:
        """Do this in the turn after the next one, when the request that the caller is about to send is on its way; not
        at all under load, when there is no pause to fill."""
        if not self._under_way:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, make, *args)

    async def store(self, fact: Fact) -> None:
        """Return when it is stored. Raises BusError: whether it is stored is unknown."""
        ahead, self._ahead = self._ahead, None
        if ahead is not fact:
            fact.ready = None
        name = envelope.derive_id(self._publisher.service, fact.cause, fact.index)
        wanted = self._wanted.get(name)
        if wanted is None:
            wanted = self._wanted[name] = _Wanted(name, fact)
            self._waiting.setdefault(fact.tenant, []).append(wanted)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wanted.done.append(done)
        self._go_on()
        await done

    def _go_on(self) -> None:
        """As many messages as may be under way; tenants take turns."""
        while self._waiting and len(self._under_way) < AT_ONCE:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            some = _first(waiting, MAX_RESERVED_TOGETHER) if len(waiting) > 1 else waiting
            if rest := waiting[len(some) :]:
                self._waiting[tenant] = rest
            # In a context of its own: what is stored may be another tenant's than who comes by here.
            task = asyncio.create_task(self._store(some), context=Context())
            self._under_way.add(task)
            task.add_done_callback(partial(self._ended, some))

    async def _store(self, some: Sequence[_Wanted]) -> None:
        if len(some) == 1:
            # The id derives from the reservation and the ledger: a repeat is the same message, the broker keeps one.
            await self._publisher.put(some[0].fact.message(self._publisher))
            return
        body = ReservedTogether(rows=tuple(_row(one) for one in some))
        if len(body.encode()) > MAX_MESSAGE_BYTES:
            half = len(some) // 2
            await self._store(some[:half])
            await self._store(some[half:])
            return
        await self._publisher.send(
            JOURNAL,
            body,
            tenant=batched_reservations.BOOK,
            task=some[0].fact.tenant,
            cause=some[0].fact.cause,
            index=f"together/{'/'.join(one.id for one in some)}",
            traceparent=some[0].fact.traceparent,
        )

    def _ended(self, some: Sequence[_Wanted], task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        for wanted in some:
            del self._wanted[wanted.id]
            for done in wanted.done:
                if done.done():
                    continue  # Who asked has gone.
                if task.cancelled():
                    done.cancel()
                elif error is not None:
                    done.set_exception(error)
                else:
                    done.set_result(None)
        self._go_on()


def _first(waiting: Sequence[_Wanted], most: int) -> Sequence[_Wanted]:
    """What one message takes: as much as fits, or the first alone where it does not fit into a row."""
    for count, one in enumerate(waiting[:most]):
        if not _fits(one.fact):
            return waiting[: max(1, count)]
    return waiting[:most]


def _fits(fact: Fact) -> bool:
    """What a doer says in its headers has no bound of its own, and must not keep others' facts from being stored."""
    return max(map(len, (fact.cause, fact.actor, fact.grant_digest))) <= MAX_SUMMARY_CHARS


def _row(wanted: _Wanted) -> ReservedRow:
    fact = wanted.fact
    reserved = facts.reserved(fact.service, fact.ask, fact.held)
    return ReservedRow(
        id=wanted.id,
        cause=fact.cause,
        task=fact.task,
        actor=fact.actor,
        grant_digest=fact.grant_digest,
        reserved=reserved,
    )
