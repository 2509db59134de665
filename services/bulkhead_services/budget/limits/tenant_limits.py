"""A tenant's limits: facts in the journal, read by every replica, changed by its operators while the mesh runs.

In: LimitsRequested, TopUpRequested (rpc, from the gateway, which established who asks). Out: their replies; for a
change the fact `LimitsChanged` before it, with who, from what, to what, and all limits as they stand since then: the
last fact of a tenant is its limits, whatever becomes of Redis. Redis knows only their revision and when somebody last
looked: an admission that was made of another one is asked again, so a change holds from the next admission on, on every
replica.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from pydantic import ValidationError

from bulkhead.bus.port import Bus, BusError, BusUnavailable, WrongLastSequence
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_LIMIT_CHANGES, MAX_LIMIT_TARGETS, MAX_TOP_UP_CHANGES, MAX_TOP_UPS
from bulkhead_contracts.budget import (
    Alerted,
    Limit,
    LimitsChanged,
    LimitsReplied,
    LimitsRequested,
    TargetLimit,
    TopUp,
    TopUpReplied,
    TopUpRequested,
)
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.ledger.accounts import TOP_UP, Limits, targets_of
from bulkhead_services.budget.ledger.store import Fenced, RedisFailure, Revision, Store
from bulkhead_services.budget.limits.alerts import latest

log = Log("budget.limits")

JOURNAL, JOURNAL_INBOX = "journal", subjects.inbox_stream("journal")
BOOK = "limits"
"""Tenant of the facts' subjects; the tenant that they are about stands where a task does. No publisher may say it."""
MAY_CHANGE, MAY_READ = ("operator",), ("operator", "auditor", "approver", "submitter")
MAX_KNOWN_TENANTS = 10_000
TELLS, TELL_AGAIN_S = 6, 0.2
"""So often a ledger that is being verified is told of a change before the answer; after that it finds it by itself."""
TRIES = 5
"""So often a change is made again after somebody else's."""
CONTENT_CHARS = 16
MAX_ID_CHARS = 64 - 1 - CONTENT_CHARS


class Known(NamedTuple):
    """What some targets' limits are at a revision of a tenant's."""

    revision: int
    limits: tuple[Limit | None, ...]


@dataclass(frozen=True)
class Page:
    """A tenant's limits as one fact has them. sequence: of that fact, 0 where there is none."""

    revision: int = 0
    sequence: int = 0
    change: str = ""
    limits: Limits = field(default_factory=dict)
    top_ups: tuple[TopUp, ...] = ()
    changed_unix_ms: int = 0
    changes: tuple[str, ...] = ()

    @property
    def known(self) -> frozenset[str]:
        """Ids that a repeat is told by: of the tenant's last changes, and of the last top-ups of each task."""
        return frozenset((self.change, *self.changes, *(one for row in self.top_ups for one in row.changes)))

    def remembered(self, change: str) -> tuple[str, ...]:
        """The last changes after one more."""
        before = self.changes or ((self.change,) if self.change else ())
        return (*before, change)[-MAX_LIMIT_CHANGES:]

    @cached_property
    def effective(self) -> Limits:
        """As an admission takes them: top-ups under targets of their own (scopes.TOP_UP)."""
        return (
            {**self.limits, **{f"{TOP_UP}/{one.task}": one.add for one in self.top_ups}}
            if self.top_ups
            else (self.limits)
        )


class Current(NamedTuple):
    """What an admission is made of."""

    revision: Revision
    limits: Limits


class LimitBook:
    """What this replica knows of every tenant's limits."""

    def __init__(
        self, bus: Bus, publisher: Publisher, store: Store, clock: Callable[[], int], lost: Callable[[str], None]
    ) -> None:
        """lost: told that the ledger does not answer, so that it is verified."""
        self._bus, self._publisher, self._store, self._clock, self._lost = bus, publisher, store, clock, lost
        self._pages: OrderedDict[str, Page] = OrderedDict()
        self.on_change: Callable[[str, str, str], Awaitable[int]] | None = None
        """Called with tenant, target and why, when a change holds; tells how many tasks go on because of it."""

    def known(self, tenant: str, targets: tuple[str, ...]) -> Known:
        """The limits of these targets as this replica knows them, None where there are none."""
        page = self._pages.get(tenant, Page())
        return Known(page.revision, tuple(page.effective.get(one) for one in targets))

    def changed_since(self, tenant: str, unix_ms: int) -> bool:
        """Whether this replica knows of a change after that."""
        return self._pages.get(tenant, Page()).changed_unix_ms >= unix_ms

    async def newest(self, tenant: str) -> int:
        """The revision that stands in the journal. Raises BusError."""
        return (await self._read(tenant)).revision

    async def of(self, tenant: str) -> Current:
        """As last read here; the store says whether that is still good. Raises BusError."""
        page = self._pages.get(tenant)
        if page is None:
            page = await self._read(tenant)
        self._pages.move_to_end(tenant)
        return Current(Revision(tenant, page.revision), page.effective)

    async def renew(self, tenant: str, now_unix_ms: int) -> None:
        """Read them again and tell the store. Raises BusError, Fenced, RedisFailure."""
        page = await self._read(tenant)
        await self._store.look(Revision(tenant, page.revision), now_unix_ms)

    async def _read(self, tenant: str) -> Page:
        stored = await self._bus.last(JOURNAL_INBOX, subjects.mesh("budget", JOURNAL, BOOK, tenant))
        page = Page()
        if stored is not None:
            try:
                body = inbound.read(stored, JOURNAL).body
            except Unreadable as error:
                raise BusUnavailable(
                    f"the limits of tenant {tenant} cannot be read ({error.reason}); start the newer version of budget"
                ) from error
            assert isinstance(body, LimitsChanged), "nobody says anything else there"
            page = Page(
                body.revision,
                stored.sequence,
                body.change,
                {one.target: one.limit for one in body.limits},
                body.top_ups,
                body.changed_unix_ms,
                body.changes,
            )
        known = self._pages.get(tenant, Page())
        # A follower that lags knows less than this replica does.
        self._pages[tenant] = page if page.revision >= known.revision else known
        while len(self._pages) > MAX_KNOWN_TENANTS:
            self._pages.popitem(last=False)
        return self._pages[tenant]

    # Requests

    async def answer(self, message: Received) -> LimitsReplied:
        """Read, or change: the fact first, then the store, then the answer."""
        body = message.body
        assert isinstance(body, LimitsRequested)
        if (failure := refused(body, message.tenant)) is not None:
            return LimitsReplied(failure=failure)
        try:
            if body.target is None:
                read = await self._read(message.tenant)
                return _reply(read, tuple(one for one in await self._alerts(message.tenant) if in_force(one, read)))
            page = await self._change(
                message,
                lambda page, change: changed(page, body, message.tenant, change, self._clock()),
                content=content_of(body),
            )
            if isinstance(page, Failure):
                return LimitsReplied(failure=page)
            await self._holds(message.tenant, page, body.target, f"{body.requester.person} changed {body.target}")
        except BusError as error:
            return LimitsReplied(failure=_unavailable(error))
        return _reply(page)

    async def _alerts(self, tenant: str) -> tuple[Alerted, ...]:
        """None while Redis is away: the facts stand in the journal."""
        try:
            return tuple(await latest(self._store, tenant))
        except RedisFailure:
            return ()

    async def top_up(self, message: Received) -> TopUpReplied:
        """Give a task more: as a change of the limits; then what is halted at its ceiling goes on."""
        body = message.body
        assert isinstance(body, TopUpRequested)
        if (failure := toppable(body, message.tenant)) is not None:
            return TopUpReplied(failure=failure)
        try:
            page = await self._change(
                message,
                lambda page, change: topped_up(page, body, message.tenant, change, self._clock()),
                content=content_of(body),
            )
            if isinstance(page, Failure):
                return TopUpReplied(failure=page)
            resumed = await self._holds(
                message.tenant, page, f"task/{body.task}", f"{body.requester.person} topped it up"
            )
        except BusError as error:
            return TopUpReplied(failure=_unavailable(error))
        metrics.top_ups.add(1)
        added = next((one.add for one in page.top_ups if one.task == body.task), Limit())
        return TopUpReplied(added=added, revision=page.revision, resumed=resumed > 0)

    async def _holds(self, tenant: str, page: Page, target: str, why: str) -> int:
        """It is stored: have it hold everywhere, and who waits for it go on. Raises BusError."""
        await self._tell(Revision(tenant, page.revision))
        return await self.on_change(tenant, target, why) if self.on_change else 0

    async def _tell(self, revision: Revision) -> None:
        """The store knows it before the asker does: then it holds everywhere. It is stored in any case."""
        for _ in range(TELLS):
            try:
                await self._store.look(revision, self._clock())
                return
            except (Fenced, *RedisFailure) as error:
                self._lost(str(error) or type(error).__name__)
                log.warning("limits_not_told", tenant=revision.tenant, reason=str(error))
                await asyncio.sleep(TELL_AGAIN_S)

    async def _change(
        self, message: Received, make: Callable[[Page, str], LimitsChanged | Failure], content: str
    ) -> Page | Failure:
        """content: what the request is known by beside its id, which its sender chooses."""
        change = f"{message.envelope.id[:MAX_ID_CHARS]}-{content}"
        for _ in range(TRIES):
            page = await self._read(message.tenant)
            if change in page.known:
                return page  # The answer to the first try was lost, whatever others have changed since then.
            if message.envelope.id in page.known:
                return page  # As facts had it that did not remember contents yet.
            made = make(page, change)
            if isinstance(made, Failure):
                return made
            try:
                await self._publisher.send(
                    JOURNAL,
                    made,
                    tenant=BOOK,
                    task=message.tenant,
                    cause=message.envelope.id,
                    index=f"limits/{made.revision}",
                    actor=made.by,
                    expect_last_on_subject=page.sequence,
                )
            except WrongLastSequence:
                continue
            log.warning(
                "limits_changed",
                tenant=message.tenant,
                target=made.target,
                by=made.by,
                old=made.old.model_dump_json(),
                new=made.new.model_dump_json(),
            )
            return await self._read(message.tenant)
        return Failure.of("busy", "others change this tenant's limits at the same time", "read them, then try again")


def in_force(alert: Alerted, page: Page) -> bool:
    """Whether the limit that came near may still stand: others than operators limit tasks and days, too."""
    return alert.scope.partition(":")[0] in ("task", "day", "mesh") or any(
        getattr(page.limits.get(one), alert.unit, None) == alert.limit for one in targets_of(alert.scope)
    )


def refused(body: LimitsRequested, tenant: str) -> Failure | None:
    """Why this person may not."""
    who, changes = body.requester, body.target is not None
    if who.tenant != tenant:
        return Failure.of(
            "forbidden",
            f"{who.person} of tenant {who.tenant} may not touch tenant {tenant}'s limits",
            "use a key of that tenant",
        )
    if who.role not in (MAY_CHANGE if changes else MAY_READ):
        return Failure.of("forbidden", f"the role {who.role} may not change limits", "ask an operator")
    return None


def changed(page: Page, body: LimitsRequested, tenant: str, change: str, now_unix_ms: int) -> LimitsChanged | Failure:
    """The fact that makes a change, or why it cannot be made. Pure."""
    assert body.target is not None
    if _reused(page, change):
        return Failure.of(
            "idempotency_reused",
            "another limit, or another value of it, was set under this key",
            "use a new key for another change, or repeat the first one unchanged",
        )
    if body.expect_revision is not None and body.expect_revision != page.revision:
        return Failure.of(
            "changed_meanwhile",
            f"the limits are at revision {page.revision}, not at {body.expect_revision}",
            "read them again and decide anew",
        )
    limits = dict(page.limits)
    old = limits.pop(body.target, Limit())
    if body.limit != Limit():
        limits[body.target] = body.limit
    if len(limits) > MAX_LIMIT_TARGETS:
        return Failure.of(
            "too_many_limits",
            f"a tenant may have limits for {MAX_LIMIT_TARGETS} targets",
            "remove one that is not needed any more, for example of a task that has ended",
        )
    return LimitsChanged(
        tenant=tenant,
        revision=page.revision + 1,
        target=body.target,
        old=old,
        new=body.limit,
        by=body.requester.person,
        changed_unix_ms=now_unix_ms,
        change=change,
        limits=_rows(limits),
        top_ups=_living(page, now_unix_ms),
        changes=page.remembered(change),
    )


def toppable(body: TopUpRequested, tenant: str) -> Failure | None:
    """Why this person may not give the task more, or nobody that much."""
    who = body.requester
    if who.tenant != tenant:
        return Failure.of(
            "forbidden",
            f"{who.person} of tenant {who.tenant} may not top up tenant {tenant}'s tasks",
            "use a key of that tenant",
        )
    if who.role not in MAY_CHANGE:
        return Failure.of("forbidden", f"the role {who.role} may not top up tasks", "ask an operator")
    if not any(body.add.model_dump().values()):
        return Failure.of("adds_nothing", "the top-up adds nothing", "name an amount above 0: --usd 0.50")
    return None


def content_of(body: LimitsRequested | TopUpRequested) -> str:
    """Of what a repeat has to have in common with the first: 16 hex digits."""
    if isinstance(body, TopUpRequested):
        said = f"{body.add.model_dump_json()} {body.reason}"
    else:
        said = f"{body.target} {body.limit.model_dump_json()} {body.expect_revision}"
    return hashlib.sha256(said.encode()).hexdigest()[:CONTENT_CHARS]


def _reused(page: Page, change: str) -> bool:
    """Whether the id of this change is known with another content."""
    asked = change.rpartition("-")[0]
    return bool(asked) and any(one.rpartition("-")[0] == asked for one in page.known)


def topped_up(page: Page, body: TopUpRequested, tenant: str, change: str, now_unix_ms: int) -> LimitsChanged | Failure:
    """The fact that gives a task more, or why it cannot. Pure."""
    if _reused(page, change):
        return Failure.of(
            "idempotency_reused",
            f"task {body.task} was topped up under this key with another amount or reason",
            "use a new key for another top-up, or repeat the first one unchanged",
        )
    known = {one.task: one for one in _living(page, now_unix_ms)}
    before = known.pop(body.task, TopUp(task=body.task, add=Limit()))
    added = {name: (getattr(before.add, name) or 0) + (getattr(body.add, name) or 0) for name in Limit.model_fields}
    try:
        sum_ = Limit(**{name: value or None for name, value in added.items()})
    except ValidationError:
        return Failure.of("too_much", "with this the task's top-ups exceed what a limit may be", "add less")
    if len(known) >= MAX_TOP_UPS:
        return Failure.of(
            "too_many_limits",
            f"a tenant may have {MAX_TOP_UPS} tasks that were topped up and still run",
            "wait until some of them have ended",
        )
    known[body.task] = TopUp(
        task=body.task,
        add=sum_,
        until_unix_ms=max(before.until_unix_ms, body.until_unix_ms),
        changes=(*before.changes, change)[-MAX_TOP_UP_CHANGES:],
    )
    return LimitsChanged(
        tenant=tenant,
        revision=page.revision + 1,
        target=f"task/{body.task}",
        old=before.add,
        new=sum_,
        by=body.requester.person,
        changed_unix_ms=now_unix_ms,
        change=change,
        limits=_rows(page.limits),
        topped_up=True,
        reason=body.reason,
        top_ups=tuple(known.values()),
        changes=page.remembered(change),
    )


def _living(page: Page, now_unix_ms: int) -> tuple[TopUp, ...]:
    """What still counts: a task that has ended needs none."""
    return tuple(one for one in page.top_ups if not one.until_unix_ms or one.until_unix_ms > now_unix_ms)


def _unavailable(error: BusError) -> Failure:
    return Failure.of(
        "unavailable",
        f"the journal does not answer: {error}",
        "read the limits to see whether the change was made, then make it again",
    )


def _rows(limits: Limits) -> tuple[TargetLimit, ...]:
    return tuple(TargetLimit(target=target, limit=limit) for target, limit in sorted(limits.items()))


def _reply(page: Page, alerts: tuple[Alerted, ...] = ()) -> LimitsReplied:
    return LimitsReplied(revision=page.revision, limits=_rows(page.limits), top_ups=page.top_ups, alerts=alerts)
