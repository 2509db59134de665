"""Deployments of a provider, and the choice of one for a call. Enters: a call's need. Leaves: a place at a deployment.

A deployment is one key at one endpoint. Each has its own places, rate limits and health. The least loaded one is asked;
one that failed several times in a row is passed over for a while, then tried with one call.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from bulkhead.runtime.component import Pool
from bulkhead.runtime.errors import Deferred
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_services.model_gateway.providers.port import (
    SHORT_DEADLINE,
    CallNeed,
    GenerationProgress,
    ModelAnswer,
    OnText,
    ProviderFault,
    ProviderRequest,
)
from bulkhead_services.model_gateway.routing.rate_limits import RateBucket, buckets_of_headers

BUSY_RETRY_MS = 500
FAILURES_TO_EJECT = 3
"""Failures in a row."""
FIRST_EJECTION_S = 5.0
MAX_EJECTION_S = 120.0
MAX_MODELS = 256
"""Models whose limits one deployment remembers."""

OnHeaders = Callable[[Mapping[str, str]], None]


def loop_time_s() -> float:
    """Seconds of the loop's clock, which the simulation turns: the machine's own would make two runs of one seed."""
    return asyncio.get_running_loop().time()


class Endpoint(Protocol):
    """One key at one address."""

    @property
    def name(self) -> str:
        """Name that people are told: never the key."""
        ...

    async def call(
        self,
        outgoing: ProviderRequest,
        on_text: OnText,
        on_headers: OnHeaders,
        *,
        timeout_s: float,
        progress: GenerationProgress | None = None,
    ) -> ModelAnswer | ProviderFault:
        """Send one call; on_headers gets those of the answer, whatever its status."""
        ...


@dataclass(slots=True)
class DeploymentHealth:
    """Failures in a row; an ejection lasts twice as long each time, until a call is answered. Times in seconds."""

    failures: int = 0
    ejections: int = 0
    ejected_until_s: float = 0.0
    on_trial: bool = False

    def is_usable(self, now_s: float) -> bool:
        """True when calls may go there; after an ejection one at a time."""
        return not self.ejections or (now_s >= self.ejected_until_s and not self.on_trial)

    @contextmanager
    def trial(self, now_s: float) -> Iterator[None]:
        """Keeps other calls away from what was ejected, until this one has ended."""
        begins = self.ejections > 0 and self.is_usable(now_s)
        self.on_trial = self.on_trial or begins
        try:
            yield
        finally:
            self.on_trial = self.on_trial and not begins

    def note_answer(self) -> None:
        """It works."""
        self.failures = self.ejections = 0

    def note_failure(self, now_s: float, *, at_once: bool) -> None:
        """It does not work. at_once: no further call will fare better."""
        self.failures += 1
        # Calls that were under way together are one ejection.
        if (at_once or self.ejections or self.failures >= FAILURES_TO_EJECT) and now_s >= self.ejected_until_s:
            self.ejected_until_s = now_s + min(FIRST_EJECTION_S * 2**self.ejections, MAX_EJECTION_S)
            self.ejections = min(self.ejections + 1, 16)


@dataclass(slots=True)
class DeploymentModelState:
    """State of one model at one deployment. refused_until_s: by a refusal; buckets: by headers."""

    health: DeploymentHealth = field(default_factory=DeploymentHealth)
    refused_until_s: float = 0.0
    buckets: dict[str, RateBucket] = field(default_factory=dict)

    def wait_s(self, tokens: int, now_s: float) -> float:
        """Seconds that a call of so many tokens has to wait by the buckets."""
        return max(
            (bucket.wait_s(_needed_of_kind(kind, tokens), now_s) for kind, bucket in self.buckets.items()), default=0.0
        )

    def count_call(self, tokens: int) -> None:
        """Count a call that is sent."""
        for kind, bucket in self.buckets.items():
            bucket.count_call(_needed_of_kind(kind, tokens))


def _needed_of_kind(kind: str, tokens: int) -> int:
    return {"requests": 1, "output-tokens": 0}.get(kind, tokens)


class Deployment:
    """One key at one endpoint, with what is known of it."""

    def __init__(self, endpoint: Endpoint, concurrency: int, clock: Callable[[], float]) -> None:
        self.name, self._endpoint, self._clock = endpoint.name, endpoint, clock
        # Long answers that began together end late: an eighth of the places stays free for calls of other tenants.
        self.places = FairSemaphore(concurrency, kept=concurrency // 8)
        self.load = 0
        """Calls that run or wait here."""
        self.last_used_s = 0.0
        self._states: dict[str, DeploymentModelState] = {}

    def state_of(self, model: str) -> DeploymentModelState:
        """State of one model: most providers limit each for itself, and one that is missing says nothing of others."""
        if model not in self._states and len(self._states) >= MAX_MODELS:
            self._states.pop(next(iter(self._states)))
        return self._states.setdefault(model, DeploymentModelState())

    def is_usable(self, model: str) -> bool:
        """True when it is not ejected, for this model."""
        return self.state_of(model).health.is_usable(self._clock())

    def wait_s(self, need: CallNeed, time_left_s: float = math.inf) -> float:
        """Seconds until this call may be sent; limits learned from headers hold up no call past `time_left_s`."""
        state, now_s = self.state_of(need.model), self._clock()
        refused_s = max(0.0, state.refused_until_s - now_s)
        learned_s = state.wait_s(need.tokens, now_s)
        return max(refused_s, learned_s if learned_s < time_left_s else 0.0)

    async def call(
        self,
        outgoing: ProviderRequest,
        on_text: OnText,
        need: CallNeed,
        *,
        timeout_s: float,
        progress: GenerationProgress | None = None,
    ) -> ModelAnswer | ProviderFault:
        """Send one call, and learn from how it ends."""
        state = self.state_of(need.model)
        state.count_call(need.tokens)
        need.tried.add(self.name)

        def on_headers(headers: Mapping[str, str]) -> None:
            state.buckets |= buckets_of_headers(headers, self._clock())

        result = await self._endpoint.call(outgoing, on_text, on_headers, timeout_s=timeout_s, progress=progress)
        self._learn_from_result(result, state)
        return result

    def _learn_from_result(self, result: ModelAnswer | ProviderFault, state: DeploymentModelState) -> None:
        now_s = self._clock()
        if isinstance(result, ProviderFault) and result.code == SHORT_DEADLINE:
            return
        if isinstance(result, ModelAnswer) or not result.outage:
            state.health.note_answer()
        elif result.retryable and (result.code == "rate_limited" or result.retry_after_s):
            state.refused_until_s = max(state.refused_until_s, now_s + (result.retry_after_s or 0.0))
        else:
            state.health.note_failure(now_s, at_once=not result.retryable)


class Deployments:
    """All deployments of one provider."""

    def __init__(self, deployments: Sequence[Deployment], clock: Callable[[], float] = loop_time_s) -> None:
        self._all, self._clock = tuple(deployments), clock

    def pool(self) -> Pool:
        """Places at the provider, of all its deployments together."""
        capacity = sum(deployment.places.capacity for deployment in self._all)
        return Pool(capacity, sum(deployment.load for deployment in self._all))

    def stop_waiting(self) -> None:
        """Let no call wait for a place any more."""
        for deployment in self._all:
            deployment.places.close()

    def wait_s(self, need: CallNeed, time_left_s: float) -> float:
        """Seconds until this call may be sent to any of them."""
        return min(deployment.wait_s(need, time_left_s) for deployment in self._all)

    def is_usable(self, model: str) -> bool:
        """True when one of them is not ejected, for this model."""
        return any(deployment.is_usable(model) for deployment in self._all)

    def has_untried(self, need: CallNeed) -> bool:
        """True when one that this call has not tried may be asked now."""
        return any(
            deployment.name not in need.tried and deployment.is_usable(need.model) and not deployment.wait_s(need)
            for deployment in self._all
        )

    @asynccontextmanager
    async def hold_place(self, tenant: str, wait_s: float, need: CallNeed) -> AsyncIterator[Deployment]:
        """A place at the least loaded one; raises Deferred after `wait_s`: waiting is never an un-acked message."""
        until_s = self._clock() + wait_s
        while True:
            chosen = self._choose_deployment(need)
            chosen.load += 1
            try:
                if not await chosen.places.acquire_slot(tenant, max(0.0, until_s - self._clock())):
                    raise Deferred(BUSY_RETRY_MS, f"every place at {chosen.name} is taken")
                try:
                    # While it waited, the deployment may have refused others: then it goes elsewhere.
                    if chosen is self._choose_deployment(need, held_deployment=chosen) or self._clock() >= until_s:
                        chosen.last_used_s = self._clock()
                        with chosen.state_of(need.model).health.trial(chosen.last_used_s):
                            yield chosen
                        return
                finally:
                    chosen.places.release_slot(tenant)
            finally:
                chosen.load -= 1

    def _choose_deployment(self, need: CallNeed, held_deployment: Deployment | None = None) -> Deployment:
        """The best one now. held_deployment: holds a place here already, so that its health and limits alone count."""

        def order_of(deployment: Deployment) -> tuple[object, ...]:
            holds_place = deployment is held_deployment
            return (
                deployment.wait_s(need),
                not deployment.is_usable(need.model),
                deployment.name in need.tried,
                not holds_place and held_deployment is not None,
                deployment.load / deployment.places.capacity,
                deployment.last_used_s,
            )

        return min(self._all, key=order_of)
