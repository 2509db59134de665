"""The doer protocol: one request in, one reply out, done at most once.

The shell (runtime/doer/handler.py) keeps this order for every doer: verify the grant -> look up the
outcome -> claim (unkeyed writes) -> act (which reserves) -> reply (which settles) -> ack. A doer's `core.py`
implements `Doer`; its `effects.py` touches the world; both use `JobContext`.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from bulkhead.blobs import Blobs
from bulkhead.grants import Authority, Signer
from bulkhead.runtime.component import Component
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Deferred, JobRefused
from bulkhead.runtime.halts.live import CEILING_CODE, Halts, HaltTarget, OpenBreaker, key_of
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount, CallAhead, Settled
from bulkhead_contracts.control import Halt
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import LiveCall
from bulkhead_contracts.types import Body, Contract

R = TypeVar("R", bound=Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(ReceivedMessage, Generic[R]):
    """A request whose grant was verified. authority: what the grant allows. now_unix_ms: when that was looked at."""

    body: R
    authority: Authority
    now_unix_ms: int

    @property
    def request(self) -> R:
        """The request itself."""
        return self.body

    @classmethod
    def from_message(cls, message: ReceivedMessage, request: R, authority: Authority, now_unix_ms: int) -> "Job[R]":
        """The job of a message whose grant is good."""
        place = message.tenant, message.task, message.sender, message.sequence, message.time_unix_ms, message.attempts
        head, receiver = message.envelope, message.receiver
        return cls(head, *place, receiver, body=request, authority=authority, now_unix_ms=now_unix_ms)


@dataclass(slots=True)
class Reservation:
    """Money held for one outward attempt. Settle it with the real usage, or with Usage() when nothing was called.

    What is never settled is charged in full (`estimated`): a crash or a missing usage report must not be free.
    wall_until_unix_ms: the end of what a limit of wall time leaves; 0 without one.
    """

    reservation_id: str
    call_id: str
    worst_case: Amount
    settled: Settled | None = None
    clock: Callable[[], int] = lambda: 0
    wall_until_unix_ms: int = 0
    since_unix_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self.since_unix_ms = self.clock()

    def bound_deadline(self, deadline_unix_ms: int) -> int:
        """The deadline of an attempt, or the end of its wall time where that comes first."""
        return min(deadline_unix_ms, self.wall_until_unix_ms or deadline_unix_ms)

    def settle(self, usage: Usage, *, estimated: bool = False, failed: str = "") -> Settled:
        """Fix what this attempt used; published by the shell with the reply. estimated, failed: see Settled."""
        self.settled = Settled(
            reservation_id=self.reservation_id,
            call_id=self.call_id,
            usage=usage,
            estimated=estimated,
            wall_ms=max(0, self.clock() - self.since_unix_ms),
            failed=failed,
        )
        return self.settled

    def settle_at_last(self) -> Settled:
        """The settlement; what nobody has settled is charged in full."""
        if self.settled is None:
            same = self.worst_case.model_dump(include={"model_calls", "tool_calls", "cost_usd_micros"})
            full_usage = Usage(input_tokens=self.worst_case.tokens, **same)
            return self.settle(full_usage.as_estimate(), estimated=True)
        return self.settled


FIRST_PAUSE_MS = 500
MAX_PAUSE_MS = 60_000
"""So seldom work that waits asks at last: a night is some hundred messages of each call."""


def target_of(job: Job[R], tool: str = "", model: str = "") -> HaltTarget:
    """Everything of a job that a halt or a breaker can name. Its agent: the service that asks, then its role."""
    step = job.authority.step
    role = f"{job.sender}.{step.role}" if step is not None and step.role else ""
    # A prompt is named by its sender: it cannot hide one agent behind another, only behind itself.
    prompt = str(getattr(job.request, "prompt_id", ""))
    named = role or (prompt if prompt.startswith(f"{job.sender}.") else "")
    feature = str(getattr(job.authority.task, "feature", "") or "")
    return HaltTarget(job.tenant, job.task, (job.sender, named) if named else (job.sender,), feature, tool, model)


def agent_of(job: Job[R]) -> str:
    """On whose behalf, as spending is counted: `worker.researcher`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", target_of(job).agents[-1])[: bounds.MAX_NAME_CHARS]


def halt_reason(halt: Halt, more: str = "") -> str:
    """Why a halt ended a call, in words that name what it halts and tell its reason; more: what was in flight."""
    return f"{halt.scope} {halt.known_as} is halted{more}: {halt.reason}"[:2000]


def breaker_reason(held: OpenBreaker) -> str:
    """The reason that an open breaker gives for holding a call back."""
    description = f"the breaker of {held.breaker.scope} {held.breaker.known_as} is open"
    return f"{description}: {held.breaker.reason}. Tried again in {held.retry_after_s} s"[:2000]


class JobStop(NamedTuple):
    """The reason why a job may not go on; nothing was done. held: the open breaker, where it is one."""

    code: Literal["halted", "deadline_exceeded", "breaker_open"]
    reason: str
    hint: str
    held: OpenBreaker | None = None

    def to_failure(self) -> Failure:
        """Failure that the requester gets in place of an outcome."""
        return Failure.from_text(self.code, self.reason, self.hint)


SideHandlers = Mapping[type[Body], Callable[[ReceivedMessage], Awaitable[None]]]
"""Handlers of messages that ask for no reply, by type. One may raise HandBack: its message comes back, and holds up
nothing but itself."""
Keep = Callable[[Reservation], None]
Purpose = Literal["model", "tool", "retrieval"]
Reserve = Callable[[Job[Any], str, int, CallAhead, Keep], Awaitable[Reservation]]


@dataclass(slots=True)
class JobContext:
    """The context of one job: what the shell gives a doer for it."""

    blobs: Blobs
    signer: Signer
    now_unix_ms: Callable[[], int]
    _reserve: Reserve
    _halts: Halts
    _live: Callable[[str, str, Contract], Awaitable[None]]
    reservations: list[Reservation] = field(default_factory=list)

    def collect_settlements(self) -> tuple[Settled, ...]:
        """The usage of each reservation."""
        return tuple(reservation.settle_at_last() for reservation in self.reservations)

    async def reserve_attempt(
        self,
        job: "Job[R]",
        call_id: str,
        attempt: int,
        *,
        purpose: Purpose,
        resource: str,
        worst_case: Amount,
        price_digest: str = "",
        prompt: str = "",
    ) -> Reservation:
        """Admission for one outward attempt (numbered from 0). Raises JobRefused (ceiling, halt) or Deferred.

        prompt: version under which it is counted.
        """
        call = CallAhead(
            purpose=purpose,
            resource=resource,
            worst_case=worst_case,
            price_digest=price_digest,
            agent=agent_of(job),
            prompt=prompt,
        )
        reservation = await self._reserve(job, call_id, attempt, call, self.reservations.append)
        if reservation.wall_until_unix_ms:
            # Earlier attempts of this job are charged with its reply.
            used_ms = sum(earlier.settled.wall_ms for earlier in self.reservations if earlier.settled is not None)
            reservation.wall_until_unix_ms -= used_ms
        # That may have taken seconds: what was halted meanwhile is not begun, so that nothing is charged.
        tool, model = resource if purpose == "tool" else "", resource if purpose == "model" else ""
        if (stop := self.find_stop(job, tool=tool, model=model, defer=False)) is not None:
            reservation.settle(Usage())
            self.find_stop(job, tool=tool, model=model)
            raise JobRefused(stop.to_failure())
        return reservation

    def find_stop(
        self,
        job: "Job[R]",
        *,
        tool: str = "",
        model: str = "",
        deadline_unix_ms: int | None = None,
        what: str = "it",
        begins: bool = False,
        defer: bool = True,
    ) -> JobStop | None:
        """Why a job may not go on now; None when it may.

        Looked at in this order: halts; the deadline, where one is named (what: that has not begun); and where `begins`
        says that a call goes out right after this, the breakers: a call that may go out counts as a trial. Raises
        Deferred when it only has to wait: for a halt that pauses (unless `defer` is False), or for a breaker of its
        tenant or agent.
        """
        target = target_of(job, tool, model)
        halt = self._halts.find(target)
        if halt is not None:
            if halt.pauses and defer:
                raise self._pause_for(halt)
            return JobStop("halted", halt_reason(halt), "an operator must lift the halt")
        if deadline_unix_ms is not None and self.now_unix_ms() >= deadline_unix_ms:
            hint = "nothing was done: ask again, or give the task a longer deadline"
            return JobStop("deadline_exceeded", f"the call's deadline passed before {what} began", hint)
        open_breaker = self._halts.holding_breaker(target, self.now_unix_ms()) if begins else None
        if open_breaker is None:
            return None
        if open_breaker.breaker.scope in ("tenant", "agent"):
            raise self.defer_for_breaker(open_breaker)
        hint = f"go another way, or try again in {open_breaker.retry_after_s} s"
        return JobStop("breaker_open", breaker_reason(open_breaker), hint, open_breaker)

    def find_cutting_halt(self, job: "Job[R]", *, tool: str = "", model: str = "") -> Halt:
        """The halt that ended what was in flight. Raises Deferred when it only pauses, or was lifted meanwhile."""
        halt = self._halts.find(target_of(job, tool, model))
        if halt is None:
            raise Deferred(FIRST_PAUSE_MS, "it was halted, and let go on at once", paused=True)
        if halt.pauses:
            raise self._pause_for(halt)
        return halt

    def _pause_for(self, halt: Halt) -> Deferred:
        """To be raised for a halt that pauses: the longer it stands, the seldomer its work asks."""
        age_ms = max(0, self.now_unix_ms() - halt.at_unix_ms)
        halted_thing = "the task" if halt.scope == "task" else f"{halt.scope} {halt.known_as}"
        whose = f" --tenant {halt.tenant}" if halt.tenant and halt.scope != "task" else ""
        resume = f"bulkhead resume --{halt.scope} {halt.known_as}{whose}"
        reason = f"{halted_thing} is halted by {halt.by}: {halt.reason}. It goes on after `{resume}`"
        if halt.code == CEILING_CODE:
            reason = halt.reason  # It says itself what lets it go on: more money, not a word.
        after_ms, key = min(max(age_ms // 4, FIRST_PAUSE_MS), MAX_PAUSE_MS), (key_of(halt), halt.at_unix_ms)
        return Deferred(after_ms, reason[:2000], paused=True, code=halt.code, halt=key)

    @staticmethod
    def defer_for_breaker(held: OpenBreaker) -> Deferred:
        """To be raised for a breaker that makes calls wait: for its time, or until it is closed."""
        halt = (held.key, held.breaker.since_unix_ms)
        return Deferred(held.retry_after_ms, breaker_reason(held), paused=True, code="breaker_open", halt=halt)

    def halt_event(self, job: "Job[R]", *, tool: str = "", model: str = "", ends: bool = False) -> asyncio.Event:
        """Set while the job, or what it uses, is halted: race streams against it and cut them. ends: by a halt that
        ends it alone, and not by one that only pauses it."""
        return self._halts.halt_event(target_of(job, tool, model), ends)

    async def publish_live(self, job: "Job[R]", body: Contract) -> None:
        """Publish unstored progress (TextDelta, ToolProgress, LiveCall) for the job's task."""
        await self._live(job.tenant, job.task, body)


class Doer(Component, ABC, Generic[R]):
    """One doer service. handles: the types of its requests. side_handlers: see SideHandlers."""

    service: str
    handles: tuple[type[Body], ...]
    side_handlers: SideHandlers = {}

    @abstractmethod
    def idempotency_key(self, request: R) -> str:
        """Idempotency key within the task: a subject token, normally the call id."""

    @abstractmethod
    def needs_claim(self, job: Job[R]) -> bool:
        """Check whether acting changes the world and is not safe to repeat: the shell claims the key first, durably."""

    @abstractmethod
    async def act(self, job: Job[R], hands: JobContext, turn: Any) -> Body:
        """Do it and return the reply. Expected failures are replies; may raise Deferred, JobRefused."""

    @abstractmethod
    def refusal_reply(self, request: R, failure: Failure) -> Body:
        """The reply that says no."""

    async def refusal_after_start(self, job: Job[R], failure: Failure) -> Body:
        """The reply to a call that goes no further, where an earlier delivery of it may have been done in part. Raises
        BusError."""
        return self.refusal_reply(job.request, failure)

    @abstractmethod
    def uncertain_reply(self, request: R) -> Body:
        """The reply when a claimed write has no recorded outcome: it may have happened."""

    async def resolve_claim(self, job: Job[R], hands: JobContext, begun_unix_ms: int) -> Body | None:
        """The reply to a write that was claimed at begun_unix_ms and has no record, where the doer can find out what
        became of it; else None. Raises HandBack while that cannot be told yet."""
        return None

    def describe_call(self, request: R, reply: Body | None, now_unix_ms: int) -> LiveCall | None:
        """Live word about a call for watchers of its task: it is taken up (without a reply), or has its outcome. None
        where they are told nothing."""
        return None

    async def on_outcome_stored(self, message: ReceivedMessage, reply: Body) -> None:
        """The reply is the outcome of the call that this message asks for; told again where the message comes again.
        Raises BusError."""

    def may_change_world(self, request: R) -> bool:
        """Check whether acting on the request may change the world, claimed or not."""
        return False

    def hold_turn(self, job: Job[R], hands: JobContext) -> AbstractAsyncContextManager[Any]:
        """Context that a call holds while it is claimed and done, and waits for before. Its value is what `act` is
        given as `turn`. Raises JobRefused, Deferred, HandBack.
        """
        return nullcontext()
