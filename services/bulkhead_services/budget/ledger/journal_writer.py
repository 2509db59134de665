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

from bulkhead.runtime.consume import packed_facts
from bulkhead.runtime.publish.publisher import OutgoingMessage, Publisher
from bulkhead_contracts import envelope
from bulkhead_contracts.bounds import MAX_MESSAGE_BYTES, MAX_RESERVED_TOGETHER, MAX_SUMMARY_CHARS, UNLIMITED
from bulkhead_contracts.budget import ReservedRow, ReservedTogether, ReserveRequested
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import facts
from bulkhead_services.budget.ledger.checkpoint import JOURNAL
from bulkhead_services.budget.ledger.model import ReservationHeld

AT_ONCE = 4
"""Messages under way: a squad of a few agents finds each of its facts in its task. More of them are no faster, for one
stream is written by one hand."""


@dataclass(slots=True)
class ReservationFact:
    """A reservation that is held, as the journal is to have it. index: with the cause it makes the message's id.

    traceparent: of the ask. ahead: of the calls that follow, which are held with it. ready: the message that it is when
    it is stored alone, once it was made.
    """

    tenant: str
    task: str
    service: str
    ask: ReserveRequested
    held: ReservationHeld
    cause: str
    index: str
    actor: str = ""
    grant_digest: str = ""
    traceparent: str = ""
    ahead: tuple["ReservationFact", ...] = ()
    ready: OutgoingMessage | None = None

    @property
    def bounds_time(self) -> bool:
        """True where a limit of wall time stands in an account."""
        return any(scope.limit.wall_ms < UNLIMITED for scope in self.held.scopes)

    @property
    def message_index(self) -> str:
        """The index of the message: one that tells more is another message."""
        return f"{self.index}+{len(self.ahead)}" if self.ahead else self.index

    def build_rows(self, emitter: str) -> tuple[ReservedRow, ...]:
        """Rows of a message that has others, too. emitter: whose facts they are."""
        row = ReservedRow(
            id=envelope.derive_id(emitter, self.cause, self.index),
            cause=self.cause,
            task=self.task,
            actor=self.actor,
            grant_digest=self.grant_digest,
            reserved=facts.reserved_fact(self.service, self.ask, self.held),
        )
        return (row, *(row for fact in self.ahead for row in fact.build_rows(emitter)))

    def build_message(self, publisher: Publisher) -> OutgoingMessage:
        """The message, made once."""
        if self.ready is None:
            body: Body = facts.reserved_fact(self.service, self.ask, self.held)
            if self.ahead:
                body = ReservedTogether(rows=self.build_rows(publisher.service))
            head = publisher.make_envelope(
                body,
                cause=self.cause,
                index=self.message_index,
                actor=self.actor,
                grant_digest=self.grant_digest,
                traceparent=self.traceparent,
            )
            self.ready = publisher.make_message(JOURNAL, body, head, tenant=self.tenant, task=self.task)
        return self.ready


@dataclass(slots=True)
class _PendingFact:
    """done: of every attempt that waits for this fact, which is that of the first."""

    id: str
    fact: ReservationFact
    done: list["asyncio.Future[None]"] = field(default_factory=list)


class FactAppender:
    """One replica's writer."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._wanted: dict[str, _PendingFact] = {}
        self._waiting: dict[str, list[_PendingFact]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._ahead: ReservationFact | None = None

    def prepare_ahead(self, fact: ReservationFact) -> None:
        """Make a fact's message before it is known whether it is stored. Only the last one that was made so counts."""
        self._ahead = fact
        fact.build_message(self._publisher)

    def schedule_if_idle(self, prepare: Callable[..., object], *args: object) -> None:
        """Do this in the turn after the next one, when the request that the caller is about to send is on its way; not
        at all under load, when there is no pause to fill."""
        if not self._under_way:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, prepare, *args)

    async def store_fact(self, fact: ReservationFact) -> None:
        """Return when it is stored. Raises BusError: whether it is stored is unknown."""
        ahead, self._ahead = self._ahead, None
        if ahead is not fact:
            fact.ready = None
        fact_id = envelope.derive_id(self._publisher.service, fact.cause, fact.message_index)
        pending = self._wanted.get(fact_id)
        if pending is None:
            pending = self._wanted[fact_id] = _PendingFact(fact_id, fact)
            self._waiting.setdefault(fact.tenant, []).append(pending)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending.done.append(done)
        self._start_writes()
        await done

    def _start_writes(self) -> None:
        """Start as many messages as may be under way; tenants take turns."""
        while self._waiting and len(self._under_way) < AT_ONCE:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            batch = _first_batch(waiting, MAX_RESERVED_TOGETHER) if len(waiting) > 1 else waiting
            if remaining := waiting[len(batch) :]:
                self._waiting[tenant] = remaining
            # In a context of its own: what is stored may be another tenant's than who comes by here.
            task = asyncio.create_task(self._store_batch(batch), context=Context())
            self._under_way.add(task)
            task.add_done_callback(partial(self._on_write_done, batch))

    async def _store_batch(self, batch: Sequence[_PendingFact]) -> None:
        if len(batch) == 1:
            # The id derives from the reservation and the ledger: a repeat is the same message, the broker keeps one.
            await self._publisher.put_message(batch[0].fact.build_message(self._publisher))
            return
        emitter = self._publisher.service
        body = ReservedTogether(rows=tuple(row for pending in batch for row in pending.fact.build_rows(emitter)))
        if len(body.encode()) > MAX_MESSAGE_BYTES:
            half = len(batch) // 2
            await self._store_batch(batch[:half])
            await self._store_batch(batch[half:])
            return
        await self._publisher.send(
            JOURNAL,
            body,
            tenant=packed_facts.LEDGER_TENANT,
            task=batch[0].fact.tenant,
            cause=batch[0].fact.cause,
            index=f"together/{'/'.join(pending.id for pending in batch)}",
            traceparent=batch[0].fact.traceparent,
        )

    def _on_write_done(self, batch: Sequence[_PendingFact], task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        for pending in batch:
            del self._wanted[pending.id]
            for done in pending.done:
                if done.done():
                    continue  # Who asked has gone.
                if task.cancelled():
                    done.cancel()
                elif error is not None:
                    done.set_exception(error)
                else:
                    done.set_result(None)
        self._start_writes()


def _first_batch(waiting: Sequence[_PendingFact], max_facts: int) -> Sequence[_PendingFact]:
    """The facts that one message takes: as much as fits, or the first alone where it does not fit into a row."""
    rows = 0
    for count, pending in enumerate(waiting):
        rows += 1 + len(pending.fact.ahead)
        if rows > max_facts or not _fits_row(pending.fact):
            return waiting[: max(1, count)]
    return waiting


def _fits_row(fact: ReservationFact) -> bool:
    """True unless headers are too long: a doer's have no bound of their own, and must not keep others' facts
    from being stored.
    """
    return max(map(len, (fact.cause, fact.actor, fact.grant_digest))) <= MAX_SUMMARY_CHARS
