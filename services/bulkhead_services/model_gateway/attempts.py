"""Attempts at one answer: reserve, call, settle, and again after a pause. Enters: what to render. Leaves: an Outcome.

This is the one layer that retries. Money is reserved before every attempt and each is settled by what it used.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from bulkhead.runtime.doer.protocol import Hands, Job, Reservation, ended_by
from bulkhead.runtime.halts.live import OpenBreaker
from bulkhead.telemetry import names, trace
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Omission, Usage
from bulkhead_services.model_gateway.prices import Price
from bulkhead_services.model_gateway.providers.port import Answer, Chat, Fault, OnText, Outgoing, Provider
from bulkhead_services.model_gateway.render import Rendered, Source, estimate_tokens, fit

SHRINK = 0.6
"""Size of the next try after a provider refused a prompt as too long: the estimate was wrong."""
CONTEXT_MARGIN_TOKENS = 64
ATTEMPTS_PER_MESSAGE = 64
LEAST_CALL_MS = 50
"""No call is sent with less time left: no provider answers it, and it would be paid for in full."""
LATE = Fault(
    "deadline_exceeded",
    "the call's deadline passed before it was sent",
    "give the task a longer deadline",
    outage=True,
    consumed=False,
    refused=True,
)
"""The end of a call that was not sent: it says nothing about the model, and no breaker counts it."""

HALTED_HINT = (
    "nothing more is spent on it; `bulkhead show TASK` says why it was halted: mend that, or raise the limit that it "
    "names, then submit again"
)

BREAKER_OPEN, AGAIN_BY_ITSELF = "breaker_open", "it is tried again by itself"


@dataclass(frozen=True, slots=True)
class Model:
    """A pinned model at a provider, and its price (None: unknown, so the model is not called)."""

    name: str
    provider: Provider
    price: Price | None
    context_tokens: int
    max_output_tokens: int = 32_000
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Retry policy. jitter: a number from 0 to 1, drawn for each pause."""

    attempts: int
    backoff_first_ms: int
    backoff_cap_ms: int
    slot_wait_s: float
    jitter: Callable[[], float]

    def pause_s(self, failed: int, retry_after_s: float | None) -> float:
        """Full jitter (AWS, "Exponential Backoff And Jitter"); never before the provider's Retry-After."""
        most: float = min(self.backoff_cap_ms, self.backoff_first_ms * 2 ** (failed - 1)) / 1000
        return (retry_after_s or 0.0) + most * self.jitter()


@dataclass(slots=True)
class Spent:
    """Usage of all attempts of one job, as settled."""

    usage: Usage = Usage()
    attempts: int = 0
    """Calls that went out to a provider."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the attempts at one model ended, and what was left out of its prompt."""

    said: Answer | Fault
    omissions: tuple[Omission, ...] = ()


class Attempts:
    """The attempts of one job."""

    def __init__(self, job: Job[ModelCallRequested], hands: Hands, policy: Policy, live: Callable[[], OnText]) -> None:
        self.spent = Spent()
        self.held: OpenBreaker | None = None
        """The open breaker that was met last."""
        self._job, self._hands, self._policy, self._live = job, hands, policy, live
        self._reserved = 0
        self._halt = hands.halt_event(job)
        # A request that is delivered or sent again reserves anew: ids of reservations that were settled are spent.
        seed = f"{job.envelope.id}/{job.attempts}".encode()
        digest = hashlib.blake2b(seed, digest_size=5).digest()
        self._first = int.from_bytes(digest, "big") * ATTEMPTS_PER_MESSAGE

    async def run(self, model: Model, source: Source, until_unix_ms: int) -> Outcome:
        """Ask one model until it answers, cannot, or the time is over. Raises Refused, Deferred."""
        if model.price is None:
            hint = "add it to BULKHEAD_PRICES_FILE, or to BULKHEAD_FREE_MODELS when it costs nothing"
            return Outcome(Fault("unknown_price", f"no price is known for {model.name}", hint, refused=True))
        output = min(self._job.request.max_output_tokens, model.max_output_tokens)
        budget = model.context_tokens - output - CONTEXT_MARGIN_TOKENS
        rendered, shrunk = fit(source, budget), False
        said: Answer | Fault = _does_not_fit(model, budget)
        failed = 0
        while rendered is not None and failed < self._policy.attempts:
            made = self._stopped(model, until_unix_ms) or await self._attempt(model, rendered, output, until_unix_ms)
            if made is LATE and failed:
                break  # The failure of the attempt before tells more.
            said = made
            if isinstance(said, Answer):
                trace.say(names.INPUT_MESSAGES, rendered.payload.get("messages", ()))
                trace.say(names.OUTPUT_MESSAGES, said.text)
                break
            failed += 1
            if said.code == "context_overflow" and not shrunk:
                shrunk = True
                smaller = fit(source, int(min(budget, rendered.input_tokens_estimate) * SHRINK))
                if smaller is None:
                    break
                rendered = smaller
                continue
            if not said.retryable or failed >= self._policy.attempts:
                break
            pause_s = self._policy.pause_s(failed, said.retry_after_s)
            if self._hands.now_unix_ms() + pause_s * 1000 >= until_unix_ms:
                said = _too_late(said)
                break
            await self._pause(pause_s)
        return Outcome(said, rendered.omissions if rendered else ())

    def _stopped(self, model: Model, until_unix_ms: int) -> Fault | None:
        """Why no attempt may be begun now."""
        latest = until_unix_ms - LEAST_CALL_MS
        stop = self._hands.may(self._job, model=model.name, deadline_unix_ms=latest, begins=True)
        if stop is not None and stop.code == "deadline_exceeded":
            return LATE
        if stop is not None and stop.held is not None:
            self.held = stop.held
            wait_s = stop.held.retry_after_ms / 1000
            return replace(LATE, code=BREAKER_OPEN, message=stop.reason, hint=AGAIN_BY_ITSELF, retry_after_s=wait_s)
        if stop is not None:
            return Fault("halted", stop.reason, HALTED_HINT, refused=True)
        return None

    async def _pause(self, seconds: float) -> None:
        """Sleep, or wake up at once when the job is halted."""
        try:
            async with asyncio.timeout(seconds):
                await self._halt.wait()
        except TimeoutError:
            pass

    async def _attempt(self, model: Model, rendered: Rendered, output: int, until_unix_ms: int) -> Answer | Fault:
        left_s = (until_unix_ms - self._hands.now_unix_ms()) / 1000
        async with model.provider.place(self._job.tenant, min(self._policy.slot_wait_s, left_s)):
            outgoing = model.provider.request(Chat(model.name, rendered.payload, output, model.temperature))
            worst = _worst(model, estimate_tokens(len(outgoing.body)), output, outgoing.writes_cache)
            # Reserve before calling: a crash must not spend twice, and no reservation means no call.
            held = await self._hands.reserve(
                self._job,
                self._job.request.call_id,
                self._first + self._reserved,
                purpose="model",
                resource=model.name,
                worst_case=_amount(worst),
                price_digest=model.price.digest if model.price else "",
            )
            self._reserved += 1
            if self._hands.now_unix_ms() >= until_unix_ms - LEAST_CALL_MS:
                held.settle(Usage())  # The wait for a place or for budget took the rest of its time.
                return LATE
            return await self._call(model, outgoing, held, worst, until_unix_ms)

    async def _call(
        self, model: Model, outgoing: Outgoing, held: Reservation, worst: Usage, until_unix_ms: int
    ) -> Answer | Fault:
        self.spent.attempts += 1
        timeout_s = (until_unix_ms - self._hands.now_unix_ms()) / 1000
        call = asyncio.create_task(model.provider.call(outgoing, self._live(), timeout_s=timeout_s))
        halted = asyncio.create_task(self._hands.halt_event(self._job, model=model.name).wait())
        try:
            await asyncio.wait({call, halted}, return_when=asyncio.FIRST_COMPLETED)
            cut = not call.done()
        finally:
            # Cancelled here, the HTTP connection is closed: the provider stops, and so does the spending.
            call.cancel()
            halted.cancel()
            await asyncio.gather(call, halted, return_exceptions=True)
        if cut:
            # Usage comes at a stream's end. The ledger charges the reservation then, so that is what is told.
            self._settle(model, held, worst, estimated=True)
            # Raises when the halt only pauses: the call is made anew when it is lifted.
            halt = self._hands.cut(self._job, model=model.name)
            return Fault("halted", ended_by(halt, " and the model's stream was cut"), HALTED_HINT, refused=True)
        said = call.result()
        self._charge(model, held, said, worst)
        return said

    def _charge(self, model: Model, held: Reservation, said: Answer | Fault, worst: Usage) -> None:
        if said.usage is not None:
            self._settle(model, held, said.usage, said.cache_write_tokens, estimated=False)
        elif isinstance(said, Fault) and not said.consumed:
            self._settle(model, held, Usage(), estimated=False)
        else:
            # No usage was told: the reservation is charged. Never zero.
            self._settle(model, held, worst, estimated=True)

    def _settle(
        self, model: Model, held: Reservation, usage: Usage, cache_write_tokens: int = 0, *, estimated: bool
    ) -> None:
        assert model.price is not None
        usage = replace_cost(usage, model.price, cache_write_tokens)
        held.settle(usage, estimated=estimated)
        self.spent.usage = self.spent.usage + usage


def replace_cost(usage: Usage, price: Price, cache_write_tokens: int = 0) -> Usage:
    """The same usage with its cost, rounded up."""
    return usage.model_copy(update={"cost_usd_micros": price.cost_usd_micros(usage, cache_write_tokens)})


def _worst(model: Model, input_tokens: int, output_tokens: int, writes_cache: bool) -> Usage:
    assert model.price is not None
    usage = Usage(model_calls=1, input_tokens=input_tokens, output_tokens=output_tokens)
    return replace_cost(usage, model.price, input_tokens if writes_cache else 0)


def _amount(worst: Usage) -> Amount:
    return Amount(tokens=worst.input_tokens + worst.output_tokens, cost_usd_micros=worst.cost_usd_micros, model_calls=1)


def _too_late(fault: Fault) -> Fault:
    """A fault after which the provider wants a longer wait than the call has time."""
    if not fault.retry_after_s:
        return fault
    message = f"{fault.message} (it asks to wait {fault.retry_after_s:g} s, longer than the call has time)"
    return replace(fault, message=message, hint="give the task a longer deadline, or the route a fallback")


def _does_not_fit(model: Model, budget: int) -> Fault:
    return Fault(
        "context_overflow",
        f"even without passages and tool results the prompt exceeds the {max(0, budget)} tokens (estimated) that "
        f"{model.name} has room for",
        "shorten the objective or the step's inputs, or use a model with a longer context",
        consumed=False,
    )


def worse(first: Fault, second: Fault) -> Fault:
    """The fault of a call whose fallback failed too."""
    return replace(second, message=f"{first.message}; then the fallback: {second.message}")
