"""A tenant's limits: facts in the journal, read by every replica, changed by its operators while the mesh runs.

In: LimitsRequested, TopUpRequested (rpc, from the gateway, which established who asks). Out: their replies; for a
change the fact `LimitsChanged` before it, with who, from what, to what, and all limits as they stand since then: the
last fact of a tenant is its limits, whatever becomes of Redis. Redis knows only their revision and when somebody last
looked: an admission that was made of another one is asked again, so a change holds from the next admission on, on every
replica.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, BusUnavailable, StoredMessage, WrongLastSequence
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.bounds import MAX_CHANGES_LISTED
from bulkhead_contracts.budget import (
    Alerted,
    Limit,
    LimitChange,
    LimitsChanged,
    LimitsReplied,
    LimitsRequested,
    TopUpReplied,
    TopUpRequested,
)
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.ledger.accounts import Limits
from bulkhead_services.budget.ledger.checkpoint import JOURNAL, JOURNAL_INBOX
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, LimitsRevision, RedisFailure
from bulkhead_services.budget.limits.alerts import latest_alerts
from bulkhead_services.budget.limits.changes import (
    MAX_ID_CHARS,
    ChangeRequest,
    TenantLimits,
    build_limits_change,
    build_top_up_change,
    check_requester,
    check_top_up,
    content_digest,
    is_in_force,
    rows_of,
)

log = Log("budget.limits")

LIMITS_TENANT = "limits"
"""Tenant of the facts' subjects; the tenant that they are about stands where a task does. No publisher may say it."""
MAX_KNOWN_TENANTS = 10_000
ANNOUNCE_TRIES, ANNOUNCE_RETRY_S = 6, 0.2
"""Attempts to tell a ledger that is being verified of a change before the answer; later it finds the change itself."""
HISTORY_MS = 31 * 24 * 3_600_000
HISTORY_PAGE, MAX_HISTORY_PAGES = 64, 16
"""A tenant that changes its limits more often in that time is told of the older ones of its changes."""
CHANGE_TRIES = 5
"""Attempts at a change while others change the same limits."""


class LastReadTargetLimits(NamedTuple):
    """Limits of some targets at a revision of a tenant's."""

    revision: int
    limits: tuple[Limit | None, ...]


class LastReadLimits(NamedTuple):
    """Limits that an admission is made of."""

    revision: LimitsRevision
    limits: Limits


class TenantLimitsRegistry:
    """Limits of every tenant that this replica knows."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        store: LedgerStore,
        clock: Callable[[], int],
        mark_ledger_lost: Callable[[str], None],
    ) -> None:
        """mark_ledger_lost: told that the ledger does not answer, so that it is verified."""
        self._bus, self._publisher, self._store, self._clock, self._mark_ledger_lost = (
            bus,
            publisher,
            store,
            clock,
            mark_ledger_lost,
        )
        self._limits_by_tenant = BoundedDict[str, TenantLimits](MAX_KNOWN_TENANTS)
        self.on_change: Callable[[str, str, str], Awaitable[int]] | None = None
        """Called with tenant, target and why, when a change holds; tells how many tasks go on because of it."""

    def last_read_target_limits(self, tenant: str, targets: tuple[str, ...]) -> LastReadTargetLimits:
        """The limits of these targets as this replica knows them, None where there are none."""
        page = self._limits_by_tenant.get(tenant, TenantLimits())
        return LastReadTargetLimits(page.revision, tuple(page.effective_limits.get(target) for target in targets))

    def was_changed_since(self, tenant: str, unix_ms: int) -> bool:
        """True when this replica knows of a change after that."""
        return self._limits_by_tenant.get(tenant, TenantLimits()).changed_unix_ms >= unix_ms

    async def newest_revision(self, tenant: str) -> int:
        """The revision that stands in the journal. Raises BusError."""
        return (await self._read_limits(tenant)).revision

    async def last_read_limits(self, tenant: str) -> LastReadLimits:
        """Limits as last read here; the store says whether that is still good. Raises BusError."""
        page = self._limits_by_tenant.get_refreshed(tenant) or await self._read_limits(tenant)
        return LastReadLimits(LimitsRevision(tenant, page.revision), page.effective_limits)

    async def reread_limits(self, tenant: str, now_unix_ms: int) -> None:
        """Read them again and tell the store. Raises BusError, Fenced, RedisFailure."""
        page = await self._read_limits(tenant)
        await self._store.record_limits_read(LimitsRevision(tenant, page.revision), now_unix_ms)

    async def _read_limits(self, tenant: str) -> TenantLimits:
        stored = await self._bus.last(JOURNAL_INBOX, subjects.mesh_subject("budget", JOURNAL, LIMITS_TENANT, tenant))
        tenant_limits = TenantLimits()
        if stored is not None:
            try:
                body = inbound.read_message(stored, JOURNAL).body
            except Unreadable as error:
                raise BusUnavailable(
                    f"the limits of tenant {tenant} cannot be read ({error.reason}); start the newer version of budget"
                ) from error
            assert isinstance(body, LimitsChanged), "nobody says anything else there"
            limits, changed_unix_ms = {row.target: row.limit for row in body.limits}, body.changed_unix_ms
            tenant_limits = TenantLimits(
                body.revision, stored.sequence, body.change, limits, body.top_ups, changed_unix_ms, body.changes
            )
        cached = self._limits_by_tenant.get(tenant, TenantLimits())
        # A follower that lags knows less than this replica does.
        self._limits_by_tenant[tenant] = tenant_limits if tenant_limits.revision >= cached.revision else cached
        return self._limits_by_tenant[tenant]

    # Requests

    async def answer_limits(self, message: ReceivedMessage) -> LimitsReplied:
        """Read, or change: the fact first, then the store, then the answer."""
        body = message.body
        assert isinstance(body, LimitsRequested)
        if (failure := check_requester(body, message.tenant)) is not None:
            return LimitsReplied(failure=failure)
        try:
            if body.target is None:
                current = await self._read_limits(message.tenant)
                alerts = tuple(
                    alert for alert in await self._latest_alerts(message.tenant) if is_in_force(alert, current)
                )
                history = await self._recent_changes(message.tenant, current) if body.history else ()
                return _limits_reply(current, alerts, history)
            changed = await self._store_change(
                message,
                body,
                lambda page, change: build_limits_change(page, body, message.tenant, change, self._clock()),
            )
            if isinstance(changed, Failure):
                return LimitsReplied(failure=changed)
            await self._apply_everywhere(
                message.tenant, changed, body.target, f"{body.requester.person} changed {body.target}"
            )
        except BusError as error:
            return LimitsReplied(failure=_journal_unavailable(error))
        return _limits_reply(changed)

    async def _recent_changes(self, tenant: str, tenant_limits: TenantLimits) -> tuple[LimitChange, ...]:
        """The last changes, the newest first; what only a newer budget can read is left out. Raises BusError."""
        subject, since = subjects.mesh_subject("budget", JOURNAL, LIMITS_TENANT, tenant), self._clock() - HISTORY_MS
        after, changes = (
            await last_before(self._bus, JOURNAL_INBOX, subject, since, tenant_limits.sequence),
            list[LimitChange](),
        )
        for _ in range(MAX_HISTORY_PAGES):
            stored = await self._bus.read(JOURNAL_INBOX, subject, after=after, limit=HISTORY_PAGE)
            changes = [*changes, *_limit_changes(stored)][-MAX_CHANGES_LISTED:]
            after = stored[-1].sequence if stored else tenant_limits.sequence
            if after >= tenant_limits.sequence:
                break
        return tuple(reversed(changes))

    async def _latest_alerts(self, tenant: str) -> tuple[Alerted, ...]:
        """None while Redis is away: the facts stand in the journal."""
        try:
            return tuple(await latest_alerts(self._store, tenant))
        except RedisFailure:
            return ()

    async def answer_top_up(self, message: ReceivedMessage) -> TopUpReplied:
        """Give a task more: as a change of the limits; then what is halted at its ceiling goes on."""
        body = message.body
        assert isinstance(body, TopUpRequested)
        if (failure := check_top_up(body, message.tenant)) is not None:
            return TopUpReplied(failure=failure)
        try:
            changed = await self._store_change(
                message,
                body,
                lambda page, change: build_top_up_change(page, body, message.tenant, change, self._clock()),
            )
            if isinstance(changed, Failure):
                return TopUpReplied(failure=changed)
            cause = f"{body.requester.person} topped it up"
            resumed = await self._apply_everywhere(message.tenant, changed, f"task/{body.task}", cause)
        except BusError as error:
            return TopUpReplied(failure=_journal_unavailable(error))
        metrics.top_ups.add(1)
        added = next((top_up.add for top_up in changed.top_ups if top_up.task == body.task), Limit())
        return TopUpReplied(added=added, revision=changed.revision, resumed=resumed > 0)

    async def _apply_everywhere(self, tenant: str, tenant_limits: TenantLimits, target: str, reason: str) -> int:
        """It is stored: have it hold everywhere, and who waits for it go on. Raises BusError."""
        await self._announce_revision(LimitsRevision(tenant, tenant_limits.revision))
        return await self.on_change(tenant, target, reason) if self.on_change else 0

    async def _announce_revision(self, revision: LimitsRevision) -> None:
        """The store knows it before the asker does: then it holds everywhere. It is stored in any case."""
        for _ in range(ANNOUNCE_TRIES):
            try:
                await self._store.record_limits_read(revision, self._clock())
                return
            except (Fenced, *RedisFailure) as error:
                self._mark_ledger_lost(str(error) or type(error).__name__)
                log.warning("limits_not_told", tenant=revision.tenant, reason=str(error))
                await asyncio.sleep(ANNOUNCE_RETRY_S)

    async def _store_change(
        self,
        message: ReceivedMessage,
        body: ChangeRequest,
        build_fact: Callable[[TenantLimits, str], LimitsChanged | Failure],
    ) -> TenantLimits | Failure:
        """A request is known by its content beside its id, which its sender chooses."""
        change = f"{message.envelope.id[:MAX_ID_CHARS]}-{content_digest(body)}"
        for _ in range(CHANGE_TRIES):
            tenant_limits = await self._read_limits(message.tenant)
            if change in tenant_limits.known_changes:
                return tenant_limits  # The answer to the first try was lost, whatever others have changed since then.
            if message.envelope.id in tenant_limits.known_changes:
                return tenant_limits  # As facts had it that did not remember contents yet.
            fact = build_fact(tenant_limits, change)
            if isinstance(fact, Failure):
                return fact
            try:
                await self._publisher.send(
                    JOURNAL,
                    fact,
                    tenant=LIMITS_TENANT,
                    task=message.tenant,
                    cause=message.envelope.id,
                    index=f"limits/{fact.revision}",
                    actor=fact.by,
                    expect_last_on_subject=tenant_limits.sequence,
                )
            except WrongLastSequence:
                continue
            old, new = fact.old.model_dump_json(), fact.new.model_dump_json()
            log.warning("limits_changed", tenant=message.tenant, target=fact.target, by=fact.by, old=old, new=new)
            return await self._read_limits(message.tenant)
        return Failure.from_text(
            "busy", "others change this tenant's limits at the same time", "read them, then try again"
        )


def _journal_unavailable(error: BusError) -> Failure:
    reason = f"the journal does not answer: {error}"
    return Failure.from_text(
        "unavailable", reason, "read the limits to see whether the change was made, then make it again"
    )


def _limits_reply(
    tenant_limits: TenantLimits, alerts: tuple[Alerted, ...] = (), history: tuple[LimitChange, ...] = ()
) -> LimitsReplied:
    return LimitsReplied(
        revision=tenant_limits.revision,
        limits=rows_of(tenant_limits.limits),
        top_ups=tenant_limits.top_ups,
        alerts=alerts,
        history=history,
    )


def _limit_changes(page: Iterable[StoredMessage]) -> Iterator[LimitChange]:
    for stored in page:
        try:
            body = inbound.read_message(stored, JOURNAL).body
        except Unreadable:
            continue
        if isinstance(body, LimitsChanged):
            yield LimitChange(**{name: getattr(body, name) for name in LimitChange.model_fields})
