"""Approvals over HTTP: every role of a tenant reads them; approvers and operators decide.

In: requests of people and programs. Out: the approvals, or problem details. Each look at the arguments of calls is
logged.
"""

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.approvals import (
    ApprovalDocument,
    ApprovalListQuery,
    ApprovalPage,
    ApprovalQuery,
    read_question,
)
from bulkhead.gateway_api.query import APPROVERS
from bulkhead.runtime.context import Context
from bulkhead.text.amounts import format_count
from bulkhead_contracts.approval import DecideRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response, parse_body
from bulkhead_services.gateway.http.schemas import DecisionSubmission
from bulkhead_services.gateway.problems import not_found
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex, ApprovalRow

MAX_BODY_BYTES = 16 * 1024
MAX_LISTED = 200
APPROVAL_ID = re.compile(r"[0-9a-f]{32}")


class ApprovalRoutes:
    """The routes under /v1/approvals."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        index: ApprovalIndex,
        decisions: Decisions,
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._index, self._decisions = index, decisions

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(ApprovalListQuery, self._auth, self.list_approvals),
            query_route(ApprovalQuery, self._auth, self.show_approval),
            Route("/v1/approvals/{approval_id}", self.submit_decision, methods=["POST"]),
        ]

    async def list_approvals(self, claim: RequesterClaim, query: ApprovalListQuery) -> ApprovalPage:
        """Approvals in a state, the newest first."""
        state, task = query.state, query.task
        now_unix_ms = self._context.clock()
        rows = [row for row in await self._index.list_rows(claim.tenant) if not task or row.task == task]
        await self._decisions.mark_ended_tasks(
            claim.tenant, [row for row in rows if row.state_at(now_unix_ms) == "waiting"][:MAX_LISTED]
        )
        rows = [row for row in rows if state in ("all", row.state_at(now_unix_ms))]
        documents = tuple(_approval_document(row, now_unix_ms) for row in rows[:MAX_LISTED])
        if documents:
            log_content_read(claim, f"arguments of {format_count(len(documents), 'approval')}", task)
        return ApprovalPage(approvals=documents, more=len(rows) - len(documents))

    async def show_approval(self, claim: RequesterClaim, query: ApprovalQuery) -> ApprovalDocument:
        """One approval."""
        name = query.approval_id
        row = await self._index.find_row(claim.tenant, name)
        if row is None:
            raise not_found("approval", name, "GET /v1/approvals lists those that wait")
        await self._decisions.mark_ended_tasks(claim.tenant, (row,))
        log_content_read(claim, f"arguments of approval {name}", row.task)
        return _approval_document(row, self._context.clock())

    async def submit_decision(self, request: Request) -> Response:
        """POST /v1/approvals/{approval_id}"""
        claim = await self._auth.require_role(request, APPROVERS, "decide about calls")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(DecisionSubmission, raw)
        name = request.path_params["approval_id"]
        if not APPROVAL_ID.fullmatch(name):
            raise not_found("approval", name, "GET /v1/approvals lists those that wait")
        decision = DecideRequested(approval_id=name, **body.model_dump())
        row = await self._decisions.send_decision(claim, name, decision, self._auth.token_of(request))
        row = await self._decisions.wait_until_applied(claim, row, decision)
        return json_response(_approval_document(row, self._context.clock()), 200 if row.ended is not None else 202)


def _approval_document(row: ApprovalRow, now_unix_ms: int) -> ApprovalDocument:
    """A row as people see it."""
    return ApprovalDocument(
        approval_id=row.request.approval_id,
        task_id=row.task,
        state=row.state_at(now_unix_ms),
        request=row.request,
        question=read_question(row.request.tool, row.request.arguments_json),
        end=row.ended,
    )
