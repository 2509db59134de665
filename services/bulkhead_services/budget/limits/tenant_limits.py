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
from bulkhead.bus.port import Bus, BusError, BusUnavailable, Stored, WrongLastSequence
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.protocol import Received
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
from bulkhead_services.budget.ledger.store import Fenced, RedisFailure, Revision, Store
from bulkhead_services.budget.limits.alerts import latest
from bulkhead_services.budget.limits.changes import (
    MAX_ID_CHARS,
    Page,
    Request,
    changed,
    content_of,
    in_force,
    refused,
    rows_of,
    toppable,
    topped_up,
)

log = Log("budget.limits")

JOURNAL, JOURNAL_INBOX = "journal", subjects.inbox_stream("journal")
BOOK = "limits"
"""Tenant of the facts' subjects; the tenant that they are about stands where a task does. No publisher may say it."""
MAX_KNOWN_TENANTS = 10_000
TELLS, TELL_AGAIN_S = 6, 0.2
"""Attempts to tell a ledger that is being verified of a change before the answer; later it finds the change itself."""
HISTORY_MS = 31 * 24 * 3_600_000
HISTORY_PAGE, MAX_HISTORY_PAGES = 64, 16
"""A tenant that changes its limits more often in that time is told of the older ones of its changes."""
TRIES = 5
"""Attempts at a change while others change the same limits."""


class Known(NamedTuple):
    """What some targets' limits are at a revision of a tenant's."""

    revision: int
    limits: tuple[Limit | None, ...]


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
        self._pages = BoundedDict[str, Page](MAX_KNOWN_TENANTS)
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
        page = self._pages.use(tenant) or await self._read(tenant)
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
            limits, at = {row.target: row.limit for row in body.limits}, body.changed_unix_ms
            page = Page(body.revision, stored.sequence, body.change, limits, body.top_ups, at, body.changes)
        known = self._pages.get(tenant, Page())
        # A follower that lags knows less than this replica does.
        self._pages[tenant] = page if page.revision >= known.revision else known
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
                alerts = tuple(one for one in await self._alerts(message.tenant) if in_force(one, read))
                history = await self._history(message.tenant, read) if body.history else ()
                return _reply(read, alerts, history)
            page = await self._change(
                message, body, lambda page, change: changed(page, body, message.tenant, change, self._clock())
            )
            if isinstance(page, Failure):
                return LimitsReplied(failure=page)
            await self._holds(message.tenant, page, body.target, f"{body.requester.person} changed {body.target}")
        except BusError as error:
            return LimitsReplied(failure=_unavailable(error))
        return _reply(page)

    async def _history(self, tenant: str, page: Page) -> tuple[LimitChange, ...]:
        """The last changes, the newest first; what only a newer budget can read is left out. Raises BusError."""
        subject, since = subjects.mesh("budget", JOURNAL, BOOK, tenant), self._clock() - HISTORY_MS
        after, found = await last_before(self._bus, JOURNAL_INBOX, subject, since, page.sequence), list[LimitChange]()
        for _ in range(MAX_HISTORY_PAGES):
            stored = await self._bus.read(JOURNAL_INBOX, subject, after=after, limit=HISTORY_PAGE)
            found = [*found, *_changes(stored)][-MAX_CHANGES_LISTED:]
            after = stored[-1].sequence if stored else page.sequence
            if after >= page.sequence:
                break
        return tuple(reversed(found))

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
                message, body, lambda page, change: topped_up(page, body, message.tenant, change, self._clock())
            )
            if isinstance(page, Failure):
                return TopUpReplied(failure=page)
            why = f"{body.requester.person} topped it up"
            resumed = await self._holds(message.tenant, page, f"task/{body.task}", why)
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
        self, message: Received, body: Request, make: Callable[[Page, str], LimitsChanged | Failure]
    ) -> Page | Failure:
        """A request is known by its content beside its id, which its sender chooses."""
        change = f"{message.envelope.id[:MAX_ID_CHARS]}-{content_of(body)}"
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
            old, new = made.old.model_dump_json(), made.new.model_dump_json()
            log.warning("limits_changed", tenant=message.tenant, target=made.target, by=made.by, old=old, new=new)
            return await self._read(message.tenant)
        return Failure.of("busy", "others change this tenant's limits at the same time", "read them, then try again")


def _unavailable(error: BusError) -> Failure:
    what = f"the journal does not answer: {error}"
    return Failure.of("unavailable", what, "read the limits to see whether the change was made, then make it again")


def _reply(page: Page, alerts: tuple[Alerted, ...] = (), history: tuple[LimitChange, ...] = ()) -> LimitsReplied:
    return LimitsReplied(
        revision=page.revision, limits=rows_of(page.limits), top_ups=page.top_ups, alerts=alerts, history=history
    )


def _changes(page: Iterable[Stored]) -> Iterator[LimitChange]:
    for stored in page:
        try:
            body = inbound.read(stored, JOURNAL).body
        except Unreadable:
            continue
        if isinstance(body, LimitsChanged):
            yield LimitChange(**{name: getattr(body, name) for name in LimitChange.model_fields})
