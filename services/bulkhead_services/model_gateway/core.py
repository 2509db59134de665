"""The model gateway's doer. Enters: ModelCallRequested. Leaves: ModelCallReplied, with what it used and how it stands.

A tier names a route; a model of it answers (one that stands in is told as degraded), or the reply says why not.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from bulkhead.grants import Verifier
from bulkhead.model_apis.bounding import bound_payload
from bulkhead.prompts.files import Prompts, PromptText
from bulkhead.prompts.released import ReleasedPrompts, ReleaseMissing
from bulkhead.runtime.component import Pool, RpcTable
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.doer.protocol import Doer, Job, JobContext
from bulkhead.runtime.errors import JobRefused
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import (
    DEFAULT_TIER,
    UNKNOWN_ROUTE,
    ModelCallReplied,
    ModelCallRequested,
    ModelsReplied,
    ModelsRequested,
)
from bulkhead_contracts.result import EMBEDDINGS, Completeness, ContentRef, Failure, Label, Omission
from bulkhead_contracts.types import Body
from bulkhead_services.model_gateway.abandoned import AbandonedCalls
from bulkhead_services.model_gateway.attempts import BREAKER_OPEN, Model, ModelAttempts, ModelOutcome, RetryPolicy
from bulkhead_services.model_gateway.attribution import attribute_calls
from bulkhead_services.model_gateway.context.conversation import (
    encode_native_answer,
    encode_oversized_calls,
    name_first_unreadable,
    payload_of,
)
from bulkhead_services.model_gateway.context.pdf_sizes import PdfSizeReader
from bulkhead_services.model_gateway.context.render import RenderSource, missing_required_parts
from bulkhead_services.model_gateway.effects import HttpProvider, read_contents, whole_conversation
from bulkhead_services.model_gateway.live_text import live_publisher
from bulkhead_services.model_gateway.providers.port import ModelAnswer, ProviderFault
from bulkhead_services.model_gateway.replies.structured import ReplyText, find_schema_misfit, read_reply
from bulkhead_services.model_gateway.response_cache import ResponseCache, media_type_of
from bulkhead_services.model_gateway.routing.chain import Chain, ChainResult, Route
from bulkhead_services.model_gateway.routing.pins import route_of_version
from bulkhead_services.model_gateway.routing.policies import TenantDataPolicies

SERVICE = "model_gateway"
ROUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
"""A name that needs no quoting in a command."""

EMPTY_ANSWER = Failure.from_text(
    "no_answer",
    "the model thought and gave no answer",
    "give the call more output tokens, or name a model (or a mode of it) that thinks less",
)

FEWER_CALLS_HINT = "have the model make fewer or shorter calls at once"
JUDGE_TIER = "judge"
STEP_CALLERS = ("worker", subjects.DOORS)
"""Callers that work on a step."""


class ModelGateway(Doer[ModelCallRequested]):
    """One request in, one reply out."""

    service = SERVICE
    handles = (ModelCallRequested,)

    def __init__(
        self,
        routes: Mapping[str, Route],
        prompts: Prompts,
        retry_policy: RetryPolicy,
        data_policies: TenantDataPolicies,
        providers: Mapping[str, HttpProvider],
        abandoned_calls: AbandonedCalls,
        verifier: Verifier,
        attributor: Attributor,
        cache: ResponseCache | None,
        unknown_models: str = "",
        *,
        released: ReleasedPrompts,
    ) -> None:
        """unknown_models: the route by which models are answered that an outside agent names and nobody knows."""
        self._unknown_models = unknown_models
        self._routes, self._prompts, self._providers = routes, prompts, providers
        self._released = released
        self._retry_policy, self._data_policies = retry_policy, data_policies
        self._abandoned_calls, self._verifier, self._attributor = abandoned_calls, verifier, attributor
        self._cache, self._pdf_sizes = cache, PdfSizeReader()
        self.rpc: RpcTable = {ModelsRequested: self.on_models_requested}

    async def start(self) -> None:
        """Open the connections to providers."""
        for provider in self._providers.values():
            provider.open()
        await self._abandoned_calls.start()

    async def stop(self) -> None:
        """Close them."""
        await self._attributor.stop()
        await self._abandoned_calls.stop()
        for provider in self._providers.values():
            await provider.stop()

    def drain(self) -> None:
        """Let no call wait any more: a call that began now could not end, and would be paid for."""
        for provider in self._providers.values():
            provider.stop_waiting()

    def pools(self) -> dict[str, Pool]:
        """Places at the providers, by provider."""
        return {name: provider.pool() for name, provider in self._providers.items()}

    async def on_models_requested(self, received: ReceivedMessage) -> Body:
        """The names that calls of a tenant can give: of routes, then of the models that answer first there."""
        allowed, by_name = partial(self._is_allowed, received.tenant), dict[str, int]()
        for name, route in self._routes.items():
            if any(map(allowed, route.models_for(1))):
                by_name[name] = route.most_context_tokens
        for route in self._routes.values():
            if allowed(route.primary):
                by_name.setdefault(route.primary.name, route.most_context_tokens)
        rows = [row for row in by_name.items() if 0 < len(row[0]) <= bounds.MAX_NAME_CHARS][: bounds.MAX_MODELS_TOLD]
        return ModelsReplied(names=tuple(name for name, _ in rows), context_tokens=tuple(most for _, most in rows))

    def _is_allowed(self, tenant: str, model: Model) -> bool:
        return not self._data_policies.objection(tenant, model.provider.name, model.terms)

    def idempotency_key(self, request: ModelCallRequested) -> str:
        """The call id: an answer that was recorded is given again."""
        return request.call_id

    def needs_claim(self, job: Job[ModelCallRequested]) -> bool:
        """Asking a model changes nothing but the bill, which counts every attempt."""
        return False

    def refusal_reply(self, request: ModelCallRequested, failure: Failure) -> ModelCallReplied:
        """The reply that says no."""
        return self._failed_reply(request, "refused", failure)

    def uncertain_reply(self, request: ModelCallRequested) -> ModelCallReplied:
        """Never asked for, since nothing here writes."""
        failure = Failure.from_text("uncertain", "the call may or may not have been made", "ask again")
        return self._failed_reply(request, "failed", failure)

    async def act(self, job: Job[ModelCallRequested], hands: JobContext, turn: object) -> ModelCallReplied:
        """Answer one call. Raises Deferred when it may not act yet."""
        reply = await self._answer_call(job, hands, prompt := await self._find_prompt(job))
        if isinstance(prompt, ProviderFault) or prompt is None:
            return reply
        release = job.authority.task.release
        return reply.model_copy(update={"prompt_id": prompt.name, "prompt_digest": prompt.digest, "release": release})

    async def _answer_call(
        self, job: Job[ModelCallRequested], hands: JobContext, prompt: PromptText | ProviderFault | None
    ) -> ModelCallReplied:
        """The reply to a call with this prompt; None for an outside agent's. Raises Deferred."""
        request, began_unix_ms = job.request, hands.now_unix_ms()
        route = self._prepare_call(job, prompt)
        if isinstance(prompt, ProviderFault):
            return self._fault_reply(request, prompt)
        if isinstance(route, ProviderFault):
            return self._fault_reply(request, route)
        whole_job = await whole_conversation(job, hands)
        if isinstance(whole_job, ProviderFault):
            return self._fault_reply(request, whole_job)
        job, request = whole_job, whole_job.request
        texts, missing = await read_contents(job, hands)
        source = await self._render_source(job, prompt, route, texts, missing)
        if isinstance(source, ProviderFault):
            return self._fault_reply(request, source)
        abandoned = self._abandoned_calls.event_of(job)
        attempts = ModelAttempts(
            job,
            hands,
            self._retry_policy,
            lambda: live_publisher(job, hands),
            self._cache,
            abandoned,
            prompt.name if prompt is not None else "",
        )
        try:
            chain_result = await Chain(attempts, source, hands.now_unix_ms).ask_models(
                route, self._data_policies, job.tenant
            )
            answer = chain_result.outcome.result
            if isinstance(answer, ProviderFault) and answer.code == BREAKER_OPEN and attempts.open_breaker is not None:
                # No agent can go on without its model: the call waits until the breaker allows a trial.
                raise hands.defer_for_breaker(attempts.open_breaker)
        except JobRefused as refusal:
            failure = refusal.failure
            answer = ProviderFault(failure.code, failure.message, failure.hint, consumed=False, refused=True)
            chain_result = ChainResult(ModelOutcome(answer), route.primary)
        reply = await self._build_reply(job, hands, chain_result, texts, output_schema_of(request, prompt))
        spent, took_ms = attempts.spending, max(0, hands.now_unix_ms() - began_unix_ms)
        usage_fields = {
            "usage": spent.usage,
            "provider_attempts": spent.attempts,
            "duration_ms": took_ms,
            "waited_ms": min(spent.waited_ms, took_ms),
            "waited_for": spent.describe_waits(),
        }
        return reply.model_copy(update=usage_fields)

    def _prepare_call(
        self, job: Job[ModelCallRequested], prompt: PromptText | ProviderFault | None
    ) -> Route | ProviderFault:
        """The route of a call, or why it is not made."""
        request = job.request
        step = job.authority.step
        place = (step.step_id, step.attempt) if step is not None else None
        if job.sender in STEP_CALLERS and place != (request.step_id, request.attempt):
            message = f"a call of {job.sender} needs the grant of the very step and attempt that it is for"
            return ProviderFault("bad_grant", message, "hand on the grant of StepAssigned", refused=True)
        if (job.sender == subjects.DOORS) != (request.conversation is not None):
            message = "a conversation comes from doors, and doors sends nothing else"
            return ProviderFault(
                "forbidden", message, f"this is a bug or an attack: look at the log of {job.sender}", refused=True
            )
        if prompt is None and request.conversation is None:
            message = f"there is no prompt {request.prompt_id}"
            return ProviderFault("unknown_prompt", message, f"known: {', '.join(self._prompts.names)}", refused=True)
        route = self._route_of(request)
        if route is None:
            message = f"the model gateway has no route {request.tier}"
            hint = f"routes: {', '.join(self._routes)}; add one to BULKHEAD_ROUTES"
            if request.conversation is not None:
                message = f"the model gateway has no route and no model {request.tier}"
                models = dict.fromkeys(route.primary.name for route in self._routes.values())
                hint = f"routes: {', '.join(self._routes)}; models: {', '.join(models)}; "
                hint += self._route_line(request.tier)
            return ProviderFault(UNKNOWN_ROUTE, message, hint, refused=True)
        # A task that names a route is answered by it: whoever compares models compares what they name.
        released = prompt.released if isinstance(prompt, PromptText) else None
        if released is None or request.tier not in (DEFAULT_TIER, JUDGE_TIER):
            return route
        versions_route = route_of_version(self._routes, route, released)
        if versions_route is None:
            message = (
                f"{request.prompt_id} is released with the model {released.model}, which no route of this mesh has"
            )
            hint = f"routes: {', '.join(self._routes)}; roll the label back, or add the model to BULKHEAD_ROUTES"
            return ProviderFault(UNKNOWN_ROUTE, message, hint, refused=True)
        return versions_route

    def _route_line(self, name: str) -> str:
        """The setting that has a name answered by the model of the default route, to copy."""
        model, display_name = self._routes[DEFAULT_TIER].primary, name if ROUTE_NAME.fullmatch(name) else "NAME"
        row = json.dumps({display_name: {"provider": model.provider.name, "model": model.name}})
        return f"add BULKHEAD_ROUTES='{row}', or answer every unknown name by a route: BULKHEAD_UNKNOWN_MODELS=default"

    def _route_of(self, request: ModelCallRequested) -> Route | None:
        """The route of this name; for an outside agent, which knows models, else the first whose first model is."""
        named_route = self._routes.get(request.tier)
        if named_route is not None or request.conversation is None:
            return named_route
        by_model = (route for route in self._routes.values() if route.primary.name == request.tier)
        return next(by_model, self._routes.get(self._unknown_models))

    async def _render_source(
        self,
        job: Job[ModelCallRequested],
        prompt: PromptText | None,
        route: Route,
        texts: Mapping[str, str],
        missing: frozenset[str],
    ) -> RenderSource | ProviderFault:
        """The rendering's source, or why there is none."""
        request = job.request
        parts = missing_required_parts(request, missing)
        unreadable_part = f"the {parts[0].kind} part" if parts else ""
        if request.conversation is not None:
            unreadable_part = name_first_unreadable(request.conversation, missing)
        if unreadable_part:
            message = f"{unreadable_part} cannot be read: its content expired or does not match its digest"
            return ProviderFault("content_missing", message, "submit the task again")
        if request.conversation is not None:
            payload = payload_of(request.conversation, texts)
            if isinstance(payload, ProviderFault):
                return payload
            if request.conversation.embeds:
                return (
                    payload if isinstance(payload, ProviderFault) else RenderSource("", request, texts, payload=payload)
                )
            pdfs = await self._pdf_sizes.read_sizes(job.tenant, job.authority.task.actor, payload)
            gaps = tuple(bound_payload(request.conversation.api, payload, pdfs))
            return RenderSource("", request, texts, payload=payload, gaps=gaps, pdfs=pdfs)
        assert prompt is not None
        schema: Mapping[str, Any] | None = output_schema_of(request, prompt) or None
        if request.response != "text":
            schema = self._prompts.schema_of(request.response, route.prompts, roles=request.roles)
        return RenderSource(prompt.text, request, texts, schema, prompt.digest, missing)

    async def _build_reply(
        self,
        job: Job[ModelCallRequested],
        hands: JobContext,
        chain_result: ChainResult,
        texts: Mapping[str, str],
        schema: Mapping[str, Any],
    ) -> ModelCallReplied:
        request, outcome, model, degraded = (
            job.request,
            chain_result.outcome,
            chain_result.model,
            chain_result.degraded_reason,
        )
        answer = outcome.result
        price_digest = model.price.dearest_at(hands.now_unix_ms()).digest if model.price else ""
        source_fields: dict[str, Any] = {
            "provider": model.provider.name[: bounds.MAX_SUMMARY_CHARS],
            "price_digest": price_digest,
        }
        if isinstance(answer, ProviderFault):
            reply = self._fault_reply(request, answer)
            fields = {"model": model.name, "completeness": _completeness_of(outcome.omissions)}
            return reply.model_copy(update=source_fields | fields)
        adopted = request.conversation is not None
        calls = encode_oversized_calls(request, answer.calls)
        if adopted and (cut_reason := answer.incomplete_calls or (calls if isinstance(calls, str) else "")):
            # An agent would take what is left for all that the model asked for.
            reply = self._failed_reply(
                request, "failed", Failure.from_text("tool_calls_too_large", cut_reason, FEWER_CALLS_HINT)
            )
            return reply.model_copy(update={**source_fields, "model": answer.model or model.name})
        reading = ReplyText(answer.text) if adopted else read_reply(answer.text, request.response, answer.finish)
        if reading.changes and not reading.text.strip() and not answer.calls:
            reply = self._failed_reply(request, "failed", EMPTY_ANSWER)
            return reply.model_copy(
                update={**source_fields, "model": answer.model or model.name, "changes": reading.changes}
            )
        if schema and not answer.calls and (misfit := find_schema_misfit(reading.text, schema)):
            failure = Failure.from_text("output_misfit", misfit, "ask again, or ease the prompt's output schema")
            reply = self._failed_reply(request, "failed", failure)
            return reply.model_copy(update={**source_fields, "model": answer.model or model.name})
        content, raw = await self._store_contents(job, hands, answer, reading)
        native = encode_native_answer(answer.native)
        labels = (hands.signer.sign_label(_reply_label(content, model), job.tenant, job.task),) if content else ()
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="answered",
            content=content,
            raw=raw,
            changes=reading.changes[: bounds.MAX_REPLY_CHANGES],
            tool_calls=()
            if calls
            else await attribute_calls(job, hands, self._verifier, self._attributor, texts, answer.calls),
            calls=await hands.blobs.put(job.tenant, calls, "application/json", summary="") if calls else None,
            thoughts=await hands.blobs.put(job.tenant, json.dumps(answer.thoughts), "application/json", summary="")
            if answer.thoughts
            else None,
            native=await hands.blobs.put(job.tenant, native, "application/json", summary="") if native else None,
            finish=answer.finish,
            standing="degraded" if degraded else "ok",
            standing_reason=degraded[: bounds.MAX_SUMMARY_CHARS],
            completeness=_completeness_of((*outcome.omissions, *answer.omissions, *reading.omissions)),
            provenance=labels,
            fingerprint=answer.fingerprint,
            prompt_id=request.prompt_id,
            model=answer.model or model.name,
            pinned=model.name[: bounds.MAX_SUMMARY_CHARS],
            chosen_as=chain_result.role,
            cached=answer.cached,
            **source_fields,
        )

    async def _find_prompt(self, job: Job[ModelCallRequested]) -> PromptText | ProviderFault | None:
        """The prompt of a call: the tenant's own where the task's release has one, else the shipped one; None where
        there is none. Raises BusError."""
        request = job.request
        route = self._routes.get(request.tier)
        style = route.prompts if route else "full"
        shipped = self._prompts.find_prompt(request.prompt_id, style, roles=bool(request.roles))
        if shipped is None or request.conversation is not None or "@" in request.prompt_id:
            return shipped
        try:
            return await self._released.find_version(job.tenant, job.authority.task.release, shipped.id) or shipped
        except ReleaseMissing as error:
            hint = "restore the stream PROMPTS from a backup, or submit the task again: it gets the prompts of now"
            return ProviderFault("prompt_missing", str(error), hint, refused=True)

    async def _store_contents(
        self, job: Job[ModelCallRequested], hands: JobContext, answer: ModelAnswer, reading: ReplyText
    ) -> tuple[ContentRef | None, ContentRef | None]:
        """References of the text that goes on, and of the text as it came where that is another."""
        conversation, media_type, summary = job.request.conversation, media_type_of(job.request), None
        if conversation is not None and conversation.embeds:
            media_type, summary = EMBEDDINGS, ""
        has_text = bool(reading.text if job.request.conversation is not None else reading.text.strip())
        is_verdict, content = job.request.response == "verdict", None
        if has_text:
            content = await hands.blobs.put(
                job.tenant, reading.text, media_type, summary=summary, is_for_asker=is_verdict
            )
        changed = reading.text != answer.text
        return content, await hands.blobs.put(job.tenant, answer.text, "text/plain") if changed else None

    def _fault_reply(self, request: ModelCallRequested, fault: ProviderFault) -> ModelCallReplied:
        failure = Failure.from_text(fault.code, fault.message, fault.hint)
        return self._failed_reply(request, "refused" if fault.refused else "failed", failure)

    def _failed_reply(
        self, request: ModelCallRequested, outcome: Literal["refused", "failed"], failure: Failure
    ) -> ModelCallReplied:
        return ModelCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome=outcome,
            failure=failure,
            standing="failed",
            standing_reason=failure.message[: bounds.MAX_SUMMARY_CHARS],
            prompt_id=request.prompt_id,
        )


def output_schema_of(request: ModelCallRequested, prompt: PromptText | None) -> Mapping[str, Any]:
    """The schema that a version sets for an answer in text; {} where it sets none."""
    released = prompt.released if prompt is not None and request.response == "text" else None
    return released.output_schema if released is not None else {}


def _completeness_of(omissions: tuple[Omission, ...]) -> Completeness:
    return Completeness.with_omissions(*omissions) if omissions else Completeness()


def _reply_label(content: ContentRef, model: Model) -> Label:
    source = f"{model.provider.name}/{model.name}"[: bounds.MAX_SUMMARY_CHARS]
    return Label(sha256=content.sha256, kind="model_reply", source=source, trust="untrusted", observed_by=SERVICE)
