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
from bulkhead_services.gateway.admission.rate_limits import Stored, SubmissionRateLimits
from bulkhead_services.gateway.problems import Problem, too_many, unavailable
from bulkhead_services.gateway.settings import Settings

RETRY_AFTER_S = 5


class StreamCaps:
    """Open event streams: in all, per tenant, per person."""

    def __init__(self, settings: Settings) -> None:
        most = settings.max_streams, settings.max_streams_per_tenant, settings.max_streams_per_person
        self._open = Shares(*most)

    def stream_pool(self) -> Pool:
        """Open streams, of those that this replica may hold."""
        return Pool(self._open.capacity, self._open.held)

    def acquire_stream(self, claim: RequesterClaim) -> Callable[[], None]:
        """Take a place; the returned function gives it back. Raises Problem (429, 503)."""
        # Taken before anything is awaited: many at once must not all pass the same check.
        match self._open.first_full_share(claim.tenant, claim.person):
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
                detail = "this replica takes no more event streams"
                raise unavailable(detail, "reconnect in a moment; another replica may answer")
        self._open.hold_amount(claim.tenant, claim.person)
        return lambda: self._open.release_amount(claim.tenant, claim.person)


def _too_many(whose: str, limit: int, hint: str) -> Problem:
    detail = f"{whose} {limit} open event streams at this replica, as many as are allowed"
    return too_many(
        "too_many_streams", "Too many event streams", detail, hint, retry_after_s=RETRY_AFTER_S, limit=limit
    )


class GatewayRequestBodies:
    """Request bodies, bounded and counted towards their tenant's day."""

    def __init__(self, settings: Settings, spikes: SubmissionRateLimits, clock: Callable[[], int]) -> None:
        self._spikes, self._clock = spikes, clock
        self._bodies = bodies.BodyReader(settings)

    @property
    def bytes_held(self) -> int:
        """Bytes of all bodies that are being read or handled."""
        return self._bodies.held

    @asynccontextmanager
    async def read_body(
        self, request: Request, claim: RequesterClaim, limit: int, extra: int = 0, kind: Stored = "request"
    ) -> AsyncIterator[bytes]:
        """The body, read no further than its bound (`extra` is room for framing). Raises Problem (400, 408, 413, 429,
        503)."""
        way = "split it" if kind == "document" else "long material belongs in documents (POST /v1/documents)"
        hint = f"send at most {limit} bytes; {way}"
        async with AsyncExitStack() as stack:
            try:
                raw = await stack.enter_async_context(self._bodies.read(request, claim, limit, extra, hint))
            except bodies.BodyRefused as refused:
                texts = refused.title, refused.detail, refused.hint
                headers, most = refused.headers, refused.limit
                raise Problem(refused.status, refused.code, *texts, headers=headers, limit=most) from refused
            self._count_bytes(kind, claim, len(raw))
            yield raw

    def _count_bytes(self, kind: Stored, claim: RequesterClaim, size: int) -> None:
        exceeded = self._spikes.count_stored_bytes(kind, claim.tenant, claim.person, size, self._clock())
        if exceeded is not None:
            title, wait_s = "The day's bytes are spent", exceeded.wait_s
            if not wait_s:
                raise Problem(413, "too_large", "Too large", exceeded.message, exceeded.hint, limit=exceeded.limit)
            raise too_many(
                "too_many_bytes", title, exceeded.message, exceeded.hint, retry_after_s=wait_s, limit=exceeded.limit
            )
