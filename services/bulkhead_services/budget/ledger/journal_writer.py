"""How facts of reservations come into the journal: one by one at rest, under load those of a tenant together.

In: a fact. Out: it is stored and acked; or the error of whoever stores. A few are under way at a time. What comes
meanwhile waits, and whatever of one tenant waits when one of them is done is stored as one message: so a lone
reservation waits for nobody, and under load one write to the disk is shared by many.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from bulkhead.runtime.consume import batched_reservations
from bulkhead.runtime.publish.publisher import Publisher, Ready
from bulkhead.telemetry import trace
from bulkhead_contracts import envelope
from bulkhead_contracts.bounds import MAX_MESSAGE_BYTES, MAX_RESERVED_TOGETHER, MAX_SUMMARY_CHARS
from bulkhead_contracts.budget import Reserved, ReservedRow, ReservedTogether
from bulkhead_services.budget.ledger.rebuild import JOURNAL

AT_ONCE = 4
"""Messages under way: a squad of a few agents finds each of its facts in its task. More of them are no faster, for one
stream is written by one hand."""

ALONE_AT_ONCE = 64


class Fact(NamedTuple):
    """A reservation that is held, as the journal is to have it. index: with the cause it makes the message's id.

    ready: the message that it is when it is stored alone, where that was made already.
    """

    tenant: str
    task: str
    body: Reserved
    cause: str
    index: str
    actor: str = ""
    grant_digest: str = ""
    ready: Ready | None = None


@dataclass(slots=True)
class _Wanted:
    """done: of everybody who waits for this fact. traceparent: of who asked first."""

    id: str
    fact: Fact
    traceparent: str = ""
    done: list["asyncio.Future[None]"] = field(default_factory=list)


class Appender:
    """Of one replica."""

    def __init__(self, publisher: Publisher, *, alone: bool = False) -> None:
        """alone: every fact is a message of its own, however many wait."""
        self._publisher = publisher
        self._at_once, self._together = (ALONE_AT_ONCE, 1) if alone else (AT_ONCE, MAX_RESERVED_TOGETHER)
        self._wanted: dict[str, _Wanted] = {}
        self._waiting: dict[str, list[_Wanted]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Nothing is under way: what comes now is stored alone."""
        return not self._under_way

    def made(self, fact: Fact) -> Fact:
        """With its message made, for who has the time now and not later."""
        return fact._replace(ready=self._alone(fact, trace.current_traceparent()))

    def _alone(self, fact: Fact, traceparent: str) -> Ready:
        head = self._publisher.envelope(
            fact.body,
            cause=fact.cause,
            index=fact.index,
            actor=fact.actor,
            grant_digest=fact.grant_digest,
            traceparent=traceparent,
        )
        return self._publisher.ready(JOURNAL, fact.body, head, tenant=fact.tenant, task=fact.task)

    async def store(self, fact: Fact) -> None:
        """Return when it is stored. Raises BusError: whether it is stored is unknown."""
        name = envelope.derive_id(self._publisher.service, fact.cause, fact.index)
        wanted = self._wanted.get(name)
        if wanted is None:
            wanted = self._wanted[name] = _Wanted(name, fact, trace.current_traceparent())
            self._waiting.setdefault(fact.tenant, []).append(wanted)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wanted.done.append(done)
        self._go_on()
        await done

    def _go_on(self) -> None:
        """As many messages as may be under way; tenants take turns."""
        while self._waiting and len(self._under_way) < self._at_once:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            some = _first(waiting, self._together)
            if rest := waiting[len(some) :]:
                self._waiting[tenant] = rest
            # In a context of its own: what is stored may be another tenant's than who comes by here.
            task = asyncio.create_task(self._store(some), context=Context())
            self._under_way.add(task)
            task.add_done_callback(partial(self._ended, some))

    async def _store(self, some: Sequence[_Wanted]) -> None:
        if len(some) == 1:
            fact = some[0].fact
            # The id derives from the reservation and the ledger: a repeat is the same message, the broker keeps one.
            await self._publisher.put(fact.ready or self._alone(fact, some[0].traceparent))
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
            traceparent=some[0].traceparent,
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
    return ReservedRow(
        id=wanted.id,
        cause=fact.cause,
        task=fact.task,
        actor=fact.actor,
        grant_digest=fact.grant_digest,
        reserved=fact.body,
    )
