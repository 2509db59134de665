"""Limits on what callers hold of this replica at once: event streams, and bytes of request bodies.

In: the caller, a request. Out: a place, or a body; else a Problem that says what to do. Counts live in the process.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import Request

from bulkhead.callers.shares import Share, Shares
from bulkhead.http_server import bodies
from bulkhead.runtime.component import Pool
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.rate_limits import Spikes, Stored
from bulkhead_services.gateway.problems import Problem, too_many, unavailable
from bulkhead_services.gateway.settings import Settings

RETRY_AFTER_S = 5


class StreamCaps:
    """Open event streams: in all, per tenant, per person."""

    def __init__(self, settings: Settings) -> None:
        most = settings.max_streams, settings.max_streams_per_tenant, settings.max_streams_per_person
        self._open = Shares(*most)

    def pool(self) -> Pool:
        """Open streams, of those that this replica may hold."""
        return Pool(self._open.most, self._open.held)

    def take(self, claim: RequesterClaim) -> Callable[[], None]:
        """Take a place; the returned function gives it back. Raises Problem (429, 503)."""
        # Taken before anything is awaited: many at once must not all pass the same check.
        match self._open.full(claim.tenant, claim.person):
            case Share("person", most):
                hint = (
                    "close streams that you no longer read (each open `bulkhead watch` is one), or ask "
                    "GET /v1/tasks/{id} for what you do not follow live"
                )
                raise _too_many("you have", most, hint)
            case Share("tenant", most):
                hint = (
                    "come back when others of your tenant have closed theirs; GET /v1/tasks/{id} is not bounded by this"
                )
                raise _too_many("your tenant has", most, hint)
            case Share():
                what = "this replica takes no more event streams"
                raise unavailable(what, "reconnect in a moment; another replica may answer")
        self._open.take(claim.tenant, claim.person)
        return lambda: self._open.give(claim.tenant, claim.person)


def _too_many(whose: str, limit: int, hint: str) -> Problem:
    detail = f"{whose} {limit} open event streams at this replica, as many as are allowed"
    return too_many(
        "too_many_streams", "Too many event streams", detail, hint, retry_after_s=RETRY_AFTER_S, limit=limit
    )


class Bodies:
    """Request bodies, bounded and counted towards their tenant's day."""

    def __init__(self, settings: Settings, spikes: Spikes, clock: Callable[[], int]) -> None:
        self._spikes, self._clock = spikes, clock
        self._bodies = bodies.Bodies(settings)

    @property
    def held(self) -> int:
        """Bytes of all bodies that are being read or handled."""
        return self._bodies.held

    @asynccontextmanager
    async def read(
        self, request: Request, claim: RequesterClaim, limit: int, extra: int = 0, kind: Stored = "request"
    ) -> AsyncIterator[bytes]:
        """The body, read no further than its bound (`extra` is room for framing). Raises Problem (400, 408, 413, 429,
        503)."""
        hint = f"send at most {limit} bytes; long material belongs in documents (POST /v1/documents)"
        async with AsyncExitStack() as stack:
            try:
                raw = await stack.enter_async_context(self._bodies.read(request, claim, limit, extra, hint))
            except bodies.BodyRefused as refused:
                texts = refused.title, refused.detail, refused.hint
                headers, most = refused.headers, refused.limit
                raise Problem(refused.status, refused.code, *texts, headers=headers, limit=most) from refused
            self._count(kind, claim.tenant, len(raw))
            yield raw

    def _count(self, kind: Stored, tenant: str, size: int) -> None:
        fast = self._spikes.store(kind, tenant, size, self._clock())
        if fast is not None:
            title, wait_s = "The day's bytes are spent", fast.wait_s
            raise too_many("too_many_bytes", title, fast.message, fast.hint, retry_after_s=wait_s, limit=fast.limit)
