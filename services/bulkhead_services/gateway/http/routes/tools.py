"""Routes about the tenant's tools and the policies that decide about their calls. tool_executor knows both, and rules.

In: requests of people and programs. Out: tool_executor's replies, or problem details. A policy trial calls nothing and
changes nothing; the gateway has neither rules nor tools, and gains no right by asking.
"""

import json
import secrets
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.query import OVERSEERS
from bulkhead.gateway_api.tools import PolicyTrialDocument, ToolDocument, ToolListQuery, ToolPage, ToolQuery
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import (
    PolicyTrialReplied,
    PolicyTrialRequested,
    ToolDetailReplied,
    ToolDetailRequested,
    ToolListReplied,
    ToolListRequested,
    TrialSource,
)
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response, parse_body
from bulkhead_services.gateway.http.schemas import PolicyTrialSubmission
from bulkhead_services.gateway.problems import Problem, not_found, too_large, unavailable

TASK = "tool-policies"
"""Stands for the task in the request's subject: it is about none."""
LIST_HINT = "GET /v1/tools lists the tools of your tenant"
MAX_BODY_BYTES = 320 * 1024
STATUS = {"unknown_tool": 404, "bad_arguments": 422}
"""By a failure's code; others are 409: the tool is there, and cannot be ruled on now."""


class _ToolReply(Protocol):
    @property
    def failure(self) -> Failure | None: ...


R = TypeVar("R", bound=_ToolReply)


class ToolRoutes:
    """The routes under /v1/tools, and /v1/policy-trials."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, bodies: GatewayRequestBodies) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(ToolListQuery, self._auth, self.list_tools),
            query_route(ToolQuery, self._auth, self.show_tool),
            Route("/v1/policy-trials", self.try_policy, methods=["POST"]),
        ]

    async def list_tools(self, claim: RequesterClaim, _: ToolListQuery) -> ToolPage:
        """The tenant's tools."""
        reply = await self._ask_executor(ToolListReplied, claim, ToolListRequested())
        return ToolPage(tools=reply.tools, more=reply.more)

    async def show_tool(self, claim: RequesterClaim, query: ToolQuery) -> ToolDocument:
        """One tool. Rules are for overseers: who reads them knows how to keep below them."""
        if len(query.tool) > bounds.MAX_NAME_CHARS:
            raise not_found("tool", query.tool, LIST_HINT)
        reply = await self._ask_executor(ToolDetailReplied, claim, ToolDetailRequested(tool=query.tool))
        assert reply.tool is not None and reply.spec is not None
        if claim.role not in OVERSEERS.names:
            return ToolDocument(tool=reply.tool, spec=reply.spec, sample_json=reply.sample_json, policies=False)
        fields = {name: getattr(reply, name) for name in ToolDocument.model_fields.keys() - {"policies"}}
        return ToolDocument(policies=True, **fields)

    async def try_policy(self, request: Request) -> Response:
        """POST /v1/policy-trials"""
        claim = await self._auth.require_role(request, OVERSEERS, "try policies")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(PolicyTrialSubmission, raw)
        arguments_json = json.dumps(body.arguments, ensure_ascii=False)
        if len(arguments_json) > bounds.MAX_ARGUMENTS_BYTES:
            raise too_large("the arguments", bounds.MAX_ARGUMENTS_BYTES, "characters", "send less at once")
        trial = PolicyTrialRequested(
            tool=body.tool,
            arguments_json=arguments_json,
            sources=tuple(TrialSource(**source.model_dump()) for source in body.sources),
            person=body.person or claim.person,
            role=body.role,
            feature=body.feature,
        )
        reply = await self._ask_executor(PolicyTrialReplied, claim, trial)
        return json_response(
            PolicyTrialDocument(**{name: getattr(reply, name) for name in PolicyTrialDocument.model_fields})
        )

    async def _ask_executor(self, kind: type[R], claim: RequesterClaim, body: Body) -> R:
        """A reply of tool_executor that reports no failure. Raises Problem."""
        try:
            reply = await self._context.publisher.request(
                "tool_executor",
                body,
                tenant=claim.tenant,
                task=TASK,
                index=f"{claim.person}/{secrets.token_hex(8)}",
                actor=claim.person,
                timeout_s=bounds.TOOL_POLICY_TIMEOUT_MS / 1000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            detail = f"tool_executor, which knows tools and policies, does not answer: {error}"
            raise unavailable(detail, "ask again in a moment; `bulkhead doctor` says what is wrong") from error
        assert isinstance(reply, kind)
        if (failure := reply.failure) is not None:
            title = "This call cannot be ruled on" if isinstance(reply, PolicyTrialReplied) else "No such tool"
            status = STATUS.get(failure.code, 409)
            raise Problem(status, failure.code, title, failure.message, failure.hint or LIST_HINT)
        return reply
