"""What a doer is: one request in, one reply out, done at most once.

The shell (runtime/shell.py) keeps this order for every doer:
verify the grant -> look up the record -> claim (writes) -> act (which reserves) -> record -> settle -> reply -> ack.
A doer's `core.py` implements `Doer`; its `effects.py` touches the world; both use `Hands`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from bulkhead.blobs import Blobs
from bulkhead.grants import Authority, Signer
from bulkhead.runtime.halts.live import Held, Key, Target, key_of
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount, Settled
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.types import Body, Contract

R = TypeVar("R", bound=Body)


class Deferred(Exception):
    """May not act yet: the shell answers `CallDeferred` and acks; the requester asks again later.

    paused: a halt or an open breaker holds it back; see `CallDeferred`. halt: which of them, and since when; its end
    wakes the asker.
    """

    def __init__(
        self, after_ms: int, reason: str, *, paused: bool = False, code: str = "", halt: tuple[Key, int] | None = None
    ) -> None:
        super().__init__(reason)
        self.after_ms = after_ms
        self.reason = reason
        self.paused = paused
        self.code = code
        self.halt = halt
        self.usage = Usage()


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
    clock: Callable[[], int] = lambda: 0
    since_unix_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self.since_unix_ms = self.clock()

    def settle(self, usage: Usage, *, estimated: bool = False) -> None:
        """Fix what this attempt used; published by the shell with the reply."""
        self.settled = Settled(
            reservation_id=self.reservation_id,
            call_id=self.call_id,
            usage=usage,
            estimated=estimated,
            wall_ms=max(0, self.clock() - self.since_unix_ms),
        )


PAUSE_FIRST_MS = 500
PAUSE_MOST_MS = 60_000
"""So seldom work that waits asks at last: a night is some hundred messages of each call."""
CEILING = "budget_exceeded"
"""Code of budget's halts."""


def target_of(job: Job[R], tool: str = "", model: str = "") -> Target:
    """Everything of a job that a halt or a breaker can name. Its agent: the service that asks, then its role."""
    step = job.authority.step
    role = f"{job.sender}.{step.role}" if step is not None and step.role else ""
    # A prompt is named by its sender: it cannot hide one agent behind another, only behind itself.
    prompt = str(getattr(job.request, "prompt_id", ""))
    named = role or (prompt if prompt.startswith(f"{job.sender}.") else "")
    feature = str(getattr(job.authority.task, "feature", "") or "")
    return Target(job.tenant, job.task, (job.sender, named) if named else (job.sender,), feature, tool, model)


def agent_of(job: Job[R]) -> str:
    """On whose behalf, as spending is counted: `worker.researcher`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", target_of(job).agents[-1])[: bounds.MAX_NAME_CHARS]


def ended_by(halt: Halt, more: str = "") -> str:
    """Why a halt ended a call, in words that name what it halts and tell its reason; more: what was in flight."""
    return f"{halt.scope} {halt.known_as} is halted{more}: {halt.reason}"[:2000]


def reason_of(held: Held) -> str:
    """What an open breaker says to whoever it holds back."""
    one = held.breaker
    return (
        f"the breaker of {one.scope} {one.known_as} is open: {one.reason}. Tried again in "
        f"{max(1, round(held.retry_after_ms / 1000))} s"
    )[:2000]


def open_breaker(held: Held) -> Failure:
    """What the asker gets in place of a call; nothing was done."""
    return Failure(
        code="breaker_open",
        message=reason_of(held),
        hint=f"go another way, or try again in {max(1, round(held.retry_after_ms / 1000))} s",
    )


Keep = Callable[[Reservation], None]
Reserve = Callable[["Job[Body]", str, int, str, str, Amount, str, Keep], Awaitable[Reservation]]


@dataclass(slots=True)
class Hands:
    """What the shell lends a doer for one job."""

    blobs: Blobs
    signer: Signer
    now_unix_ms: Callable[[], int]
    _reserve: Reserve
    _halt_of: Callable[[Target], Halt | None]
    _halt_event: Callable[[Target], asyncio.Event]
    _live: Callable[[str, str, Contract], Awaitable[None]]
    _held: Callable[[Target, int], Held | None] = lambda target, now_unix_ms: None
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
        reservation = await self._reserve(
            job,
            call_id,
            attempt,
            purpose,
            resource,
            worst_case,
            price_digest,  # type: ignore[arg-type]
            self.reservations.append,
        )
        # That may have taken seconds: what was halted meanwhile is not begun, so that nothing is charged.
        named = {purpose: resource} if purpose != "retrieval" else {}
        if (stands := self.stopped(job, **named)) is not None:
            reservation.settle(Usage())
            self.halted(job, **named)
            raise Refused(Failure.of("halted", ended_by(stands), "an operator must lift the halt"))
        return reservation

    def halted(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Halt | None:
        """The halt that ends this job now, if any. Raises Deferred when a halt only pauses it."""
        halt = self._halt_of(target_of(job, tool, model))
        if halt is not None and halt.pauses:
            raise self.paused(halt)
        return halt

    def cut(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Halt:
        """The halt that ended what was in flight. Raises Deferred when it only pauses, or was lifted meanwhile."""
        halt = self.halted(job, tool=tool, model=model)
        if halt is None:
            raise Deferred(PAUSE_FIRST_MS, "it was halted, and let go on at once", paused=True)
        return halt

    def stopped(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Halt | None:
        """The halt that ends or pauses this job now, if any."""
        return self._halt_of(target_of(job, tool, model))

    def paused(self, halt: Halt) -> Deferred:
        """To be raised for a halt that pauses: the longer it stands, the seldomer its work asks."""
        age_ms = max(0, self.now_unix_ms() - halt.at_unix_ms)
        what = "the task" if halt.scope == "task" else f"{halt.scope} {halt.known_as}"
        whose = f" --tenant {halt.tenant}" if halt.tenant and halt.scope != "task" else ""
        reason = (
            f"{what} is halted by {halt.by}: {halt.reason}. It goes on after `bulkhead resume --{halt.scope} "
            f"{halt.known_as}{whose}`"
        )
        if halt.code == CEILING:
            reason = halt.reason  # It says itself what lets it go on: more money, not a word.
        return Deferred(
            min(max(age_ms // 4, PAUSE_FIRST_MS), PAUSE_MOST_MS),
            reason[:2000],
            paused=True,
            code=halt.code,
            halt=(key_of(halt), halt.at_unix_ms),
        )

    def tripped(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Held | None:
        """The open breaker of this tool or model, which calls nothing now. A call that may go out counts as a trial.

        Ask right before the call. Raises Deferred when the breaker is the tenant's or the agent's: it pauses them.
        """
        held = self._held(target_of(job, tool, model), self.now_unix_ms())
        if held is not None and held.breaker.scope in ("tenant", "agent"):
            raise self.held_back(held)
        return held

    @staticmethod
    def held_back(held: Held) -> Deferred:
        """To be raised for a breaker that makes calls wait: for its time, or until it is closed."""
        return Deferred(
            held.retry_after_ms,
            reason_of(held),
            paused=True,
            code="breaker_open",
            halt=(held.key, held.breaker.since_unix_ms),
        )

    def halt_event(self, job: "Job[R]", *, tool: str = "", model: str = "") -> asyncio.Event:
        """Set while the job, or what it uses, is halted: race streams against it and cut them."""
        return self._halt_event(target_of(job, tool, model))

    async def live(self, job: "Job[R]", body: Contract) -> None:
        """Publish unstored progress (TextDelta) for the job's task."""
        await self._live(job.tenant, job.task, body)


class Doer(Protocol[R]):
    """One doer service. Optional members: `asides`, what it takes beside calls (runtime/asides.py); `changes(request)`,
    whether acting on it may change the world, claimed or not (default: what is not claimed changes nothing);
    `turn(job, hands)`, what a call holds while it is claimed and done, and waits for before that (raises Refused,
    Deferred, HandBack); `drain()`: nothing that waits is to begin any more.
    """

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
