"""Attempts at one answer: reserve, call, settle, and again after a pause. In: what to render. Out: an outcome.

This is the one layer that retries. Money is reserved before every attempt; each is settled by what it used.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bulkhead.quotas.token_estimates import TokenCounters
from bulkhead.runtime.doer.protocol import Job, JobContext, Reservation, halt_reason
from bulkhead.runtime.halts.live import OpenBreaker
from bulkhead.telemetry import metrics, names, trace
from bulkhead_contracts.model import TEXT, AnswerPart, ModelCallRequested
from bulkhead_contracts.result import Omission, Usage
from bulkhead_services.model_gateway.abandoned import ABANDONED
from bulkhead_services.model_gateway.charges import JobSpending, amount_of, estimate_usage, replace_cost, worst_case
from bulkhead_services.model_gateway.context.conversation import body_tokens_to_reserve, learn_token_count, omissions_of
from bulkhead_services.model_gateway.context.fitting import does_not_fit_fault, fit_request
from bulkhead_services.model_gateway.context.render import CONTEXT_MARGIN_TOKENS, RenderedRequest, RenderSource
from bulkhead_services.model_gateway.prices import Price
from bulkhead_services.model_gateway.providers.port import (
    CallNeed,
    Chat,
    DeploymentPlace,
    GenerationProgress,
    ModelAnswer,
    OnText,
    Provider,
    ProviderFault,
    ProviderRequest,
)
from bulkhead_services.model_gateway.response_cache import CACHE_HIT, ResponseCache
from bulkhead_services.model_gateway.routing.deployments import loop_time_s
from bulkhead_services.model_gateway.routing.options import DataTerms, ServiceTier

OVERFLOW_SHRINK = 0.6
"""Size of the next try after a provider refused a prompt as too long: the estimate was wrong."""
ATTEMPTS_PER_MESSAGE = 512
"""Reservations that one message may use: of ten models, each with ten attempts and sixteen deployments."""
MIN_REPORTED_WAIT_MS = 20
"""A shorter wait for a place is none."""
MIN_CALL_MS = 50
"""No call is sent with less time left: no provider answers it, and it would be paid for in full."""
DEADLINE_PASSED = ProviderFault(
    "deadline_exceeded",
    "the call's deadline passed before it was sent",
    "give the task a longer deadline",
    outage=True,
    consumed=False,
    refused=True,
)
"""The end of a call that was not sent: it says nothing about the model, and no breaker counts it."""

MAX_BYTES_COUNTED_INLINE = 16_384
"""Text that is counted in the event loop: a few milliseconds."""
HALTED_HINT = (
    "nothing more is spent on it; `bulkhead show TASK` says why it was halted: mend that, or raise the limit that it "
    "names, then submit again"
)

UNSUPPORTED_HINT = "leave it out, or name a model whose provider's API takes it"
UNSUPPORTED_CALL = ProviderFault(
    "unsupported_parameter", "", UNSUPPORTED_HINT, outage=True, consumed=False, refused=True
)
"""The end of a call that a provider's API cannot say in full: the next model of the route may take it."""
BREAKER_OPEN, RETRY_HINT = "breaker_open", "it is tried again by itself"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A pinned model at a provider, and its price (None: unknown, so the model is not called). parameters: by the
    mesh's names. terms: what becomes of data there."""

    name: str
    provider: Provider
    price: Price | None
    context_tokens: int
    max_output_tokens: int = 32_000
    parameters: Mapping[str, Any] = field(default_factory=dict)
    terms: DataTerms = DataTerms()
    counters: TokenCounters = field(default_factory=TokenCounters)
    cache_ttl_s: int = 0
    """For so long its answers are given again to the very same request; 0: never."""
    dearest_tier: ServiceTier = "default"
    has_tiers: bool = False
    """Its answers name the service tier by which they are billed."""

    def price_before(self, price: Price, requested_tier: object) -> Price:
        """The dearest price that a call may have."""
        return price.in_tier("default" if requested_tier in ("default", "flex") else self.dearest_tier)

    def price_after(self, call_price: Price, result: ModelAnswer | ProviderFault) -> Price:
        """The price by what the provider told. call_price: where it told no tier."""
        tier = result.service_tier if self.has_tiers and isinstance(result, ModelAnswer) else ""
        return call_price.in_tier(tier) if tier else call_price


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry policy. jitter: a number from 0 to 1, drawn for each pause."""

    attempts: int
    backoff_first_ms: int
    backoff_cap_ms: int
    slot_wait_s: float
    jitter: Callable[[], float]

    def pause_s(self, failures: int, retry_after_s: float | None) -> float:
        """Full jitter (AWS, "Exponential Backoff And Jitter"); never before the provider's Retry-After."""
        longest_s: float = min(self.backoff_cap_ms, self.backoff_first_ms * 2 ** max(0, failures - 1)) / 1000
        return (retry_after_s or 0.0) + longest_s * self.jitter()


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """End of the attempts at one model, and what was left out of its prompt."""

    result: ModelAnswer | ProviderFault
    omissions: tuple[Omission, ...] = ()


@dataclass(frozen=True, slots=True)
class _ReservedCall:
    """A call to a provider for which money is reserved."""

    model: Model
    price: Price
    outgoing: ProviderRequest
    reservation: Reservation
    worst_usage: Usage
    began_unix_ms: int
    progress: GenerationProgress = field(default_factory=GenerationProgress)


class ModelAttempts:
    """The attempts of one job."""

    def __init__(
        self,
        job: Job[ModelCallRequested],
        hands: JobContext,
        policy: RetryPolicy,
        live: Callable[[], OnText],
        cache: ResponseCache | None,
        abandoned: asyncio.Event,
        prompt: str = "",
    ) -> None:
        """abandoned: set when nobody follows the call any more. prompt: the version under which it is counted."""
        self._prompt = prompt
        self.spending = JobSpending()
        self._abandoned = abandoned
        self.open_breaker: OpenBreaker | None = None  # The open breaker that was met last.
        self._job, self._hands, self._policy, self._live = job, hands, policy, live
        self._cache = cache
        self._reserved = 0
        self._halt = hands.halt_event(job)
        # A request that is delivered or sent again reserves anew: ids of reservations that were settled are spent.
        seed = f"{job.envelope.id}/{job.attempts}".encode()
        digest = hashlib.blake2b(seed, digest_size=5).digest()
        self._first = int.from_bytes(digest, "big") * ATTEMPTS_PER_MESSAGE

    async def ask_model(
        self,
        model: Model,
        source: RenderSource,
        until_unix_ms: int,
        may_publish: Callable[[], bool] = lambda: True,
        tried: set[str] | None = None,
        has_others: bool = False,
    ) -> ModelOutcome:
        """Ask one model until it answers, cannot, or the time is over. Raises JobRefused, Deferred.

        may_publish: asked at each piece of text, which is shown where it says so. tried: deployments that others come
        before; those that are asked are added. has_others: other models stand by, and a provider that is ejected is not
        asked again. Cancelled, it settles what it reserved.
        """
        if model.price is None:
            hint = "add it to BULKHEAD_PRICES_FILE, or to BULKHEAD_FREE_MODELS when it costs nothing"
            return ModelOutcome(
                ProviderFault("unknown_price", f"no price is known for {model.name}", hint, refused=True)
            )
        output_tokens = min(self._job.request.max_output_tokens, model.max_output_tokens)
        budget = model.context_tokens - output_tokens - CONTEXT_MARGIN_TOKENS
        counter = model.counters.of_tenant(self._job.tenant)
        rendered, shrunk = fit_request(source, budget, counter), False
        result: ModelAnswer | ProviderFault = does_not_fit_fault(source, model.name, budget)
        need, failed_attempts = CallNeed(model.name, 0, set() if tried is None else tried), 0
        if rendered is not None and (objection := model.provider.objection(_chat_of(model, rendered, output_tokens))):
            return ModelOutcome(replace(UNSUPPORTED_CALL, message=objection))
        key = self._cache_key(model, rendered, output_tokens, source)
        if key and rendered and (cached := await self._cached_answer(model, key, until_unix_ms)) is not None:
            return ModelOutcome(cached, rendered.omissions)
        while rendered is not None and failed_attempts < self._policy.attempts:
            need.tokens = rendered.input_tokens_estimate
            if (limited := await self._wait_for_rate_limit(model, need, until_unix_ms)) is not None:
                result = result if failed_attempts else limited
                break
            attempt_result: ModelAnswer | ProviderFault | None = self._reason_to_stop(model, until_unix_ms)
            if attempt_result is None:
                attempt_result = await self._reserve_and_call(
                    model, rendered, output_tokens, until_unix_ms, may_publish, need
                )
            if attempt_result is DEADLINE_PASSED and failed_attempts:
                break  # The failure of the attempt before tells more.
            result = attempt_result
            if isinstance(result, ModelAnswer):
                trace.record_prompt_text(names.INPUT_MESSAGES, rendered.payload.get("messages", ()))
                trace.record_prompt_text(names.OUTPUT_MESSAGES, result.text)
                if key and self._cache is not None:
                    await self._cache.keep_answer(self._job, key, result)
                break
            if result.outage and not result.refused and model.provider.has_untried(need):
                continue  # A refused key or a dead address says nothing about the next one, which is asked at once.
            failed_attempts += 1
            if result.code == "context_overflow" and not shrunk:
                shrunk = True
                smaller_budget = int(min(budget, rendered.input_tokens_estimate) * OVERFLOW_SHRINK)
                smaller = fit_request(source, smaller_budget, counter)
                if smaller is None:
                    break
                rendered = smaller
                continue
            ejected = has_others and not model.provider.is_usable(model.name)
            if not result.retryable or failed_attempts >= self._policy.attempts or ejected:
                break
            left_s = self._left_s(until_unix_ms)
            pause_s = self._policy.pause_s(failed_attempts, model.provider.wait_s(need, left_s))
            if pause_s >= left_s:
                result = _with_too_late_hint(result)
                break
            await self._sleep_unless_halted(pause_s, f"{model.provider.name} after {result.code}")
        return ModelOutcome(result, rendered.omissions if rendered else ())

    async def _wait_for_rate_limit(self, model: Model, need: CallNeed, until_unix_ms: int) -> ProviderFault | None:
        """Wait until the provider takes the call, by what it told before; a fault where that is too late."""
        left_s = self._left_s(until_unix_ms)
        wait_s = model.provider.wait_s(need, left_s)
        if not wait_s:
            return None
        if wait_s >= left_s:
            fault = ProviderFault(
                "rate_limited", f"{model.provider.name} refused earlier calls", outage=True, consumed=False
            )
            return _with_too_late_hint(replace(fault, retry_after_s=round(wait_s, 1)))
        pause_s = self._policy.pause_s(0, wait_s)
        await self._sleep_unless_halted(min(pause_s, left_s), f"the rate limit of {model.provider.name}")
        return None

    def _left_s(self, until_unix_ms: int) -> float:
        return (until_unix_ms - self._hands.now_unix_ms()) / 1000

    def _cache_key(
        self, model: Model, rendered: RenderedRequest | None, output_tokens: int, source: RenderSource
    ) -> str:
        """Key of the response cache; "" where it is not asked."""
        if rendered is None or rendered.adopted or self._cache is None or not model.cache_ttl_s:
            return ""
        outgoing = model.provider.build_request(_chat_of(model, rendered, output_tokens))
        return self._cache.request_key(self._job, model.provider.name, model.name, source.prompt_digest, outgoing)

    async def _cached_answer(self, model: Model, key: str, until_unix_ms: int) -> ModelAnswer | ProviderFault | None:
        """An earlier answer, which reserves and costs nothing. What is halted gets none either."""
        assert self._cache is not None
        answer = await self._cache.find_answer(self._job.tenant, key, model.cache_ttl_s)
        if answer is None:
            return None
        if (stop := self._hands.find_stop(self._job, model=model.name, deadline_unix_ms=until_unix_ms)) is not None:
            return (
                DEADLINE_PASSED
                if stop.code == "deadline_exceeded"
                else ProviderFault("halted", stop.reason, HALTED_HINT, refused=True)
            )
        self.spending.usage = self.spending.usage + CACHE_HIT
        if answer.text:
            await self._live()(answer.text)
        return answer

    def _reason_to_stop(self, model: Model, until_unix_ms: int) -> ProviderFault | None:
        """Why no attempt may be begun now."""
        if self._abandoned.is_set():
            return ABANDONED
        latest = until_unix_ms - MIN_CALL_MS
        stop = self._hands.find_stop(self._job, model=model.name, deadline_unix_ms=latest, begins=True)
        if stop is not None and stop.code == "deadline_exceeded":
            return DEADLINE_PASSED
        if stop is not None and stop.held is not None:
            self.open_breaker = stop.held
            wait_s = stop.held.retry_after_ms / 1000
            return replace(
                DEADLINE_PASSED, code=BREAKER_OPEN, message=stop.reason, hint=RETRY_HINT, retry_after_s=wait_s
            )
        if stop is not None:
            return ProviderFault("halted", stop.reason, HALTED_HINT, refused=True)
        return None

    async def _sleep_unless_halted(self, seconds: float, reason: str) -> None:
        """Sleep, or wake up at once when the job is halted."""
        began_s = loop_time_s()
        try:
            async with asyncio.timeout(seconds):
                await self._halt.wait()
        except TimeoutError:
            pass
        self._count_wait(began_s, reason)

    def _count_wait(self, began_s: float, reason: str) -> None:
        """Tell of a wait, so that nobody takes it for the model's slowness."""
        waited_ms = int((loop_time_s() - began_s) * 1000)
        if waited_ms >= MIN_REPORTED_WAIT_MS:
            self.spending.waited_ms += waited_ms
            self.spending.wait_counts[reason] += 1

    async def _reserve_and_call(
        self,
        model: Model,
        rendered: RenderedRequest,
        output_tokens: int,
        until_unix_ms: int,
        may_publish: Callable[[], bool],
        need: CallNeed,
    ) -> ModelAnswer | ProviderFault:
        began_s, wait_s = loop_time_s(), min(self._policy.slot_wait_s, self._left_s(until_unix_ms))
        async with model.provider.hold_place(self._job.tenant, wait_s, need) as place:
            self._count_wait(began_s, f"a place at {model.provider.name}")
            if self._abandoned.is_set():
                return ABANDONED
            outgoing = model.provider.build_request(_chat_of(model, rendered, output_tokens))
            assert model.price is not None
            began_unix_ms = self._hands.now_unix_ms()
            dearest = model.price.dearest_at(began_unix_ms, until_unix_ms)
            price = model.price_before(dearest, rendered.payload.get("service_tier"))
            counter = model.counters.of_tenant(self._job.tenant)
            count = partial(body_tokens_to_reserve, counter, outgoing.body, rendered)
            # A large body takes seconds to count: other calls go on meanwhile.
            is_large = len(outgoing.body) > MAX_BYTES_COUNTED_INLINE
            tokens, image_tokens = await asyncio.to_thread(count) if is_large else count()
            caching = (outgoing.writes_cache, image_tokens, outgoing.caches_1h)
            worst = worst_case(price, tokens + outgoing.added_tokens, output_tokens, *caching)
            self._reserved += 1
            # Reserve before calling: a crash must not spend twice, and no reservation means no call.
            reservation = await self._hands.reserve_attempt(
                self._job,
                self._job.request.call_id,
                self._first + self._reserved,
                purpose="model",
                resource=model.name,
                worst_case=amount_of(worst),
                price_digest=price.digest,
                prompt=self._prompt,
            )
            until_unix_ms = reservation.bound_deadline(until_unix_ms)
            late = self._hands.now_unix_ms() >= until_unix_ms - MIN_CALL_MS
            if late or self._abandoned.is_set():
                reservation.settle(Usage())  # The wait for a place or for budget took the rest of its time.
                return DEADLINE_PASSED if late else ABANDONED
            call = _ReservedCall(model, price, outgoing, reservation, worst, began_unix_ms)
            result = await self._call_provider(call, place, need, self._left_s(until_unix_ms), may_publish)
            if isinstance(result, ModelAnswer) and outgoing.gaps:
                result = replace(result, omissions=(*result.omissions, *omissions_of(outgoing.gaps)))
            return result

    async def _call_provider(
        self,
        call: _ReservedCall,
        place: DeploymentPlace,
        need: CallNeed,
        timeout_s: float,
        may_publish: Callable[[], bool],
    ) -> ModelAnswer | ProviderFault:
        self.spending.attempts += 1
        live = self._live()

        async def show_piece(text: str, part: AnswerPart = TEXT) -> None:
            if may_publish():
                await live(text, part)

        answering = asyncio.create_task(
            place.call(call.outgoing, show_piece, need, timeout_s=timeout_s, progress=call.progress)
        )
        halted = asyncio.create_task(self._hands.halt_event(self._job, model=call.model.name).wait())
        abandoned = asyncio.create_task(self._abandoned.wait())
        try:
            await asyncio.wait({answering, halted, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            was_cut = not answering.done()
        except asyncio.CancelledError:
            # Another model spoke first.
            self._settle_estimate(call, "hedged")
            raise
        finally:
            # Cancelled here, the HTTP connection is closed: the provider stops, and so does the spending.
            answering.cancel()
            halted.cancel()
            abandoned.cancel()
            await asyncio.gather(answering, halted, abandoned, return_exceptions=True)
        if was_cut and self._abandoned.is_set():
            self._settle_estimate(call, "abandoned")
            return ABANDONED
        if was_cut:
            # Usage comes at a stream's end.
            self._settle_estimate(call, "halted")
            # Raises when the halt only pauses: the call is made anew when it is lifted.
            halt = self._hands.find_cutting_halt(self._job, model=call.model.name)
            return ProviderFault(
                "halted", halt_reason(halt, " and the model's stream was cut"), HALTED_HINT, refused=True
            )
        result = answering.result()
        call = replace(call, price=call.model.price_after(call.price, result))
        fault_code = result.code if isinstance(result, ProviderFault) else ""
        if result.usage is not None:
            if not fault_code:
                adopted = self._job.request.conversation is not None
                counter = call.model.counters.of_tenant(self._job.tenant)
                learn_token_count(counter, call.outgoing.body, result.usage.input_tokens, adopted=adopted)
            self._settle_usage(call, result.usage, fault_code)
        elif isinstance(result, ProviderFault) and not result.consumed and call.progress.told_usage is None:
            self._settle_usage(call, Usage(), fault_code)
        else:
            # No usage was told: never zero.
            self._settle_estimate(call, fault_code)
        return result

    def _settle_estimate(self, call: _ReservedCall, fault_code: str) -> None:
        usage = estimate_usage(call.worst_usage, call.progress, loop_time_s(), count_hidden=fault_code != "error_body")
        self._settle_usage(call, usage, fault_code, is_estimate=True)

    def _settle_usage(self, call: _ReservedCall, usage: Usage, fault_code: str, is_estimate: bool = False) -> None:
        # Some vendors go by a call's beginning, some by its end.
        usage = replace_cost(usage, call.price.dearest_at(call.began_unix_ms, self._hands.now_unix_ms()))
        usage = usage.as_estimate() if is_estimate else usage
        settled = call.reservation.settle(usage, failed=fault_code)
        self.spending.usage = self.spending.usage + usage
        metrics.count_attempt(call.model.name, fault_code, usage.cost_usd_micros, settled.wall_ms)


def _chat_of(model: Model, rendered: RenderedRequest, output_tokens: int) -> Chat:
    # What an agent says itself stands over what its route says.
    parameters = {name: value for name, value in model.parameters.items() if name not in rendered.payload}
    call_fields = model.name, rendered.payload, output_tokens, parameters
    return Chat(*call_fields, stable_messages=rendered.stable_messages, adopted=rendered.adopted, api=rendered.api)


def _with_too_late_hint(fault: ProviderFault) -> ProviderFault:
    """A fault after which the provider wants a longer wait than the call has time."""
    if not fault.retry_after_s:
        return fault
    message = f"{fault.message} (it asks to wait {fault.retry_after_s:g} s, longer than the call has time)"
    return replace(fault, message=message, hint="give the task a longer deadline, or the route a fallback")
