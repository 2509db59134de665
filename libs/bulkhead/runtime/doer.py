"""What a doer is: one request in, one reply out, done at most once.

The shell (runtime/shell.py) keeps this order for every doer:
verify the grant -> look up the record -> claim (writes) -> act (which reserves) -> record -> settle -> reply -> ack.
A doer's `core.py` implements `Doer`; its `effects.py` touches the world; both use `Hands`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from bulkhead.blobs import Blobs
from bulkhead.grants import Authority, Signer
from bulkhead_contracts.budget import Amount, Settled
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.types import Body, Contract

R = TypeVar("R", bound=Body)


class Deferred(Exception):
    """May not act yet: the shell answers `CallDeferred` and acks; the requester asks again later."""

    def __init__(self, after_ms: int, reason: str) -> None:
        super().__init__(reason)
        self.after_ms = after_ms
        self.reason = reason


class Refused(Exception):
    """Will not act (budget, halt, grant): the shell answers with `Doer.refuse`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """One verified request. `deliveries` is 1 the first time; `authority` is what the grant allows."""

    request: R
    envelope: Envelope
    tenant: str
    task: str
    sender: str
    authority: Authority
    deliveries: int
    now_unix_ms: int


@dataclass(slots=True)
class Reservation:
    """Money held for one outward attempt. Settle it with the real usage, or with Usage() when nothing was called.

    What is never settled is charged in full (`estimated`): a crash or a missing usage report must not be free.
    """

    reservation_id: str
    call_id: str
    worst_case: Amount
    settled: Settled | None = None

    def settle(self, usage: Usage, *, estimated: bool = False) -> None:
        """Fix what this attempt used; published by the shell with the reply."""
        self.settled = Settled(
            reservation_id=self.reservation_id, call_id=self.call_id, usage=usage, estimated=estimated
        )


Reserve = Callable[["Job[Body]", str, int, str, str, Amount, str], Awaitable[Reservation]]


@dataclass(slots=True)
class Hands:
    """What the shell lends a doer for one job."""

    blobs: Blobs
    signer: Signer
    now_unix_ms: Callable[[], int]
    _reserve: Reserve
    _halt_of: Callable[[str, str, str], Halt | None]
    _halt_event: Callable[[str, str], asyncio.Event]
    _live: Callable[[str, str, Contract], Awaitable[None]]
    reservations: list[Reservation] = field(default_factory=list)

    async def reserve(
        self,
        job: "Job[R]",
        call_id: str,
        attempt: int,
        *,
        purpose: Literal["model", "tool", "retrieval"],
        resource: str,
        worst_case: Amount,
        price_digest: str = "",
    ) -> Reservation:
        """Admission for one outward attempt (numbered from 0). Raises Refused (ceiling, halt) or Deferred."""
        reservation = await self._reserve(job, call_id, attempt, purpose, resource, worst_case, price_digest)  # type: ignore[arg-type]
        self.reservations.append(reservation)
        return reservation

    def halted(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Halt | None:
        """The halt that stops this job now (task, tenant, tool or model), if any."""
        return self._halt_of(job.tenant, job.task, tool or model)

    def halt_event(self, job: "Job[R]") -> asyncio.Event:
        """Set as soon as the job's task or tenant is halted: race streams against it and cut them."""
        return self._halt_event(job.tenant, job.task)

    async def live(self, job: "Job[R]", body: Contract) -> None:
        """Publish unstored progress (TextDelta) for the job's task."""
        await self._live(job.tenant, job.task, body)


class Doer(Protocol[R]):
    """One doer service."""

    service: str
    handles: tuple[type[Body], ...]

    def key(self, request: R) -> str:
        """Idempotency key within the task: a subject token, normally the call id."""
        ...

    def writes(self, job: Job[R]) -> bool:
        """Whether acting changes the world and is not safe to repeat: the shell claims the key first, durably."""
        ...

    async def act(self, job: Job[R], hands: Hands) -> Body:
        """Do it and return the reply. Expected failures are replies; may raise Deferred, Refused."""
        ...

    def refuse(self, request: R, failure: Failure) -> Body:
        """The reply that says no."""
        ...

    def uncertain(self, request: R) -> Body:
        """The reply when a claimed write has no recorded outcome: it may have happened."""
        ...
