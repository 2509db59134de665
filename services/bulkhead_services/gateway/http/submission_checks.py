"""What the HTTP API says of places: 429 for whom there is no room at the edge, and how a task waits.

In: who submits; a feed. Out: a Problem with Retry-After, or nothing; the queue as people see it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.errors import HandBack
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.backpressure import Backlog
from bulkhead_services.gateway.admission.quotas import PolicyDocument, TenantQuotas
from bulkhead_services.gateway.admission.rate_limits import Spikes, TooFast
from bulkhead_services.gateway.admission.run_queue import queued
from bulkhead_services.gateway.admission.run_slots import Admission
from bulkhead_services.gateway.http.schemas import QueueDocument
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.read_model.feeds import Feed

QUEUE_FULL_RETRY_S = 30


class Door:
    """Quotas at the door."""

    def __init__(
        self,
        quotas: TenantQuotas,
        spikes: Spikes,
        admission: Admission,
        backlog: Backlog,
        clock: Callable[[], int] = unix_ms,
    ) -> None:
        self._quotas = quotas
        self._spikes = spikes
        self._admission = admission
        self._backlog = backlog
        self._clock = clock

    def policy(self, tenant: str) -> PolicyDocument | None:
        """What the tenant's policy allows, where it is known here."""
        return self._quotas.policy(tenant)

    async def check(self, claim: RequesterClaim) -> None:
        """One task more of this person; waits a little while the tenant's last ones are not taken up. Raises Problem
        (429)."""
        await self._backlog.room(claim.tenant)
        fast = self._spikes.take("http", claim.tenant, claim.person, self._clock())
        if fast is not None:
            raise _too_fast(fast)
        limit, book = self._quotas.of(claim.tenant).waiting, self._admission.book
        if book is not None and book.waiting_of(claim.tenant) >= max(1, limit):
            raise Problem(
                429,
                "queue_full",
                "Too many tasks wait",
                f"{limit} tasks of your tenant wait for a place to run, as many as may",
                "submit it again, with the same key, when some have begun: "
                "`bulkhead tasks` shows them; or cancel what is no longer wanted",
                headers={"Retry-After": str(QUEUE_FULL_RETRY_S)},
                limit=limit,
            )

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

    async def place(self, feed: Feed) -> QueueDocument | None:
        """How a task waits; None when it does not. Raises BusError."""
        if feed.view.status != "queued":
            return None
        try:
            book = await self._admission.fresh()
        except HandBack:
            return None
        one = book.waiting.get((feed.tenant, feed.task))
        if one is None:
            return None  # Released just now.
        now = queued(book, self._admission.quotas, one)
        return QueueDocument(
            since_unix_ms=feed.view.queued_unix_ms,
            ahead=book.ahead_of(one),
            waiting=book.waiting_of(feed.tenant),
            full=now.full,
            running=now.running,
            limit=now.limit,
        )


def _too_fast(fast: TooFast) -> Problem:
    return Problem(
        429,
        "too_many_tasks",
        "Too many tasks at once",
        fast.message,
        fast.hint,
        headers={"Retry-After": str(fast.wait_s)},
        limit=fast.limit,
    )
