"""Limits on what callers hold of this replica at once: event streams, and bytes of request bodies.

In: the caller, a request. Out: a place, or a body; else a Problem that says what to do. Counts live in the process.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import Problem, too_large, too_many, unavailable
from bulkhead_services.gateway.settings import Settings

RETRY_AFTER_S = 5


class StreamCaps:
    """Open event streams: in all, per tenant, per person."""

    def __init__(self, settings: Settings) -> None:
        self._all, self._per_tenant = settings.max_streams, settings.max_streams_per_tenant
        self._per_person = settings.max_streams_per_person
        self._open: Counter[tuple[str, ...]] = Counter()

    def take(self, claim: RequesterClaim) -> Callable[[], None]:
        """Take a place; the returned function gives it back. Raises Problem (429, 503)."""
        person, tenant = (claim.tenant, claim.person), (claim.tenant,)
        # Taken before anything is awaited: many at once must not all pass the same check.
        if self._open[person] >= self._per_person:
            raise _too_many(
                "you have",
                self._per_person,
                "close streams that you no longer read (each open `bulkhead watch` is one), or ask "
                "GET /v1/tasks/{id} for what you do not follow live",
            )
        if self._open[tenant] >= self._per_tenant:
            hint = "come back when others of your tenant have closed theirs; GET /v1/tasks/{id} is not bounded by this"
            raise _too_many("your tenant has", self._per_tenant, hint)
        if self._open[()] >= self._all:
            what = "this replica takes no more event streams"
            raise unavailable(what, "reconnect in a moment; another replica may answer")
        places = (person, tenant, ())
        self._open.update(places)
        return lambda: self._release(places)

    def _release(self, places: tuple[tuple[str, ...], ...]) -> None:
        self._open.subtract(places)
        for place in places:
            if not self._open[place]:
                del self._open[place]


def _too_many(whose: str, limit: int, hint: str) -> Problem:
    detail = f"{whose} {limit} open event streams at this replica, as many as are allowed"
    return too_many(
        "too_many_streams", "Too many event streams", detail, hint, retry_after_s=RETRY_AFTER_S, limit=limit
    )


class Bodies:
    """Request bodies: each bounded in size and time, and their bytes per person, per tenant and in all."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.body_timeout_s
        self._rate = settings.body_min_bytes_per_s
        self._most = settings.max_body_bytes_held
        self._most_of_tenant = settings.max_body_bytes_held_per_tenant
        self._most_of_person = settings.max_body_bytes_held_per_person
        self._held: Counter[tuple[str, ...]] = Counter()

    @property
    def held(self) -> int:
        """Bytes of all bodies that are being read or handled."""
        return self._held[()]

    @asynccontextmanager
    async def read(self, request: Request, claim: RequesterClaim, limit: int, extra: int = 0) -> AsyncIterator[bytes]:
        """The body, read no further than its bound (`extra` is room for framing). Raises Problem (408, 413, 429,
        503)."""
        places = (claim.tenant, claim.person), (claim.tenant,), ()
        hint = f"send at most {limit} bytes; long material belongs in documents (POST /v1/documents)"
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit + extra:
            raise too_large("the request body", limit, "bytes", hint)
        raw = bytearray()
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout_at(began + self._timeout_s) as deadline:
                async for chunk in request.stream():
                    raw += chunk
                    for place in places:
                        self._held[place] += len(chunk)
                    if len(raw) > limit + extra:
                        raise too_large("the request body", limit, "bytes", hint)
                    self._check(*(self._held[place] for place in places))
                    deadline.reschedule(began + self._timeout_s + len(raw) / self._rate)
            yield bytes(raw)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            title, what = "The body arrived too slowly", f"{len(raw)} bytes arrived in {loop.time() - began:.0f} s"
            todo, headers = f"send it at {self._rate} bytes/s or more", {"Connection": "close"}
            raise Problem(408, "too_slow", title, what, todo, headers=headers) from error
        finally:
            for place in places:
                self._held[place] -= len(raw)
                if not self._held[place]:
                    del self._held[place]

    def _check(self, of_person: int, of_tenant: int, of_all: int) -> None:
        # Shares first: a caller who sends too much hears of it before others are refused.
        if of_person > self._most_of_person:
            raise _too_much("you are", self._most_of_person, "send them one after another")
        if of_tenant > self._most_of_tenant:
            raise _too_much("your tenant is", self._most_of_tenant, "send it again when others of your tenant are done")
        if of_all > self._most:
            raise unavailable("this replica is reading as many large bodies as it may", "send it again in a moment")


def _too_much(whose: str, limit: int, hint: str) -> Problem:
    title, detail = "Too many large bodies at once", f"{whose} sending more than {limit} bytes to this replica at once"
    return too_many("too_many_bodies", title, detail, hint, retry_after_s=RETRY_AFTER_S, limit=limit)
