"""The cost of a tenant's calls, by name: the sum of its facts in the streams, for people who ask.

In: SpendRequested (rpc, from the gateway, which established who asks); `Reserved` facts and `Settled` messages, in any
order and any number of times. Out: SpendReplied. A call counts for the moment in which it was admitted; what it cost is
its settlement, and until that is there its reservation is shown as held. Redis is not asked: the streams are the truth.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from bulkhead.bus.port import Bus, BusError, BusUnavailable, Stored
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import batched_reservations, inbound
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_SPEND_MESSAGES, MAX_TASK_DEADLINE_MS, SPEND_TIMEOUT_MS
from bulkhead_contracts.budget import Reserved, Settled, SpendReplied, SpendRequested, SpendRow, Spent
from bulkhead_contracts.result import Failure, Usage
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.rebuild import JOURNAL, JOURNAL_INBOX, SETTLED_INBOX
from bulkhead_services.budget.ledger.store import Fenced, RedisFailure, Store

log = Log("budget.spending")

MAY_READ = ("operator", "auditor")
"""Roles that see the spending of each person."""
MODELS = "model_gateway"
"""Its resources are models; those of others are tools and stores."""
HALTED = "halted"
KEPT_MS = MAX_TASK_DEADLINE_MS + 24 * 3600 * 1000
"""No retention of ended tasks is shorter."""
SLACK_MS = 60_000
"""A fact is stored later than it was made, by another machine's clock."""
PAGE = 64
"""Small: admissions are answered between two pages."""
AT_ONCE = 2
"""Requests of two tenants at a time: neither waits for the whole of the other's."""
MAX_WAITING = 4
"""Requests of one tenant that may wait."""
MAX_NAME_CHARS = 200
TAIL_READS, TAIL_PAUSE_S = 100, 0.05
_UNITS = tuple(Spent.model_fields)
_COUNTS = tuple(unit for unit in Spent.model_fields if unit in Usage.model_fields)


@dataclass(frozen=True, slots=True)
class Call:
    """One reservation, and the name that it counts under."""

    name: str
    ask: model.Sum
    at_unix_ms: int
    call: str = ""
    """The call that it was an attempt at, of one service and task."""


@dataclass(slots=True)
class Tally:
    """Calls and settlements by their keys. The functions below change it in place."""

    calls: dict[str, Call] = field(default_factory=dict)
    settled: dict[str, Settled] = field(default_factory=dict)


class TooMuch(Exception):
    """More messages than one answer is made of."""


# Pure


def name_of(by: str, service: str, tenant: str, task: str, fact: Reserved) -> str:
    """The name that a call counts under; "" where it has none of this kind."""
    if by == "tenant":
        return tenant
    if by == "task":
        return task
    if by == "step":
        return f"{task}/{fact.step_id}" if fact.step_id else ""
    if by == "model":
        return fact.resource if service == MODELS else ""
    for one in (*fact.scopes, *fact.more_scopes):
        # agent:<tenant>:<name>:<UTC day>
        kind, _, rest = one.scope.partition(":")
        if kind == by:
            return rest.partition(":")[2].rpartition(":")[0]
    return ""


def take(tally: Tally, message: Received, by: str) -> None:
    """A fact or a settlement; the first under a key counts, as in the ledger. Everything else changes nothing."""
    body = message.body
    if isinstance(body, Reserved):
        key = model.entry_key(body.service, message.tenant, message.task, body.reservation_id)
        name = name_of(by, body.service, message.tenant, message.task, body)[:MAX_NAME_CHARS]
        call = model.entry_key(body.service, message.tenant, message.task, body.call_id)
        tally.calls.setdefault(key, Call(name, model.sum_of(body.amount), body.reserved_unix_ms, call))
    elif isinstance(body, Settled):
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        tally.settled.setdefault(key, body)


def report(tally: Tally, by: str, since_unix_ms: int, until_unix_ms: int, top: int, slices: int = 0) -> SpendReplied:
    """The answer: every settlement of the time is in one row, in the rest, or late."""
    again, spent = _again(tally), dict[str, list[Spent]]()
    held: dict[str, list[Spent]] = {}
    parts, width_ms = [0] * slices, max(1, until_unix_ms - since_unix_ms)
    for key, call in tally.calls.items():
        if call.at_unix_ms >= since_unix_ms:
            settled = tally.settled.get(key)
            one = _held(call.ask) if settled is None else _spent(settled, call.ask, again.get(key, 0))
            (held if settled is None else spent).setdefault(call.name, []).append(one)
            if slices:
                part = (call.at_unix_ms - since_unix_ms) * slices // width_ms
                parts[min(part, slices - 1)] += one.cost_usd_micros  # A clock that is ahead tells the last one.
    rows = [
        SpendRow(name=name, spent=_sum(spent.get(name, ())), held=_sum(held.get(name, ())))
        for name in {**spent, **held}
    ]
    rows.sort(key=lambda one: (-one.spent.cost_usd_micros - one.held.cost_usd_micros, -one.spent.tokens, one.name))
    older = [
        _spent(body, known.ask if known is not None else model.NOTHING)
        for key, body in tally.settled.items()
        if (known := tally.calls.get(key)) is None or known.at_unix_ms < since_unix_ms
    ]
    kept = max(0, until_unix_ms - KEPT_MS)
    return SpendReplied(
        by=by,  # type: ignore[arg-type]
        since_unix_ms=since_unix_ms,
        until_unix_ms=until_unix_ms,
        kept_unix_ms=kept if since_unix_ms < kept else 0,
        rows=tuple(rows[:top]),
        rest=_rows(rows[top:]),
        rest_rows=len(rows[top:]),
        total=_rows(rows),
        late=_sum(older),
        slices=tuple(parts),
    )


def _again(tally: Tally) -> dict[str, int]:
    """How long after each attempt at a call the next one began: its own time, and the pause that a provider wants."""
    attempts: dict[str, list[tuple[int, str]]] = {}
    for key, call in tally.calls.items():
        attempts.setdefault(call.call, []).append((call.at_unix_ms, key))
    return {key: later - at for rows in attempts.values() for (at, key), (later, _) in pairwise(sorted(rows))}


def _spent(settled: Settled, ask: model.Sum, again_ms: int = 0) -> Spent:
    """again_ms: after so long the call was tried again; a halt's length is nobody's retry."""
    usage = settled.usage
    if settled.estimated:
        guessed = {"estimated": 1, "estimated_tokens": ask.tokens, "estimated_usd_micros": ask.cost_usd_micros}
        spent = _held(ask).model_copy(update=guessed)
    else:
        counts = {unit: getattr(usage, unit) for unit in _COUNTS}
        guess = bool(usage.estimated_tokens or usage.estimated_usd_micros)
        spent = Spent(calls=1, tokens=usage.input_tokens + usage.output_tokens, estimated=int(guess), **counts)
    took = {"wall_ms": settled.wall_ms}
    if settled.failed:
        lost_ms = max(settled.wall_ms, again_ms if settled.failed != HALTED else 0)
        took |= {"failed_calls": 1, "failed_usd_micros": spent.cost_usd_micros, "failed_ms": lost_ms}
    return spent.model_copy(update=took)


def _held(ask: model.Sum) -> Spent:
    return Spent(calls=1, **ask._replace(wall_ms=0)._asdict())


def _sum(parts: Iterable[Spent]) -> Spent:
    parts = tuple(parts)
    return Spent(**{unit: sum(getattr(one, unit) for one in parts) for unit in _UNITS})


def _rows(rows: list[SpendRow]) -> SpendRow:
    return SpendRow(spent=_sum(one.spent for one in rows), held=_sum(one.held for one in rows))


def refused(body: SpendRequested, tenant: str) -> Failure | None:
    """Why this person may not."""
    who = body.requester
    if who.tenant != tenant:
        what = f"{who.person} of tenant {who.tenant} may not see what tenant {tenant} spends"
        return Failure.of("forbidden", what, "use a key of that tenant")
    if who.role not in MAY_READ:
        what = f"the role {who.role} may not see what others spend"
        return Failure.of("forbidden", what, "ask an operator or auditor")
    return None


# The streams


class SpendBook:
    """Answers a tenant's questions one after the other."""

    def __init__(
        self, bus: Bus, clock: Callable[[], int], store: Store | None = None, *, most: int = MAX_SPEND_MESSAGES
    ) -> None:
        self._bus, self._clock, self._store, self._most = bus, clock, store, most
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def answer(self, message: Received) -> SpendReplied:
        """Sum up what the streams hold of the asker's tenant."""
        body = message.body
        assert isinstance(body, SpendRequested)
        if body.of_task:
            return await self._now(message.tenant, message.task)
        if (failure := refused(body, message.tenant)) is not None:
            return SpendReplied(failure=failure)
        if self._places.waiting(message.tenant) >= MAX_WAITING:
            return _no("busy", "others ask what was spent at the same time", "ask again in a moment")
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(SPEND_TIMEOUT_MS / 1_000 * 0.8), self._places.held(message.tenant):
                return await self._sum(message.tenant, body)
        except (TooMuch, TimeoutError):
            what = f"more than {self._most:,} messages lie in that time, or they take too long to read"
            return _no("too_much", what, "ask for a shorter time")
        except BusError as error:
            return _no("unavailable", f"the streams cannot be read: {error}", "ask again in a moment")
        except Unreadable as error:
            return _no("unavailable", f"a fact cannot be read: {error.reason}", "start the newer version of budget")

    async def _now(self, tenant: str, task: str) -> SpendReplied:
        """The account of a task as the ledger has it."""
        assert self._store is not None
        try:
            balance = await self._store.balance(task_scope(tenant, task))
        except (Fenced, *RedisFailure) as error:
            return _no("unavailable", f"the ledger does not answer: {error}", "ask again in a moment")
        spent, held = model.amount_of(balance.spent), model.amount_of(balance.reserved)
        spent_now = Spent(calls=balance.settled, **spent.model_dump())
        row = SpendRow(name=task, spent=spent_now, held=Spent(**held.model_dump()))
        return SpendReplied(by="task", until_unix_ms=self._clock(), rows=(row,), total=row)

    async def _sum(self, tenant: str, body: SpendRequested) -> SpendReplied:
        until = self._clock()
        since, tally = max(0, until - body.since_s * 1000), Tally()
        # Settlements first: each one's reservation was stored before it.
        await self._read(tally, SETTLED_INBOX, f"mesh.*.budget.*.{subjects.token(tenant)}.>", since, body)
        await self._read(tally, JOURNAL_INBOX, f"mesh.budget.{JOURNAL}.*.{subjects.token(tenant)}.>", since, body)
        await self._read(tally, JOURNAL_INBOX, batched_reservations.subject(tenant), since, body)
        return report(tally, body.by, since, until, body.top, body.slices)

    async def _read(self, tally: Tally, stream: str, subject: str, since_unix_ms: int, asked: SpendRequested) -> None:
        wanted: Collection[str] = frozenset(asked.tasks)
        newest = await self._bus.last(stream, subject)
        end, empty = newest.sequence if newest is not None else 0, 0
        after = await last_before(self._bus, stream, subject, since_unix_ms - SLACK_MS, end)
        while after < end:
            page = await self._bus.read(stream, subject, after=after, limit=PAGE)
            if not page and (empty := empty + 1) > TAIL_READS:
                raise BusUnavailable(f"{stream} cannot be read up to {end}: what answers is at {after}")
            for message in _readable(stored for stored in page if stored.sequence <= end):
                if not wanted or message.task in wanted:
                    take(tally, message, asked.by)
            if len(tally.calls) + len(tally.settled) > self._most:
                raise TooMuch
            after = page[-1].sequence if page else after
            await asyncio.sleep(0 if page else TAIL_PAUSE_S)


def _no(code: str, message: str, hint: str) -> SpendReplied:
    return SpendReplied(failure=Failure.of(code, message, hint))


def _readable(page: Iterable[Stored]) -> Iterator[Received]:
    """What is no fact is passed over, as a rebuild does. Raises Unreadable for what only a newer budget can read."""
    for stored in page:
        try:
            message = inbound.read(stored, stored.subject.split(".")[2])
        except Unreadable as error:
            if error.later:
                raise
            log.error("fact_unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
        else:
            yield from batched_reservations.each(message)
