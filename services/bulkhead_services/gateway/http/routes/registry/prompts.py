"""Prompts over HTTP: versions and releases are read; prompt editors and operators publish versions and move labels.

In: requests of people and programs. Out: the registry's reply, or problem details. Each act goes to the signer, which
looks at the person's role, and with its word to the registry, which believes nobody else. The id of an act derives from
its key: repeated, it is done once.
"""

import base64
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api import evaluations as evaluation_reads
from bulkhead.gateway_api import prompts as reads
from bulkhead.runtime.context import Context
from bulkhead_contracts.evaluation import (
    EvaluationReplied,
    EvaluationReported,
    EvaluationRequested,
    EvaluationsReplied,
    EvaluationsRequested,
    EvaluationStatement,
)
from bulkhead_contracts.prompt import (
    PromptPublishReplied,
    PromptPublishRequested,
    PromptsReplied,
    PromptsRequested,
    ReleaseMoveReplied,
    ReleaseMoveRequested,
    ReleasesReplied,
    ReleasesRequested,
)
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.prompt_registry import (
    MAX_ACT_BYTES,
    RegistryActs,
    ask_registry,
    build_request,
    show_version,
)
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response, parse_body
from bulkhead_services.gateway.http.schemas import (
    EvaluationSubmission,
    PromptSubmission,
    ReleaseSubmission,
    ReportSubmission,
)
from bulkhead_services.gateway.problems import not_found


class PromptRoutes:
    """The routes under /v1/prompts, /v1/releases and /v1/evaluations."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, bodies: GatewayRequestBodies) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._acts = RegistryActs(context, auth, bodies)

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(reads.PromptListQuery, self._auth, self.list_prompts),
            query_route(reads.PromptQuery, self._auth, self.show_prompt),
            query_route(reads.PromptVersionQuery, self._auth, self.show_version),
            query_route(reads.ReleaseListQuery, self._auth, self.list_releases),
            query_route(reads.LabelQuery, self._auth, self.show_label),
            Route("/v1/prompts/{prompt}", self.publish_version, methods=["POST"]),
            Route("/v1/releases/{label}", self.move_label, methods=["POST"]),
            query_route(evaluation_reads.EvaluationListQuery, self._auth, self.list_evaluations),
            query_route(evaluation_reads.EvaluationQuery, self._auth, self.show_evaluation),
            Route("/v1/evaluations", self.request_evaluation, methods=["POST"]),
            Route("/v1/evaluations/{number}/report", self.report_evaluation, methods=["POST"]),
        ]

    async def list_prompts(self, claim: RequesterClaim, _: reads.PromptListQuery) -> reads.PromptPage:
        """All prompts."""
        reply = await ask_registry(self._context, PromptsReplied, claim, PromptsRequested(requester=claim))
        return reads.PromptPage(prompts=reply.prompts)

    async def show_prompt(self, claim: RequesterClaim, query: reads.PromptQuery) -> reads.PromptDocument:
        """One prompt with its versions."""
        ask = build_request(PromptsRequested, "prompt", query.prompt, requester=claim, before=query.before)
        reply = await ask_registry(self._context, PromptsReplied, claim, ask)
        return reads.PromptDocument(
            prompt=reply.prompts[0],
            shipped_text=reply.shipped_text,
            shipped_sha256=reply.shipped_sha256,
            versions=reply.versions,
            more=reply.more,
        )

    async def show_version(self, claim: RequesterClaim, query: reads.PromptVersionQuery) -> reads.PromptVersionDocument:
        """One version, as a release fills it."""
        return await show_version(self._context, claim, query.prompt, query.version, query.release)

    async def list_releases(self, claim: RequesterClaim, _: reads.ReleaseListQuery) -> reads.ReleasePage:
        """The newest release of each label."""
        reply = await ask_registry(self._context, ReleasesReplied, claim, ReleasesRequested(requester=claim))
        return reads.ReleasePage(releases=reply.releases, canaries=reply.canaries, drifts=reply.drifts)

    async def show_label(self, claim: RequesterClaim, query: reads.LabelQuery) -> reads.ReleasePage:
        """All releases of a label."""
        ask = build_request(ReleasesRequested, "label", query.label, requester=claim, before=query.before)
        reply = await ask_registry(self._context, ReleasesReplied, claim, ask)
        return reads.ReleasePage(releases=reply.releases, more=reply.more, canaries=reply.canaries, gate=reply.gate)

    async def list_evaluations(
        self, claim: RequesterClaim, query: evaluation_reads.EvaluationListQuery
    ) -> evaluation_reads.EvaluationPage:
        """The tenant's evaluations."""
        ask = EvaluationsRequested(requester=claim, before=query.before)
        reply = await ask_registry(self._context, EvaluationsReplied, claim, ask)
        return evaluation_reads.EvaluationPage(evaluations=reply.rows, more=reply.more)

    async def show_evaluation(
        self, claim: RequesterClaim, query: evaluation_reads.EvaluationQuery
    ) -> evaluation_reads.EvaluationDocument:
        """One evaluation with what its statement says."""
        ask = build_request(EvaluationsRequested, "number", query.number, requester=claim)
        if not ask.number:
            raise not_found("number", query.number, "GET /v1/evaluations lists them")
        [row] = (await ask_registry(self._context, EvaluationsReplied, claim, ask)).rows
        # The registry has verified the signature before it stored the envelope.
        payload = base64.b64decode(json.loads(row.report.envelope)["payload"]) if row.report else b""
        statement = EvaluationStatement.model_validate_json(payload) if payload else None
        return evaluation_reads.EvaluationDocument(evaluation=row.evaluation, report=row.report, statement=statement)

    async def publish_version(self, request: Request) -> Response:
        """POST /v1/prompts/{prompt}"""
        claim, act, body = await self._acts.read_act(request, reads.EDITORS, "change prompts", PromptSubmission)
        name = request.path_params["prompt"]
        ask = build_request(PromptPublishRequested, "prompt", name, act=act, **body.model_dump())
        reply = await self._acts.do_signed(PromptPublishReplied, claim, ask, ask.note, self._auth.token_of(request))
        assert reply.version is not None
        return json_response(reply.version, 201)

    async def move_label(self, request: Request) -> Response:
        """POST /v1/releases/{label}"""
        claim, act, body = await self._acts.read_act(request, reads.EDITORS, "move labels", ReleaseSubmission)
        name = request.path_params["label"]
        ask = build_request(ReleaseMoveRequested, "label", name, act=act, **body.model_dump())
        reply = await self._acts.do_signed(ReleaseMoveReplied, claim, ask, ask.reason, self._auth.token_of(request))
        assert reply.release is not None
        return json_response(reply.release, 201)

    async def request_evaluation(self, request: Request) -> Response:
        """POST /v1/evaluations"""
        claim, act, body = await self._acts.read_act(
            request, reads.EDITORS, "have prompts evaluated", EvaluationSubmission
        )
        ask = EvaluationRequested(act=act, **body.model_dump())
        reply = await self._acts.do_signed(EvaluationReplied, claim, ask, ask.reason, self._auth.token_of(request))
        assert reply.row is not None
        return json_response(reply.row, 201)

    async def report_evaluation(self, request: Request) -> Response:
        """POST /v1/evaluations/{number}/report"""
        claim = await self._auth.require_role(request, evaluation_reads.REPORTERS, "report evaluations")
        async with self._bodies.read_body(request, claim, MAX_ACT_BYTES) as raw:
            body = parse_body(ReportSubmission, raw)
        number = request.path_params["number"]
        ask = build_request(EvaluationReported, "number", number, requester=claim, envelope=body.envelope)
        reply = await ask_registry(self._context, EvaluationReplied, claim, ask, f"evaluation-{number}")
        assert reply.row is not None
        return json_response(reply.row, 201)
