"""Approvals over HTTP: every role of a tenant reads them; approvers and operators decide.

In: requests of people and programs. Out: the approvals, or problem details. Each look at the arguments of calls is
logged.
"""

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.amounts import counted
from bulkhead.runtime.context import Context
from bulkhead_contracts.approval import DecideRequested
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.http.approval_schemas import STATES, ApprovalDocument, ApprovalPage, DecisionSubmission
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.content_access import on_record
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, parsed
from bulkhead_services.gateway.problems import invalid_query, not_found
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex

MAX_BODY_BYTES = 16 * 1024
MAX_LISTED = 200
APPROVAL_ID = re.compile(r"[0-9a-f]{32}")


class Approvals:
    """The routes under /v1/approvals."""

    def __init__(
        self, context: Context, auth: Authenticator, bodies: Bodies, index: ApprovalIndex, decisions: Decisions
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._index, self._decisions = index, decisions

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/approvals", self.list, methods=["GET"]),
            Route("/v1/approvals/{approval_id}", self.show, methods=["GET"]),
            Route("/v1/approvals/{approval_id}", self.decide, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """GET /v1/approvals"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read approvals", "approver")
        state, task = request.query_params.get("state", "waiting"), request.query_params.get("task", "")
        if state not in STATES:
            raise invalid_query("state", state, f"use one of: {', '.join(STATES)}")
        now = self._context.clock()
        found = [row for row in await self._index.rows(claim.tenant) if not task or row.task == task]
        await self._decisions.look(claim.tenant, [row for row in found if row.state(now) == "waiting"][:MAX_LISTED])
        found = [row for row in found if state in ("all", row.state(now))]
        shown = tuple(ApprovalDocument.of(row, now) for row in found[:MAX_LISTED])
        if shown:
            on_record(claim, f"arguments of {counted(len(shown), 'approval')}", task)
        return answered(ApprovalPage(approvals=shown, more=len(found) - len(shown)))

    async def show(self, request: Request) -> Response:
        """GET /v1/approvals/{approval_id}"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read approvals", "approver")
        name = request.path_params["approval_id"]
        row = await self._index.find(claim.tenant, name)
        if row is None:
            raise not_found("approval", name, "GET /v1/approvals lists those that wait")
        await self._decisions.look(claim.tenant, (row,))
        on_record(claim, f"arguments of approval {name}", row.task)
        return answered(ApprovalDocument.of(row, self._context.clock()))

    async def decide(self, request: Request) -> Response:
        """POST /v1/approvals/{approval_id}"""
        claim = await self._auth.allowed(request, task_view.MAY_APPROVE, "decide about calls", "approver or operator")
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(DecisionSubmission, raw)
        name = request.path_params["approval_id"]
        if not APPROVAL_ID.fullmatch(name):
            raise not_found("approval", name, "GET /v1/approvals lists those that wait")
        word = DecideRequested(approval_id=name, **body.model_dump())
        row = await self._decisions.decide(claim, name, word, self._auth.token_of(request))
        row = await self._decisions.seen(claim, row)
        return answered(ApprovalDocument.of(row, self._context.clock()), 200 if row.ended is not None else 202)
