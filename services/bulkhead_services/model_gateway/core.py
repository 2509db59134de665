"""The model gateway's doer. Enters: ModelCallRequested. Leaves: ModelCallReplied, with what it used and how it stands.

A tier names a model; the model answers, or its fallback does (and the reply is degraded), or the reply says why not.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bulkhead.runtime.doer.protocol import Doer, Hands, Job
from bulkhead.runtime.errors import Refused
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Label, Omission
from bulkhead_services.model_gateway.attempts import BREAKER_OPEN, Attempts, Model, Outcome, Policy, worse
from bulkhead_services.model_gateway.prompts import Prompt, Prompts
from bulkhead_services.model_gateway.providers.port import Answer, Fault, OnText
from bulkhead_services.model_gateway.render import Source, missing_parts

SERVICE = "model_gateway"
FALLBACK_SHARE = 0.6
"""Share of a call's time that the first model may use when another one stands by."""

ReadContents = Callable[[Job[ModelCallRequested], Hands], Awaitable[tuple[Mapping[str, str], frozenset[str]]]]
LiveText = Callable[[Job[ModelCallRequested], Hands], OnText]


@dataclass(frozen=True, slots=True)
class Route:
    """The models of a tier."""

    primary: Model
    fallback: Model | None = None


class ModelGateway(Doer[ModelCallRequested]):
    """One request in, one reply out."""

    service = SERVICE
    handles = (ModelCallRequested,)

    def __init__(
        self,
        routes: Mapping[str, Route],
        prompts: Prompts,
        policy: Policy,
        *,
        read_contents: ReadContents,
        live_text: LiveText,
        start: Callable[[], Awaitable[None]] | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
        drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._routes, self._prompts, self._policy = routes, prompts, policy
        self._read_contents, self._live_text = read_contents, live_text
        self._start, self._stop = start, stop
        self._drain = drain

    async def start(self) -> None:
        """Open the connections to providers."""
        if self._start is not None:
            await self._start()

    async def stop(self) -> None:
        """Close them."""
        if self._stop is not None:
            await self._stop()

    def drain(self) -> None:
        """Let no call wait any more: a call that began now could not end, and would be paid for."""
        self._drain()

    def key(self, request: ModelCallRequested) -> str:
        """The call id: an answer that was recorded is given again."""
        return request.call_id

    def writes(self, job: Job[ModelCallRequested]) -> bool:
        """Asking a model changes nothing but the bill, which counts every attempt."""
        return False

    def refuse(self, request: ModelCallRequested, failure: Failure) -> ModelCallReplied:
        """The reply that says no."""
        return self._no(request, "refused", failure)

    def uncertain(self, request: ModelCallRequested) -> ModelCallReplied:
        """Never asked for, since nothing here writes."""
        failure = Failure.of("uncertain", "the call may or may not have been made", "ask again")
        return self._no(request, "failed", failure)

    async def act(self, job: Job[ModelCallRequested], hands: Hands) -> ModelCallReplied:
        """Answer one call. Raises Deferred when it may not act yet."""
        request, began = job.request, hands.now_unix_ms()
        found = self._prepare(job)
        if isinstance(found, Fault):
            return self._no(request, "refused", _failure(found))
        prompt, route = found
        texts, missing = await self._read_contents(job, hands)
        if gone := missing_parts(request, missing):
            message = f"the {gone[0].kind} part cannot be read: its content expired or does not match its digest"
            failure = Failure.of("content_missing", message, "submit the task again")
            return self._no(request, "failed", failure)
        schema = self._prompts.schemas[request.response] if request.response != "text" else None
        source = Source(prompt.text, request, texts, schema, missing)
        attempts = Attempts(job, hands, self._policy, lambda: self._live_text(job, hands))
        try:
            outcome, model, standing_reason = await self._ask(attempts, route, source, began)
            if isinstance(outcome.said, Fault) and outcome.said.code == BREAKER_OPEN and attempts.held is not None:
                # No agent can go on without its model: the call waits until the breaker allows a trial.
                raise hands.held_back(attempts.held)
        except Refused as refusal:
            why = refusal.failure
            said = Fault(why.code, why.message, why.hint, consumed=False, refused=True)
            outcome, model, standing_reason = Outcome(said), route.primary, ""
        reply = await self._reply(job, hands, outcome, model, standing_reason)
        spent, took_ms = attempts.spent, max(0, hands.now_unix_ms() - began)
        told = {"usage": spent.usage, "provider_attempts": spent.attempts, "duration_ms": took_ms}
        return reply.model_copy(update=told)

    def _prepare(self, job: Job[ModelCallRequested]) -> tuple[Prompt, Route] | Fault:
        request = job.request
        step = job.authority.step
        if job.sender == "worker" and (step is None or step.step_id != request.step_id):
            message = "a worker's call needs the grant of the very step that it is for"
            return Fault("bad_grant", message, "hand on the grant of StepAssigned", refused=True)
        prompt = self._prompts.find(request.prompt_id)
        if prompt is None:
            message = f"there is no prompt {request.prompt_id}"
            return Fault("unknown_prompt", message, f"known: {', '.join(self._prompts.names)}", refused=True)
        route = self._routes.get(request.tier)
        if route is None:
            message = f"no model serves the tier {request.tier}"
            hint = f"tiers: {', '.join(self._routes)}; add one to BULKHEAD_ROUTES"
            return Fault("unknown_model", message, hint, refused=True)
        return prompt, route

    async def _ask(
        self, attempts: Attempts, route: Route, source: Source, now_unix_ms: int
    ) -> tuple[Outcome, Model, str]:
        """The outcome, the model that it came from, and why it is degraded ("" when it is not)."""
        deadline = source.request.deadline_unix_ms
        if route.fallback is None:
            return await attempts.run(route.primary, source, deadline), route.primary, ""
        until = now_unix_ms + int((deadline - now_unix_ms) * FALLBACK_SHARE)
        first = await attempts.run(route.primary, source, until)
        if isinstance(first.said, Answer) or not first.said.outage:
            return first, route.primary, ""
        second = await attempts.run(route.fallback, source, deadline)
        if isinstance(second.said, Fault):
            if second.said.refused and second.said.code != "halted":
                return first, route.primary, ""
            return replace(second, said=worse(first.said, second.said)), route.fallback, ""
        reason = f"{route.primary.name} was out ({first.said.code}); {route.fallback.name} answered in its place"
        return second, route.fallback, reason

    async def _reply(
        self, job: Job[ModelCallRequested], hands: Hands, outcome: Outcome, model: Model, degraded: str
    ) -> ModelCallReplied:
        request, said = job.request, outcome.said
        price = model.price.digest if model.price else ""
        source: dict[str, Any] = {"provider": model.provider.name[: bounds.MAX_SUMMARY_CHARS], "price_digest": price}
        if isinstance(said, Fault):
            reply = self._no(request, "refused" if said.refused else "failed", _failure(said))
            told = {"model": model.name, "completeness": _completeness(outcome.omissions)}
            return reply.model_copy(update=source | told)
        content: ContentRef | None = None
        labels: tuple[Label, ...] = ()
        if said.text.strip():
            media_type = "text/plain" if request.response == "text" else "application/json"
            content = await hands.blobs.put(job.tenant, said.text, media_type)
            labels = (hands.signer.label(_label(content, model)),)
        prompt_id, digest = self._prompt_of(request)
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="answered",
            content=content,
            tool_calls=said.calls,
            finish=said.finish,
            standing="degraded" if degraded else "ok",
            standing_reason=degraded[: bounds.MAX_SUMMARY_CHARS],
            completeness=_completeness((*outcome.omissions, *said.omissions)),
            provenance=labels,
            fingerprint=said.fingerprint,
            prompt_id=prompt_id,
            prompt_digest=digest,
            model=said.model or model.name,
            **source,
        )

    def _prompt_of(self, request: ModelCallRequested) -> tuple[str, str]:
        prompt = self._prompts.find(request.prompt_id)
        return (prompt.name, prompt.digest) if prompt else (request.prompt_id, "")

    def _no(
        self, request: ModelCallRequested, outcome: Literal["refused", "failed"], failure: Failure
    ) -> ModelCallReplied:
        prompt_id, digest = self._prompt_of(request)
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome=outcome,
            failure=failure,
            standing="failed",
            standing_reason=failure.message[: bounds.MAX_SUMMARY_CHARS],
            prompt_id=prompt_id,
            prompt_digest=digest,
        )


def _completeness(omissions: tuple[Omission, ...]) -> Completeness:
    return Completeness.missing(*omissions) if omissions else Completeness()


def _label(content: ContentRef, model: Model) -> Label:
    source = f"{model.provider.name}/{model.name}"[: bounds.MAX_SUMMARY_CHARS]
    return Label(sha256=content.sha256, kind="model_reply", source=source, trust="untrusted", observed_by=SERVICE)


def _failure(fault: Fault) -> Failure:
    return Failure.of(fault.code, fault.message, fault.hint)
