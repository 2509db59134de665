"""Request bodies: each bounded in size and time, and their bytes per person, per tenant and in all.

In: the caller, a request. Out: its body, or BodyRefused, which says what to do. Counts live in the process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.requests import Request

from bulkhead.callers.shares import Share, Shares
from bulkhead_contracts.task import RequesterClaim

RETRY_AFTER_S = 5


class BodyLimits(Protocol):
    """Settings of a service that reads bodies. max_body_bytes_held*: of those that are being read or handled."""

    @property
    def body_timeout_s(self) -> float: ...
    @property
    def body_min_bytes_per_s(self) -> int: ...
    @property
    def max_body_bytes_held(self) -> int: ...
    @property
    def max_body_bytes_held_per_tenant(self) -> int: ...
    @property
    def max_body_bytes_held_per_person(self) -> int: ...


class BodyRefused(Exception):
    """A body that is not taken. status: of HTTP. closing: the connection is of no more use."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        hint: str,
        *,
        limit: int | None = None,
        retry_after_s: int | None = None,
        closing: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.title, self.detail, self.hint = status, code, title, detail, hint
        self.limit, self.closing, self.retry_after_s = limit, closing, retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        headers = {"Connection": "close"} if self.closing else {}
        return headers if self.retry_after_s is None else headers | {"Retry-After": str(self.retry_after_s)}


class BodyReader:
    """The bodies that one replica holds."""

    def __init__(self, limits: BodyLimits) -> None:
        self._timeout_s = limits.body_timeout_s
        self._rate = limits.body_min_bytes_per_s
        of_tenant, of_person = limits.max_body_bytes_held_per_tenant, limits.max_body_bytes_held_per_person
        self._held, self._of_person = Shares(limits.max_body_bytes_held, of_tenant, of_person), of_person

    @property
    def held(self) -> int:
        """Bytes of all bodies that are being read or handled."""
        return self._held.held

    @asynccontextmanager
    async def read(
        self,
        request: Request,
        claim: RequesterClaim,
        limit: int,
        extra: int = 0,
        hint: str = "",
        weigh: Callable[[bytes], int] = lambda raw: 0,
    ) -> AsyncIterator[bytes]:
        """The body, read no further than its bound (`extra` is room for framing). weigh: bytes that it takes beside its
        own while it is handled; held with it, as far as one body alone fits. Raises BodyRefused (400, 408, 413, 429,
        503)."""
        caller = claim.tenant, claim.person
        too_large = BodyRefused(
            413,
            "too_large",
            "Too large",
            f"the request body is larger than {limit} bytes",
            hint or f"send at most {limit} bytes",
            limit=limit,
        )
        declared = request.headers.get("content-length", "")
        if declared and "transfer-encoding" in request.headers:
            detail, todo = "the request has both Content-Length and Transfer-Encoding", "send one of them"
            raise BodyRefused(
                400, "ambiguous_length", "The length of the body is ambiguous", detail, todo, closing=True
            )
        if declared.isdigit() and int(declared) > limit + extra:
            raise too_large
        raw, held_bytes = bytearray(), 0
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout_at(began + self._timeout_s) as deadline:
                async for chunk in request.stream():
                    raw += chunk
                    held_bytes += len(chunk)
                    self._held.hold_amount(*caller, len(chunk))
                    if len(raw) > limit + extra:
                        raise too_large
                    if (full := self._held.first_full_share(*caller, 0)) is not None:
                        raise _refuse_over_share(full)
                    deadline.reschedule(began + self._timeout_s + len(raw) / self._rate)
            body = bytes(raw)
            weight = max(0, min(weigh(body), self._of_person - held_bytes))
            held_bytes += weight
            self._held.hold_amount(*caller, weight)
            if (full := self._held.first_full_share(*caller, 0)) is not None:
                raise _refuse_over_share(full)
            yield body
        except TimeoutError as error:
            if not deadline.expired():
                raise
            title, detail = "The body arrived too slowly", f"{len(raw)} bytes arrived in {loop.time() - began:.0f} s"
            todo = f"send it at {self._rate} bytes/s or more"
            raise BodyRefused(408, "too_slow", title, detail, todo, closing=True) from error
        finally:
            self._held.release_amount(*caller, held_bytes)


def _refuse_over_share(full: Share) -> BodyRefused:
    if full.holder == "all":
        reason = "this replica is reading as many large bodies as it may"
        return BodyRefused(
            503, "unavailable", "Not available now", reason, "send it again in a moment", retry_after_s=2
        )
    whose, hint = "you are", "send them one after another"
    if full.holder == "tenant":
        whose, hint = "your tenant is", "send it again when others of your tenant are done"
    title = "Too many large bodies at once"
    detail = f"{whose} sending more than {full.capacity} bytes to this replica at once"
    return BodyRefused(429, "too_many_bodies", title, detail, hint, retry_after_s=RETRY_AFTER_S, limit=full.capacity)
