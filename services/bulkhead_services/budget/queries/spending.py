"""The cost of a tenant's calls, by name: the sum of its facts in the streams, for people who ask.

In: SpendRequested (rpc, from the gateway, which established who asks); `Reserved` facts and settlements, in any
order and any number of times. Out: SpendReplied. A call counts for the moment in which it was admitted; what it cost is
its settlement, and until that is there its reservation is shown as held. Redis is not asked: the streams are the truth.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from bulkhead.bus.port import Bus, BusError, BusUnavailable, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.journal.quality import percentile
from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_SPEND_MESSAGES, MAX_TASK_DEADLINE_MS, SPEND_TIMEOUT_MS
from bulkhead_contracts.budget import Reserved, Settled, SpendReplied, SpendRequested, SpendRow, Spent
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.checkpoint import JOURNAL, JOURNAL_INBOX, SETTLED_INBOX
from bulkhead_services.budget.ledger.replies import EDGES, settlements_in
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, RedisFailure
from bulkhead_services.budget.queries.outliers import CallAttempt, find_outliers
from bulkhead_services.budget.queries.turns import in_turns

log = Log("budget.spending")

MAY_READ = ("operator", "auditor")
"""Roles that see the spending of each person."""
RESOURCE_SERVICES = {"model": "model_gateway", "tool": "tool_executor"}
"""Services whose resources are models, and tools."""
CALL_KINDS: dict[str, Literal["model_call", "tool_call"]] = {
    "model_gateway": "model_call",
    "tool_executor": "tool_call",
}
HALTED = "halted"
TASK_KEPT_MS = MAX_TASK_DEADLINE_MS + 24 * 3600 * 1000
"""No retention of ended tasks is shorter."""
CLOCK_SLACK_MS = 60_000
"""A fact is stored later than it was made, by another machine's clock."""
PAGE = 64
"""Small: admissions are answered between two pages."""
AT_ONCE = 2
"""Requests of two tenants at a time: neither waits for the whole of the other's."""
MAX_WAITING = 4
"""Requests of one tenant that may wait."""
MAX_NAME_CHARS = 200
TAIL_READS, TAIL_PAUSE_S = 100, 0.05
SETTLING_MS = 60_000
"""After the end of its task a call may still be in flight, or its settlement on its way."""
MAX_ENDS_READ = 64
"""Tasks with unsettled calls of which it is read whether they have ended; those of others lapse with their lease."""
_UNITS = tuple(Spent.model_fields)
_COUNTS = tuple(unit for unit in Spent.model_fields if unit in Usage.model_fields)


@dataclass(frozen=True, slots=True)
class CountedReservation:
    """One reservation of a task, and the name that it counts under."""

    name: str
    task: str
    ask: model.UnitSums
    at_unix_ms: int
    call: str = ""
    """The call that it was an attempt at, of one service and task."""
    service: str = ""
    step_id: str = ""
    call_id: str = ""
    resource: str = ""


@dataclass(slots=True)
class SpendTally:
    """Calls and settlements by their keys. The functions below change it in place."""

    calls: dict[str, CountedReservation] = field(default_factory=dict)
    settled: dict[str, Settled] = field(default_factory=dict)


class _CallTimes:
    """Time that each call took under a name, from its first attempt to the end of its last, failed ones too. An attempt
    that a halt cut counts by itself: the call was made again when the halt was lifted, and that wait is nobody's."""

    def __init__(self) -> None:
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}

    def add_attempt(self, reservation: CountedReservation, settled: Settled) -> None:
        """One attempt; of one whose time is not known, nothing."""
        if not settled.wall_ms:
            return
        began, call = reservation.at_unix_ms, settled.reservation_id if settled.failed == HALTED else reservation.call
        first, last = self._spans.get((reservation.name, call), (began, began))
        self._spans[reservation.name, call] = min(first, began), max(last, began + settled.wall_ms)

    def by_name(self) -> dict[str, list[int]]:
        """Milliseconds of every call."""
        times: dict[str, list[int]] = {}
        for (name, _), (first, last) in self._spans.items():
            times.setdefault(name, []).append(last - first)
        return times


class TooManySpendMessages(Exception):
    """More messages than one answer is made of."""


READING_ERRORS = (TooManySpendMessages, TimeoutError, BusError, Unreadable)
"""Reasons for which facts of a period cannot be read."""


def explain_unread(error: Exception, max_messages: int) -> Failure:
    """One of READING_ERRORS as the asker is told it. max_messages: that are read for one answer."""
    match error:
        case Unreadable():
            reason = f"a fact cannot be read: {error.reason}"
            return Failure.from_text("unavailable", reason, "start the newer version of budget")
        case BusError():
            return Failure.from_text("unavailable", f"the streams cannot be read: {error}", "ask again in a moment")
    reason = f"more than {max_messages:,} messages lie in that time, or they take too long to read"
    return Failure.from_text("too_much", reason, "ask for a shorter time")


# Pure


def name_of(grouping: str, service: str, tenant: str, task: str, fact: Reserved) -> str:
    """The name that a call counts under; "" where it has none of this kind."""
    if grouping == "tenant":
        return tenant
    if grouping == "task":
        return task
    if grouping == "prompt":
        return fact.prompt
    if grouping == "step":
        return f"{task}/{fact.step_id}" if fact.step_id else ""
    if grouping in RESOURCE_SERVICES:
        return fact.resource if service == RESOURCE_SERVICES[grouping] else ""
    for scope in (*fact.scopes, *fact.more_scopes):
        # agent:<tenant>:<name>:<UTC day>
        kind, _, qualified_name = scope.scope.partition(":")
        if kind == grouping:
            return qualified_name.partition(":")[2].rpartition(":")[0]
    return ""


def count_message(tally: SpendTally, message: ReceivedMessage, grouping: str) -> None:
    """A fact or a settlement; the first under a key counts, as in the ledger. Everything else changes nothing."""
    body = message.body
    if isinstance(body, Reserved):
        key = model.entry_key(body.service, message.tenant, message.task, body.reservation_id)
        name = name_of(grouping, body.service, message.tenant, message.task, body)[:MAX_NAME_CHARS]
        call = model.entry_key(body.service, message.tenant, message.task, body.call_id)
        ask = model.sum_of(body.amount)
        counted = CountedReservation(
            name,
            message.task,
            ask,
            body.reserved_unix_ms,
            call,
            body.service,
            body.step_id,
            body.call_id,
            body.resource,
        )
        tally.calls.setdefault(key, counted)
    elif isinstance(body, Settled):
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        tally.settled.setdefault(key, body)


async def build_report(
    tally: SpendTally,
    grouping: str,
    since_unix_ms: int,
    until_unix_ms: int,
    top: int,
    slices: int = 0,
    lapsed_unix_ms: int = 0,
    skip: int = 0,
    ended_tasks: Collection[str] = (),
    outliers: int = 0,
) -> SpendReplied:
    """The answer: every settlement of the time is in one row, in the rest, or late. lapsed_unix_ms, ended_tasks: what
    was reserved before, or of such a task, and is not settled counts as spent in full: its doer was killed. What was
    held ahead and not used is no call. outliers: so many are named, at most.
    """
    retry_delays_ms, spent_by_name = await _retry_delays_ms(tally), dict[str, list[Spent]]()
    held_by_name: dict[str, list[Spent]] = {}
    call_times = _CallTimes()
    parts, call_parts, width_ms = [0] * slices, [0] * slices, max(1, until_unix_ms - since_unix_ms)
    attempts: list[CallAttempt] = []
    async for key, reservation in in_turns(tally.calls.items()):
        if reservation.at_unix_ms >= since_unix_ms:
            settled = tally.settled.get(key)
            by_name = spent_by_name
            is_over = reservation.at_unix_ms <= lapsed_unix_ms or reservation.task in ended_tasks
            if was_unused(tally, key, is_over):
                continue
            if settled is not None:
                amounts = _settled_spend(settled, reservation.ask, retry_delays_ms.get(key, 0))
                call_times.add_attempt(reservation, settled)
            elif is_over:
                amounts = _estimated_spend(reservation.ask)
            else:
                by_name, amounts = held_by_name, _held_spend(reservation.ask)
            by_name.setdefault(reservation.name, []).append(amounts)
            if slices:
                # A clock that is ahead tells the last one.
                part = min((reservation.at_unix_ms - since_unix_ms) * slices // width_ms, slices - 1)
                parts[part] += amounts.cost_usd_micros
                call_parts[part] += 1
            if outliers:
                attempts.append(_call_attempt(reservation, amounts))
    took_ms_by_name = call_times.by_name()
    rows = [
        SpendRow(
            name=name,
            spent=await _sum_spend(spent_by_name.get(name, ())),
            held=await _sum_spend(held_by_name.get(name, ())),
            p50_ms=percentile(took_ms_by_name.get(name, ()), 50) or 0,
            p95_ms=percentile(took_ms_by_name.get(name, ()), 95) or 0,
        )
        async for name in in_turns({**spent_by_name, **held_by_name})
    ]
    rows.sort(key=lambda one: (-one.spent.cost_usd_micros - one.held.cost_usd_micros, -one.spent.tokens, one.name))
    older = [
        _settled_spend(body, reserved_call.ask if reserved_call is not None else model.NOTHING)
        async for key, body in in_turns(tally.settled.items())
        if (reserved_call := tally.calls.get(key)) is None or reserved_call.at_unix_ms < since_unix_ms
    ]
    kept_since_ms = max(0, until_unix_ms - TASK_KEPT_MS)
    return SpendReplied(
        by=grouping,  # type: ignore[arg-type]
        since_unix_ms=since_unix_ms,
        until_unix_ms=until_unix_ms,
        kept_unix_ms=kept_since_ms if since_unix_ms < kept_since_ms else 0,
        rows=tuple(rows[skip : skip + top]),
        rest=await _sum_rows(rows[skip + top :]),
        rest_rows=len(rows[skip + top :]),
        total=await _sum_rows(rows),
        late=await _sum_spend(older),
        slices=tuple(parts),
        call_slices=tuple(call_parts),
        outliers=await find_outliers(attempts, outliers),
    )


def _call_attempt(reservation: CountedReservation, amounts: Spent) -> CallAttempt:
    return CallAttempt(
        CALL_KINDS.get(reservation.service),
        reservation.task,
        reservation.step_id,
        reservation.call_id,
        reservation.resource,
        amounts.cost_usd_micros,
        amounts.wall_ms,
    )


def was_unused(tally: SpendTally, key: str, is_over: bool) -> bool:
    """Check whether a reservation was held ahead and then given back, or left by a doer that died before it."""
    settled, before = tally.settled.get(key), model.key_before(key)
    if settled is not None:
        return bool(before) and settled.call_id == settled.reservation_id
    return is_over and before in tally.calls and before not in tally.settled


async def _retry_delays_ms(tally: SpendTally) -> dict[str, int]:
    """Time from each attempt at a call to the next one: its own, and the pause that a provider wants."""
    attempts: dict[str, list[tuple[int, str]]] = {}
    async for key, reservation in in_turns(tally.calls.items()):
        attempts.setdefault(reservation.call, []).append((reservation.at_unix_ms, key))
    return {
        key: later - earlier
        async for rows in in_turns(attempts.values())
        for (earlier, key), (later, _) in pairwise(sorted(rows))
    }


def _settled_spend(settled: Settled, ask: model.UnitSums, retry_delay_ms: int = 0) -> Spent:
    """retry_delay_ms: after so long the call was tried again; a halt's length is nobody's retry."""
    usage = settled.usage
    if settled.estimated:
        spent = _estimated_spend(ask)
    else:
        counts = {unit: getattr(usage, unit) for unit in _COUNTS}
        guess = bool(usage.estimated_tokens or usage.estimated_usd_micros)
        spent = Spent(calls=1, tokens=usage.input_tokens + usage.output_tokens, estimated=int(guess), **counts)
    took = {"wall_ms": settled.wall_ms}
    if settled.failed:
        lost_ms = max(settled.wall_ms, retry_delay_ms if settled.failed != HALTED else 0)
        took |= {"failed_calls": 1, "failed_usd_micros": spent.cost_usd_micros, "failed_ms": lost_ms}
    return spent.model_copy(update=took)


def _estimated_spend(ask: model.UnitSums) -> Spent:
    estimates = {"estimated": 1, "estimated_tokens": ask.tokens, "estimated_usd_micros": ask.cost_usd_micros}
    return _held_spend(ask).model_copy(update=estimates)


def _held_spend(ask: model.UnitSums) -> Spent:
    return Spent(calls=1, **ask._replace(wall_ms=0)._asdict())


async def _sum_spend(parts: Iterable[Spent]) -> Spent:
    sums = dict.fromkeys(_UNITS, 0)
    async for part in in_turns(parts):
        for unit in _UNITS:
            sums[unit] += getattr(part, unit)
    return Spent(**sums)


def _account_row(task: str, balance: model.Balance) -> SpendRow:
    spent, reserved = model.amount_of(balance.spent), model.amount_of(balance.reserved)
    spent_now = Spent(calls=balance.settled, **spent.model_dump())
    return SpendRow(name=task, spent=spent_now, held=Spent(**reserved.model_dump()))


async def _sum_rows(rows: list[SpendRow]) -> SpendRow:
    return SpendRow(spent=await _sum_spend(one.spent for one in rows), held=await _sum_spend(one.held for one in rows))


def check_requester(body: SpendRequested, tenant: str) -> Failure | None:
    """Why this person may not."""
    who = body.requester
    if who.tenant != tenant:
        reason = f"{who.person} of tenant {who.tenant} may not see what tenant {tenant} spends"
        return Failure.from_text("forbidden", reason, "use a key of that tenant")
    if who.role not in MAY_READ:
        reason = f"the role {who.role} may not see what others spend"
        return Failure.from_text("forbidden", reason, "ask an operator or auditor")
    return None


# The streams


class SpendQuery:
    """Answers a tenant's questions one after the other."""

    def __init__(
        self,
        bus: Bus,
        clock: Callable[[], int],
        store: LedgerStore | None = None,
        *,
        lease_ms: int = 600_000,
        max_messages: int = MAX_SPEND_MESSAGES,
    ) -> None:
        self._clock, self._store, self._max_messages = clock, store, max_messages
        self._reader, self._lease_ms = SpendFactReader(bus, clock, max_messages), lease_ms
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def answer_spend(self, message: ReceivedMessage) -> SpendReplied:
        """Sum up what the streams hold of the asker's tenant."""
        body = message.body
        assert isinstance(body, SpendRequested)
        if body.of_task:
            return await self._read_accounts(message.tenant, body.tasks or (message.task,))
        if (failure := check_requester(body, message.tenant)) is not None:
            return SpendReplied(failure=failure)
        if self._places.count_waiting(message.tenant) >= MAX_WAITING:
            return _failed_reply("busy", "others ask what was spent at the same time", "ask again in a moment")
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(SPEND_TIMEOUT_MS / 1_000 * 0.8), self._places.hold_slot(message.tenant):
                return await self._sum_streams(message.tenant, body)
        except READING_ERRORS as error:
            return SpendReplied(failure=explain_unread(error, self._max_messages))

    async def _read_accounts(self, tenant: str, tasks: Sequence[str]) -> SpendReplied:
        """The accounts of tasks as the ledger has them."""
        assert self._store is not None
        try:
            balances = [await self._store.read_balance(task_scope(tenant, task)) for task in tasks]
        except (Fenced, *RedisFailure) as error:
            return _failed_reply("unavailable", f"the ledger does not answer: {error}", "ask again in a moment")
        rows = [_account_row(task, balance) for task, balance in zip(tasks, balances, strict=True)]
        return SpendReplied(by="task", until_unix_ms=self._clock(), rows=tuple(rows), total=await _sum_rows(rows))

    async def _sum_streams(self, tenant: str, body: SpendRequested) -> SpendReplied:
        until = self._clock()
        since, tally = max(0, until - body.since_s * 1000), SpendTally()
        tasks: Collection[str] = frozenset(body.tasks)

        def count_fact(message: ReceivedMessage) -> None:
            if not tasks or message.task in tasks:
                count_message(tally, message, "prompt" if body.prompts else body.by)

        await self._reader.read_facts(tenant, since, tally, count_fact)
        lapsed = self._clock() - self._lease_ms
        ended_tasks = await self._reader.find_ended_tasks(tally, tenant, lapsed)
        return await build_report(
            tally, body.by, since, until, body.top, body.slices, lapsed, body.skip, ended_tasks, body.outliers
        )


class SpendFactReader:
    """Reads a tenant's reservations and settlements from the streams. max_messages: that one answer is made of."""

    def __init__(self, bus: Bus, clock: Callable[[], int], max_messages: int = MAX_SPEND_MESSAGES) -> None:
        self._bus, self._clock, self.max_messages = bus, clock, max_messages

    async def read_facts(
        self, tenant: str, since_unix_ms: int, tally: SpendTally, count_fact: Callable[[ReceivedMessage], None]
    ) -> None:
        """Count all facts since then into the tally. Raises TooManySpendMessages, BusError, Unreadable."""
        token = subjects.check_token(tenant)
        # Settlements first: each one's reservation was stored before it.
        places = [(edge.stream, edge.of_tenant(tenant)) for edge in EDGES]
        places += [
            (SETTLED_INBOX, f"mesh.*.budget.*.{token}.>"),
            (JOURNAL_INBOX, f"mesh.budget.{JOURNAL}.*.{token}.>"),
            (JOURNAL_INBOX, packed_facts.batch_subject(tenant)),
        ]
        for stream, subject in places:
            async for page in self.read_since(stream, subject, since_unix_ms):
                for message in _readable_facts(page):
                    count_fact(message)
                if len(tally.calls) + len(tally.settled) > self.max_messages:
                    raise TooManySpendMessages

    async def read_since(self, stream: str, subject: str, since_unix_ms: int) -> AsyncIterator[list[StoredMessage]]:
        """Messages of a subject since then, up to what is its end now, in pages. Raises BusError."""
        newest = await self._bus.last(stream, subject)
        end, empty = newest.sequence if newest is not None else 0, 0
        after = await last_before(self._bus, stream, subject, since_unix_ms - CLOCK_SLACK_MS, end)
        while after < end:
            page = await self._bus.read(stream, subject, after=after, limit=PAGE)
            if not page and (empty := empty + 1) > TAIL_READS:
                raise BusUnavailable(f"{stream} cannot be read up to {end}: what answers is at {after}")
            yield [stored for stored in page if stored.sequence <= end]
            after = page[-1].sequence if page else after
            await asyncio.sleep(0 if page else TAIL_PAUSE_S)

    async def find_ended_tasks(self, tally: SpendTally, tenant: str, lapsed_unix_ms: int) -> set[str]:
        """Tasks with unsettled calls that ended a while ago. Raises BusError."""
        unsettled = (call for key, call in tally.calls.items() if key not in tally.settled)
        tasks = dict.fromkeys(call.task for call in unsettled if call.at_unix_ms > lapsed_unix_ms)
        return await self.read_ends(list(tasks)[:MAX_ENDS_READ], tenant, self._clock() - SETTLING_MS)

    async def read_ends(self, tasks: Iterable[str], tenant: str, until_unix_ms: int) -> set[str]:
        """Tasks among these that ended before then. Raises BusError."""
        ended_tasks = set[str]()
        for task in tasks:
            subject, after = subjects.mesh_subject("planner", "gateway", tenant, task), 0
            while page := await self._bus.read(subjects.JOURNAL_STREAM, subject, after=after, limit=PAGE):
                ends = (stored for stored in page if stored.ce_type == TaskEnded.ce_type())
                if any(stored.time_unix_ms < until_unix_ms for stored in ends):
                    ended_tasks.add(task)
                after = page[-1].sequence
        return ended_tasks


def _failed_reply(code: str, message: str, hint: str) -> SpendReplied:
    return SpendReplied(failure=Failure.from_text(code, message, hint))


def _readable_facts(page: Iterable[StoredMessage]) -> Iterator[ReceivedMessage]:
    """Facts of a page; other messages are passed over, as in a rebuild. Raises Unreadable for what only a newer
    budget can read.
    """
    for stored in page:
        try:
            if stored.receiver != JOURNAL:
                yield from settlements_in(stored)
                continue
            message = inbound.read_message(stored, JOURNAL)
        except Unreadable as error:
            if error.later:
                raise
            log.error("fact_unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
        else:
            yield from packed_facts.unpack_facts(message)
