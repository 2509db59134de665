"""The HTTP application, and the routes under /v1/tasks: roles, bounds and idempotency.

In: requests of people and programs. Out: JSON, problem details, event streams. openapi.py describes the API.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

from sse_starlette import ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bulkhead.bus.port import BusError
from bulkhead.gateway_api.query import EVERY_ROLE, SUBMITTERS
from bulkhead.gateway_api.tasks import TaskDocument, TaskQuery
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.component import Pool
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.task import ForkOf, RequesterClaim, TaskLimits, TaskRequested
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.authority import obtain_voucher
from bulkhead_services.gateway.chat_sessions.turns import SessionTurns
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.document_intake import DocumentIntake
from bulkhead_services.gateway.http import task_document
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read, may_read_history
from bulkhead_services.gateway.http.openapi import encode_openapi
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies, StreamCaps
from bulkhead_services.gateway.http.request_values import (
    existing_task,
    idempotency_key,
    json_response,
    parse_body,
    position_of,
)
from bulkhead_services.gateway.http.routes.approvals import ApprovalRoutes
from bulkhead_services.gateway.http.routes.citations import CitationRoutes
from bulkhead_services.gateway.http.routes.console_links import ConsoleLinkRoutes
from bulkhead_services.gateway.http.routes.documents import DocumentRoutes
from bulkhead_services.gateway.http.routes.histories import HistoryRoutes
from bulkhead_services.gateway.http.routes.identities import IdentityRoutes
from bulkhead_services.gateway.http.routes.operators import OperatorRoutes
from bulkhead_services.gateway.http.routes.plans import PlanRoutes
from bulkhead_services.gateway.http.routes.push import PushConfigRoutes
from bulkhead_services.gateway.http.routes.ratings import RatingRoutes
from bulkhead_services.gateway.http.routes.registry.prompts import PromptRoutes
from bulkhead_services.gateway.http.routes.registry.workflows import WorkflowRoutes
from bulkhead_services.gateway.http.routes.task_list import RETRY_MS, SlotHoldingEventStream, TaskListRoutes
from bulkhead_services.gateway.http.routes.tools import ToolRoutes
from bulkhead_services.gateway.http.routes.writes import WriteRoutes
from bulkhead_services.gateway.http.schemas import CancelReceipt, CancelSubmission, TaskReceipt, TaskSubmission
from bulkhead_services.gateway.http.sessions.routes import SessionRoutes
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.intake import Intake
from bulkhead_services.gateway.outside_events import OutsideEvents
from bulkhead_services.gateway.problems import Problem, already_ended, unavailable
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex
from bulkhead_services.gateway.read_model.changes import ChangeWatchers
from bulkhead_services.gateway.read_model.events import StreamPosition
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.stream import watch_task
from bulkhead_services.gateway.read_model.task_index import TaskIndex
from bulkhead_services.gateway.settings import Settings

MAX_BODY_BYTES = bounds.MAX_MESSAGE_BYTES - bounds.MAX_HEADER_BYTES
MAX_CANCEL_BODY_BYTES = 16 * 1024


class GatewayHttpApp:
    """The routes and their dependencies."""

    def __init__(
        self,
        settings: Settings,
        auth: GatewayAuthenticator,
        intake: Intake,
        documents: DocumentIntake,
        feeds: InboxFeeds,
        listing: TaskIndex,
        ready: Callable[[], Awaitable[str]],
        context: Context,
        door: SubmissionChecks,
        approvals: ApprovalIndex,
        decisions: Decisions,
        changes: ChangeWatchers,
        writes: DurableWrites,
        outside: OutsideEvents,
    ) -> None:
        self._settings, self._auth, self._context, self._ready = settings, auth, context, ready
        self._intake, self._feeds, self._door = intake, feeds, door
        self._caps, self._bodies = StreamCaps(settings), GatewayRequestBodies(settings, door.spikes, context.clock)
        self.task_list = TaskListRoutes(settings, auth, feeds, listing, changes, self._caps, door.read_places, context)
        self.documents = DocumentRoutes(auth, documents, feeds, self._bodies, settings)
        self.operators = OperatorRoutes(context, auth, self._bodies, door, feeds, settings.subscribers)
        self.approvals = ApprovalRoutes(context, auth, self._bodies, approvals, decisions)
        self.plans = PlanRoutes(context, auth, self._bodies, feeds, door, decisions)
        self.writes = WriteRoutes(context, auth, self._bodies, approvals, decisions)
        self.prompts = PromptRoutes(context, auth, self._bodies)
        self.workflows = WorkflowRoutes(context, auth, self._bodies, door, self.store_task, intake.task_id, outside)
        self.console_links = ConsoleLinkRoutes(auth, self._bodies)
        self.citations = CitationRoutes(context, auth, feeds)
        self.histories = HistoryRoutes(context, auth, feeds)
        quotas = TenantQuotas(settings.tenants_file)
        self.push = PushConfigRoutes(context, auth, self._bodies, feeds, quotas, writes)
        self.tools = ToolRoutes(context, auth, self._bodies)
        self.ratings = RatingRoutes(context, auth, self._bodies, feeds, writes, self.task_list, self.citations)
        turns = SessionTurns(context, feeds, writes)
        self.sessions = SessionRoutes(context, auth, self._bodies, feeds, turns, intake, door, listing)
        self.identities = IdentityRoutes(auth, settings.publishers, settings.subscribers, quotas)
        self.started = False

    def stream_pool(self) -> Pool:
        """Event streams: how many there may be, and how many are open."""
        return self._caps.stream_pool()

    def build_app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/tasks", self.submit_task, methods=["POST"]),
            *self.task_list.routes(),
            query_route(TaskQuery, self._auth, self.show_task),
            Route("/v1/tasks/{task_id}/events", self.stream_events, methods=["GET"]),
            Route("/v1/tasks/{task_id}/cancel", self.cancel_task, methods=["POST"]),
            *self.plans.routes(),
            *self.citations.routes(),
            *self.histories.routes(),
            *self.push.routes(),
            *self.ratings.routes(),
            *self.sessions.routes(),
            *self.documents.routes(),
            *self.approvals.routes(),
            *self.writes.routes(),
            *self.prompts.routes(),
            *self.workflows.routes(),
            *self.console_links.routes(),
            *self.operators.routes(),
            *self.tools.routes(),
            *self.identities.routes(),
            Route("/openapi.json", self.serve_openapi, methods=["GET"]),
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/startupz", self.startupz, methods=["GET"]),
        ]
        kinds = (Problem, HTTPException, BusError, ClientDisconnect)
        return Starlette(routes=routes, exception_handlers=dict.fromkeys(kinds, _failure_response))

    async def submit_task(self, request: Request) -> Response:
        """POST /v1/tasks"""
        claim = await self._auth.require_role(request, SUBMITTERS, "submit tasks")
        key = idempotency_key(request, required=True)
        await self._door.check_submission(claim)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(TaskSubmission, raw)
        plan, limits = body.plan.to_plan() if body.plan is not None else None, TaskLimits(**body.limits.model_dump())
        self._door.check_plan(plan, limits)
        planned = [tool for step in body.plan.steps for tool in step.tools] if body.plan and not body.fork else []
        self._door.check_tools(claim.tenant, (*body.tools, *planned))
        # Left out when empty: a repeat of what was submitted before there were these is still a repeat.
        absent = {name for name in ("feature", "workflow", "delivery", "route") if not getattr(body, name)}
        canonical = body.model_dump_json(exclude=absent).encode()
        task_id = self._intake.task_id(claim, key)
        if body.fork is not None and (await self._feeds.fresh_feed(claim.tenant, task_id)).view.status == "unknown":
            await existing_task(body.fork.task, self._feeds, claim)  # Not for a repeat: the earlier task may be purged.
        task = TaskRequested(
            objective=body.objective,
            limits=limits,
            **(body.pick_options() | ({"written_by": "model"} if claim.agent else {})),
            plan=plan,
            requester=claim,
            fork=ForkOf(**body.fork.model_dump()) if body.fork is not None else None,
            payload_sha256=hashlib.sha256(canonical).hexdigest(),
        )
        return await self.store_task(request, claim, key, task)

    async def store_task(self, request: Request, claim: RequesterClaim, key: str, task: TaskRequested) -> Response:
        """Store the request of a task, and answer with its receipt. Raises Problem."""
        task_id = self._intake.task_id(claim, key)
        voucher = await obtain_voucher(self._context, claim, self._auth.token_of(request), task_id)
        task = task.model_copy(update={"voucher": voucher})
        with self._door.pending_request(claim.tenant, task_id) as mark_stored:
            task_id, repeated = await self._intake.submit_request(task, key)
            mark_stored(not repeated)
        url = f"/v1/tasks/{task_id}"
        receipt = TaskReceipt(task_id=task_id, status_url=url, events_url=url + "/events")
        headers = {"Location": url} | ({"Idempotency-Replayed": "true"} if repeated else {})
        return json_response(receipt, 202, headers)

    async def show_task(self, claim: RequesterClaim, query: TaskQuery) -> TaskDocument:
        """One task."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        place = await self._door.queue_document(feed)
        doubtful = await task_document.find_uncertain_writes(self._context, claim, feed)
        spending = await task_document.find_spending(self._context, claim, feed)
        policies = self._settings.publishers
        return await task_document.describe_task(
            feed, self._context.blobs, policies, place, doubtful, spending, reader=claim
        )

    async def stream_events(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/events"""
        claim = await self._auth.require_role(request, EVERY_ROLE, "watch tasks")
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        position = position_of(request)
        if feed.has_ended and position.sequence and not feed.facts_after(position):
            return Response(status_code=204)  # Tells an EventSource not to reconnect: nothing can follow.
        if self._feeds.is_closing:
            raise unavailable("this replica is closing", "reconnect in a moment; another replica may answer")
        return SlotHoldingEventStream(
            self._server_sent_events(feed, position, claim),
            self._caps.acquire_stream(claim),
            self._settings.heartbeat_s,
        )

    async def _server_sent_events(
        self, feed: InboxFeed, position: StreamPosition, claim: RequesterClaim
    ) -> AsyncIterator[ServerSentEvent]:
        is_logged = False

        def may_read_words() -> bool:
            nonlocal is_logged
            may_read = may_read_history(claim, feed)
            if may_read and not is_logged:
                log_content_read(claim, "calls", feed.task)
                is_logged = True
            return may_read

        yield ServerSentEvent(comment="bulkhead", retry=RETRY_MS, sep="\n")
        async for event in watch_task(self._feeds, feed, self._context.blobs, position, may_read_words):
            yield ServerSentEvent(event.data, event=event.name, id=event.id, sep="\n")

    async def cancel_task(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/cancel"""
        claim = await self._auth.require_role(request, SUBMITTERS, "cancel tasks")
        async with self._bodies.read_body(request, claim, MAX_CANCEL_BODY_BYTES) as raw:
            body = parse_body(CancelSubmission, raw) if raw.strip() else CancelSubmission()
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        if feed.has_ended:
            raise already_ended(feed.view.status, f"read its result at /v1/tasks/{feed.task}")
        await self._intake.request_cancel(claim, feed, body.reason)
        url = f"/v1/tasks/{feed.task}"
        return json_response(CancelReceipt(task_id=feed.task, status_url=url), 202, {"Location": url})

    def serve_openapi(self, _: Request) -> Response:
        """GET /openapi.json: outside the loop, which the first one would hold up."""
        return json_response(encode_openapi())

    async def livez(self, _: Request) -> Response:
        """GET /livez: whether the process runs."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: whether requests can be taken now."""
        reason = "draining" if self._feeds.is_closing else await self._ready()
        return JSONResponse(
            {"status": "unready", "reason": reason} if reason else {"status": "ok"}, 503 if reason else 200
        )

    async def startupz(self, _: Request) -> Response:
        """GET /startupz: whether the start has finished."""
        return JSONResponse({"status": "ok" if self.started else "starting"}, 200 if self.started else 503)


async def _failure_response(_: Request, error: Exception) -> Response:
    """The answer to an expected failure."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    if isinstance(error, HTTPException):
        hint = "/openapi.json lists the paths and their methods"
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        error = Problem(error.status_code, code, error.detail, error.detail, hint, headers=error.headers)
    elif not isinstance(error, Problem):
        error = unavailable(f"the message broker does not answer: {error}")
    return error.to_response()
