"""Checks of a submission before it is stored (429, 422), and the queue as people see it.

In: the submitter; a feed. Out: a Problem, or nothing; how a task waits.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bulkhead.runtime.errors import HandBack
from bulkhead.tenant_quotas import PolicyDocument, TenantQuotas
from bulkhead.validation_errors import meant
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.backpressure import Backlog
from bulkhead_services.gateway.admission.rate_limits import Spikes
from bulkhead_services.gateway.admission.run_queue import Book, queued
from bulkhead_services.gateway.admission.run_slots import Admission
from bulkhead_services.gateway.http.schemas import QueueDocument
from bulkhead_services.gateway.problems import Problem, too_many
from bulkhead_services.gateway.read_model.feeds import Feed

QUEUE_FULL_RETRY_S = 30


class Door:
    """Quotas and the tenant's policy, checked before a request is stored."""

    def __init__(
        self, quotas: TenantQuotas, spikes: Spikes, admission: Admission, backlog: Backlog, clock: Callable[[], int]
    ) -> None:
        self._quotas, self.spikes, self._admission = quotas, spikes, admission
        self._backlog, self._clock = backlog, clock

    def policy(self, tenant: str) -> PolicyDocument | None:
        """The tenant's policy, where it is known here."""
        return self._quotas.policy(tenant)

    async def check(self, claim: RequesterClaim) -> None:
        """Count one submission; waits briefly while the tenant's last ones are not handled. Raises Problem (429)."""
        await self._backlog.room(claim.tenant)
        fast = self.spikes.take("http", claim.tenant, claim.person, self._clock())
        if fast is not None:
            title = "Too many tasks at once"
            raise too_many(
                "too_many_tasks", title, fast.message, fast.hint, retry_after_s=fast.wait_s, limit=fast.limit
            )
        limit, book = self._quotas.of(claim.tenant).waiting, self._admission.book
        if book is not None and book.waiting_of(claim.tenant) >= max(1, limit):
            raise too_many(
                "queue_full",
                "Too many tasks are waiting",
                f"{limit} tasks of your tenant wait for a place to run, which is its limit",
                "submit it again, with the same key, when some have begun: "
                "`bulkhead tasks` shows them; or cancel what is no longer wanted",
                retry_after_s=QUEUE_FULL_RETRY_S,
                limit=limit,
            )

    def check_tools(self, tenant: str, wanted: Iterable[str]) -> None:
        """Refuse tools that the tenant's policy does not name, where it is known here; the signer judges the rest.
        Raises Problem (422)."""
        known = self._quotas.tools(tenant)
        if known is None or not (foreign := sorted(set(wanted) - set(known))):
            return
        what = f"tenant {tenant} may not use: {', '.join(foreign)}"
        hint = f"it may use: {', '.join(known) or 'no tool'}{meant(foreign[0], known)}"
        raise Problem(422, "tools_not_granted", "These tools cannot be used", what, hint)

    @contextmanager
    def storing(self, tenant: str, task: str) -> Iterator[Callable[[bool], None]]:
        """Around the storing of a request, which may be taken up before its ack is here. Call what comes with whether
        it lies there now."""
        lies = False

        def tell(found: bool) -> None:
            nonlocal lies
            lies = found

        self._backlog.stored(tenant, task)
        try:
            yield tell
        finally:
            if not lies:
                self._backlog.taken_up(tenant, task)

    async def places(self) -> Book | None:
        """Which tasks run and wait now; None while that cannot be told. Raises BusError."""
        try:
            return await self._admission.fresh()
        except HandBack:
            return None

    async def place(self, feed: Feed) -> QueueDocument | None:
        """The queue before a task; None when it does not wait. Raises BusError."""
        if feed.view.status != "queued":
            return None
        book = await self.places()
        waiting = book.waiting.get((feed.tenant, feed.task)) if book is not None else None
        if book is None or waiting is None:
            return None  # Released just now.
        now = queued(book, self._admission.quotas, waiting)
        return QueueDocument(
            since_unix_ms=feed.view.queued_unix_ms,
            ahead=book.ahead_of(waiting),
            waiting=book.waiting_of(feed.tenant),
            full=now.full,
            running=now.running,
            limit=now.limit,
        )
