"""Uncertain writes over HTTP: every role of a tenant reads them; approvers and operators say what became of them.

In: requests of people and programs. Out: the writes, or problem details. The executor, which keeps the outcome of each
call, takes the first word on it.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import APPROVERS
from bulkhead.gateway_api.writes import WriteDocument, WriteListQuery, WritePage
from bulkhead.runtime.context import Context
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead.text.amounts import format_count, format_time
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import SignatureRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import WriteResolution, WriteResolveRequested
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response, parse_body
from bulkhead_services.gateway.http.schemas import ResolutionSubmission
from bulkhead_services.gateway.problems import Problem, not_found
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex, WriteRow

MAX_BODY_BYTES = 16 * 1024
MAX_LISTED = 200
APPLIED_WITHIN_S, LOOK_S = 3.0, 0.05


class WriteRoutes:
    """The routes under /v1/writes."""

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
            query_route(WriteListQuery, self._auth, self.list_writes),
            Route("/v1/writes/{write_id}", self.resolve_write, methods=["POST"]),
        ]

    async def list_writes(self, claim: RequesterClaim, query: WriteListQuery) -> WritePage:
        """Writes in a state, the newest first."""
        rows = [row for row in await self._index.list_writes(claim.tenant) if not query.task or row.task == query.task]
        rows = [row for row in rows if query.state in ("all", row.state)]
        documents = tuple(map(_write_document, rows[:MAX_LISTED]))
        if documents:
            log_content_read(claim, f"arguments of {format_count(len(documents), 'write')}", query.task)
        return WritePage(writes=documents, more=len(rows) - len(documents))

    async def resolve_write(self, request: Request) -> Response:
        """POST /v1/writes/{write_id}"""
        claim = await self._auth.require_role(request, APPROVERS, "resolve writes")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(ResolutionSubmission, raw)
        write_id = request.path_params["write_id"]
        row = await self._index.find_write(claim.tenant, write_id)
        if row is None:
            raise not_found("uncertain write", write_id, "GET /v1/writes lists them")
        if row.doubt.four_eyes and claim.person == row.doubt.asked_for:
            detail = f"{claim.person} asked for the task, and {row.doubt.tool} wants a second person (four eyes)"
            raise Problem(403, "four_eyes", "The word does not count", detail, "have another approver say it")
        word = WriteResolution(
            happened=body.happened,
            # Every role reads them.
            result=without_sensitive(body.result)[: bounds.MAX_REASON_CHARS],
            reason=without_sensitive(body.reason)[: bounds.MAX_REASON_CHARS],
            person=claim.person,
            role=claim.role,
            resolved_unix_ms=self._context.clock(),
        )
        if row.ended is None:
            await self._send_word(claim, row, word, self._auth.token_of(request))
            row = await self._wait_until_applied(claim, row)
        if row.ended is None:
            return json_response(_write_document(row), 202)
        standing = row.ended.resolution
        if (standing.happened, standing.result) != (word.happened, word.result):
            happened, when = "happened" if standing.happened else "did not happen", standing.resolved_unix_ms
            detail = f"{standing.person} said at {format_time(when)} that it {happened}: {standing.reason}"
            hint = "the first word on a write stands; a call under an idempotency key of its own is another write"
            raise Problem(409, "already_resolved", "The write is resolved", detail, hint)
        return json_response(_write_document(row))

    async def _send_word(self, claim: RequesterClaim, row: WriteRow, word: WriteResolution, credential: str) -> None:
        """Have a person's word signed, and pass it on to the executor. Raises Problem."""
        write_id, call_id = row.doubt.write_id, row.doubt.call_id
        ask = SignatureRequested(
            kind="resolution",
            requester=claim,
            approval_id=write_id,
            arguments_sha256=word.signed_sha256,
            decision="granted" if word.happened else "denied",
            requested_unix_ms=word.resolved_unix_ms,
            credential=credential,
        )
        index = f"resolve/{write_id}/{claim.person}/{word.resolved_unix_ms}"
        await self._decisions.send_signed(
            ask, row.task, index, lambda token: WriteResolveRequested(call_id=call_id, resolution=word, token=token)
        )

    async def _wait_until_applied(self, claim: RequesterClaim, row: WriteRow) -> WriteRow:
        """The row with the word that counts, if the executor tells it soon. Raises BusError."""
        until_s = asyncio.get_running_loop().time() + APPLIED_WITHIN_S
        while row.ended is None and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(LOOK_S)
            row = await self._index.find_write(claim.tenant, row.doubt.write_id) or row
        return row


def _write_document(row: WriteRow) -> WriteDocument:
    """A row as people see it."""
    resolution = row.ended.resolution if row.ended is not None else None
    return WriteDocument(
        write_id=row.doubt.write_id, task_id=row.task, state=row.state, write=row.doubt, resolution=resolution
    )
