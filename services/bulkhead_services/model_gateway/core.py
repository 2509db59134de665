"""The model gateway's doer. Enters: ModelCallRequested. Leaves: ModelCallReplied, with what it used and how it stands.

A tier names a route; a model of it answers (one that stands in is told as degraded), or the reply says why not.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from bulkhead.grants import Verifier
from bulkhead.runtime.component import Pool, RpcTable
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.doer.protocol import Doer, Hands, Job
from bulkhead.runtime.errors import Refused
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import UNKNOWN_ROUTE, ModelCallReplied, ModelCallRequested, ModelsReplied, ModelsRequested
from bulkhead_contracts.result import EMBEDDINGS, Completeness, ContentRef, Failure, Label, Omission
from bulkhead_contracts.types import Body
from bulkhead_services.model_gateway.attempts import BREAKER_OPEN, Attempts, Model, Outcome, Policy
from bulkhead_services.model_gateway.attribution import attributed
from bulkhead_services.model_gateway.attribution_process import Attributor
from bulkhead_services.model_gateway.context.conversation import calls_as_content, payload_of, unreadable
from bulkhead_services.model_gateway.context.render import Source, missing_parts
from bulkhead_services.model_gateway.prompts import Prompt, Prompts
from bulkhead_services.model_gateway.providers.port import Answer, Fault, OnText
from bulkhead_services.model_gateway.replies.structured import Reading, read
from bulkhead_services.model_gateway.response_cache import ResponseCache, media_type_of
from bulkhead_services.model_gateway.routing.chain import Chain, Reached, Route
from bulkhead_services.model_gateway.routing.policies import Policies

SERVICE = "model_gateway"

NOTHING_SAID = Failure.of(
    "no_answer",
    "the model thought and gave no answer",
    "give the call more output tokens, or name a model (or a mode of it) that thinks less",
)

ASK_FOR_LESS = "have the model make fewer or shorter calls at once"
OF_STEPS = ("worker", subjects.DOORS)
"""Callers that work on a step."""

WholeConversation = Callable[[Job[ModelCallRequested], Hands], Awaitable[Job[ModelCallRequested] | Fault]]
ReadContents = Callable[[Job[ModelCallRequested], Hands], Awaitable[tuple[Mapping[str, str], frozenset[str]]]]
LiveText = Callable[[Job[ModelCallRequested], Hands], OnText]


class ModelGateway(Doer[ModelCallRequested]):
    """One request in, one reply out."""

    service = SERVICE
    handles = (ModelCallRequested,)

    def __init__(
        self,
        routes: Mapping[str, Route],
        prompts: Prompts,
        policy: Policy,
        policies: Policies,
        *,
        whole_conversation: WholeConversation,
        read_contents: ReadContents,
        verifier: Verifier,
        attributor: Attributor,
        live_text: LiveText,
        cache: ResponseCache | None = None,
        abandoned: Callable[[Job[ModelCallRequested]], asyncio.Event] = lambda job: asyncio.Event(),
        start: Callable[[], Awaitable[None]] | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
        drain: Callable[[], None] = lambda: None,
        pools: Callable[[], dict[str, Pool]] = dict,
    ) -> None:
        self._routes, self._prompts, self._policy, self._policies = routes, prompts, policy, policies
        self._whole_conversation, self._read_contents = whole_conversation, read_contents
        self._live_text, self._verifier = live_text, verifier
        self._attributor = attributor
        self._cache, self._abandoned = cache, abandoned
        self.rpc: RpcTable = {ModelsRequested: self.models}
        self._start, self._stop = start, stop
        self._drain = drain
        self._pools = pools

    async def start(self) -> None:
        """Open the connections to providers."""
        if self._start is not None:
            await self._start()

    async def stop(self) -> None:
        """Close them."""
        await self._attributor.stop()
        if self._stop is not None:
            await self._stop()

    def drain(self) -> None:
        """Let no call wait any more: a call that began now could not end, and would be paid for."""
        self._drain()

    def pools(self) -> dict[str, Pool]:
        """Places at the providers, by provider."""
        return self._pools()

    async def models(self, received: Received) -> Body:
        """The names that calls of a tenant can give: of routes, then of the models that answer first there."""
        routes = self._routes.items()
        names = [name for name, route in routes if any(self._open(received.tenant, one) for one in route.models(1))]
        names += [route.primary.name for _, route in routes if self._open(received.tenant, route.primary)]
        told = [name for name in dict.fromkeys(names) if 0 < len(name) <= bounds.MAX_NAME_CHARS]
        return ModelsReplied(names=tuple(told[: bounds.MAX_MODELS_TOLD]))

    def _open(self, tenant: str, model: Model) -> bool:
        return not self._policies.objection(tenant, model.provider.name, model.terms)

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
        whole = await self._whole_conversation(job, hands)
        if isinstance(whole, Fault):
            return self._no(request, "refused" if whole.refused else "failed", _failure(whole))
        job, request = whole, whole.request
        texts, missing = await self._read_contents(job, hands)
        source = self._source(request, prompt, route, texts, missing)
        if isinstance(source, Fault):
            return self._no(request, "refused" if source.refused else "failed", _failure(source))
        attempts = Attempts(
            job, hands, self._policy, lambda: self._live_text(job, hands), self._cache, self._abandoned(job)
        )
        try:
            reached = await Chain(attempts, source, hands.now_unix_ms).ask(route, self._policies, job.tenant)
            said = reached.outcome.said
            if isinstance(said, Fault) and said.code == BREAKER_OPEN and attempts.held is not None:
                # No agent can go on without its model: the call waits until the breaker allows a trial.
                raise hands.held_back(attempts.held)
        except Refused as refusal:
            why = refusal.failure
            said = Fault(why.code, why.message, why.hint, consumed=False, refused=True)
            reached = Reached(Outcome(said), route.primary)
        reply = await self._reply(job, hands, reached, texts)
        spent, took_ms = attempts.spent, max(0, hands.now_unix_ms() - began)
        told = {
            "usage": spent.usage,
            "provider_attempts": spent.attempts,
            "duration_ms": took_ms,
            "waited_ms": min(spent.waited_ms, took_ms),
            "waited_for": spent.waited_for(),
        }
        return reply.model_copy(update=told)

    def _prepare(self, job: Job[ModelCallRequested]) -> tuple[Prompt | None, Route] | Fault:
        """The prompt and the route of a call; no prompt of an outside agent's."""
        request = job.request
        step = job.authority.step
        place = (step.step_id, step.attempt) if step is not None else None
        if job.sender in OF_STEPS and place != (request.step_id, request.attempt):
            message = f"a call of {job.sender} needs the grant of the very step and attempt that it is for"
            return Fault("bad_grant", message, "hand on the grant of StepAssigned", refused=True)
        if (job.sender == subjects.DOORS) != (request.conversation is not None):
            message = "a conversation comes from doors, and doors sends nothing else"
            return Fault(
                "forbidden", message, f"this is a bug or an attack: look at the log of {job.sender}", refused=True
            )
        prompt = self._prompt(request)
        if prompt is None and request.conversation is None:
            message = f"there is no prompt {request.prompt_id}"
            return Fault("unknown_prompt", message, f"known: {', '.join(self._prompts.names)}", refused=True)
        route = self._route(request)
        if route is None:
            message = f"the model gateway has no route {request.tier}"
            hint = f"routes: {', '.join(self._routes)}; add one to BULKHEAD_ROUTES"
            if request.conversation is not None:
                message = f"the model gateway has no route and no model {request.tier}"
                models = dict.fromkeys(route.primary.name for route in self._routes.values())
                hint = f"routes: {', '.join(self._routes)}; models: {', '.join(models)}; add one to BULKHEAD_ROUTES"
            return Fault(UNKNOWN_ROUTE, message, hint, refused=True)
        return prompt, route

    def _route(self, request: ModelCallRequested) -> Route | None:
        """The route of this name; for an outside agent, which knows models, else the first whose first model is."""
        known = self._routes.get(request.tier)
        if known is not None or request.conversation is None:
            return known
        return next((route for route in self._routes.values() if route.primary.name == request.tier), None)

    def _source(
        self,
        request: ModelCallRequested,
        prompt: Prompt | None,
        route: Route,
        texts: Mapping[str, str],
        missing: frozenset[str],
    ) -> Source | Fault:
        """What is to be sent, or why it cannot be."""
        parts = missing_parts(request, missing)
        gone = f"the {parts[0].kind} part" if parts else ""
        if request.conversation is not None:
            gone = unreadable(request.conversation, missing)
        if gone:
            message = f"{gone} cannot be read: its content expired or does not match its digest"
            return Fault("content_missing", message, "submit the task again")
        if request.conversation is not None:
            payload = payload_of(request.conversation, texts)
            return payload if isinstance(payload, Fault) else Source("", request, texts, payload=payload)
        assert prompt is not None
        schema = None
        if request.response != "text":
            schema = self._prompts.schema(request.response, route.prompts, roles=request.roles)
        return Source(prompt.text, request, texts, schema, prompt.digest, missing)

    async def _reply(
        self, job: Job[ModelCallRequested], hands: Hands, reached: Reached, texts: Mapping[str, str]
    ) -> ModelCallReplied:
        request, outcome, model, degraded = job.request, reached.outcome, reached.model, reached.degraded
        said = outcome.said
        price = model.price.digest if model.price else ""
        source: dict[str, Any] = {"provider": model.provider.name[: bounds.MAX_SUMMARY_CHARS], "price_digest": price}
        if isinstance(said, Fault):
            reply = self._no(request, "refused" if said.refused else "failed", _failure(said))
            told = {"model": model.name, "completeness": _completeness(outcome.omissions)}
            return reply.model_copy(update=source | told)
        adopted = request.conversation is not None
        calls = calls_as_content(request, said.calls)
        if adopted and (cut := said.cut_calls or (calls if isinstance(calls, str) else "")):
            # An agent would take what is left for all that the model asked for.
            reply = self._no(request, "failed", Failure.of("tool_calls_too_large", cut, ASK_FOR_LESS))
            return reply.model_copy(update={**source, "model": said.model or model.name})
        reading = Reading(said.text) if adopted else read(said.text, request.response, said.finish)
        if reading.changes and not reading.text.strip() and not said.calls:
            reply = self._no(request, "failed", NOTHING_SAID)
            return reply.model_copy(update={**source, "model": said.model or model.name, "changes": reading.changes})
        content, raw = await self._contents(job, hands, said, reading)
        labels = (hands.signer.label(_label(content, model), job.tenant, job.task),) if content else ()
        prompt_id, digest = self._prompt_of(request)
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="answered",
            content=content,
            raw=raw,
            changes=reading.changes[: bounds.MAX_REPLY_CHANGES],
            tool_calls=()
            if calls
            else await attributed(job, hands, self._verifier, self._attributor, texts, said.calls),
            calls=await hands.blobs.put(job.tenant, calls, "application/json", summary="") if calls else None,
            thoughts=await hands.blobs.put(job.tenant, json.dumps(said.thoughts), "application/json", summary="")
            if said.thoughts
            else None,
            finish=said.finish,
            standing="degraded" if degraded else "ok",
            standing_reason=degraded[: bounds.MAX_SUMMARY_CHARS],
            completeness=_completeness((*outcome.omissions, *said.omissions, *reading.omissions)),
            provenance=labels,
            fingerprint=said.fingerprint,
            prompt_id=prompt_id,
            prompt_digest=digest,
            model=said.model or model.name,
            pinned=model.name[: bounds.MAX_SUMMARY_CHARS],
            chosen_as=reached.role,
            cached=said.cached,
            **source,
        )

    def _prompt(self, request: ModelCallRequested) -> Prompt | None:
        route = self._routes.get(request.tier)
        style = route.prompts if route else "full"
        return self._prompts.find(request.prompt_id, style, roles=bool(request.roles))

    async def _contents(
        self, job: Job[ModelCallRequested], hands: Hands, said: Answer, reading: Reading
    ) -> tuple[ContentRef | None, ContentRef | None]:
        """Blobs of the text that goes on, and of the text as it came where that is another."""
        conversation, media_type, summary = job.request.conversation, media_type_of(job.request), None
        if conversation is not None and conversation.embeds:
            media_type, summary = EMBEDDINGS, ""
        says = bool(reading.text if job.request.conversation is not None else reading.text.strip())
        content = await hands.blobs.put(job.tenant, reading.text, media_type, summary=summary) if says else None
        changed = reading.text != said.text
        return content, await hands.blobs.put(job.tenant, said.text, "text/plain") if changed else None

    def _prompt_of(self, request: ModelCallRequested) -> tuple[str, str]:
        prompt = self._prompt(request)
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
