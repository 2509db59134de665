"""Workflows over HTTP: versions are read, drafted, reviewed, published; a published one is run as a task. And events
from outside, which begin such runs.

In: requests of people and programs. Out: the registry's reply, a task's receipt, or problem details.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api import workflows as reads
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.runtime.context import Context
from bulkhead.workflows.compose import ComposeError
from bulkhead_contracts import bounds
from bulkhead_contracts.outside_event import EventPublished
from bulkhead_contracts.task import RequesterClaim, TaskRequested
from bulkhead_contracts.workflow import (
    WorkflowActReplied,
    WorkflowActRequested,
    WorkflowRow,
    WorkflowsReplied,
    WorkflowsRequested,
)
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.prompt_registry import MAX_ACT_BYTES, RegistryActs, ask_registry, build_request
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import idempotency_key, json_response, parse_body
from bulkhead_services.gateway.http.schemas import (
    EventReceipt,
    EventSubmission,
    RunSubmission,
    WorkflowActSubmission,
    WorkflowSubmission,
)
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.outside_events import OutsideEvents
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.schedules import LapsedAuthority, build_scheduled_request, find_authority
from bulkhead_services.gateway.workflow_runs import build_request as build_run

StoreTask = Callable[[Request, RequesterClaim, str, TaskRequested], Awaitable[Response]]


class WorkflowRoutes:
    """The routes under /v1/workflows. store_task: stores the request of a task under a key, and answers with its
    receipt. task_id: of the task that a person asks for under a key."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        door: SubmissionChecks,
        store_task: StoreTask,
        task_id: Callable[[RequesterClaim, str], str],
        outside: OutsideEvents,
    ) -> None:
        self._context, self._auth, self._bodies, self._door = context, auth, bodies, door
        self._task_id = task_id
        self._acts, self._store_task = RegistryActs(context, auth, bodies), store_task
        self._outside = outside

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(reads.WorkflowListQuery, self._auth, self.list_workflows),
            query_route(reads.WorkflowQuery, self._auth, self.show_workflow),
            Route("/v1/workflows/{workflow}", self.draft_version, methods=["POST"]),
            Route("/v1/workflows/{workflow}/versions/{number}", self.move_version, methods=["POST"]),
            Route("/v1/workflows/{workflow}/runs", self.run_version, methods=["POST"]),
            Route("/v1/events", self.publish_event, methods=["POST"]),
        ]

    async def list_workflows(self, claim: RequesterClaim, query: reads.WorkflowListQuery) -> reads.WorkflowPage:
        """A page of workflows."""
        ask = WorkflowsRequested(requester=claim, after=query.after)
        reply = await ask_registry(self._context, WorkflowsReplied, claim, ask)
        return reads.WorkflowPage(workflows=reply.rows, next=reply.rows[-1].workflow if reply.more else None)

    async def show_workflow(self, claim: RequesterClaim, query: reads.WorkflowQuery) -> reads.WorkflowDocument:
        """One version."""
        reply = await self._ask_version(claim, query.workflow, query.version)
        assert reply.version is not None
        row = next(row for row in reply.rows if row.number == reply.version.number)
        obstacle = await self._find_obstacle(claim, row) if row.schedule or row.trigger else ""
        return reads.WorkflowDocument(
            row=row,
            version=reply.version,
            versions=reply.rows,
            nested=reply.nested,
            schedule_obstacle=obstacle,
            release=reply.release,
            watch=reply.watch,
        )

    async def draft_version(self, request: Request) -> Response:
        """POST /v1/workflows/{workflow}"""
        claim, act, body = await self._acts.read_act(request, reads.ACTORS, "draft workflows", WorkflowSubmission)
        fields = {"action": "draft", "content": body.content, "reason": body.note, "source_task": body.source_task}
        return await self._do_act(request, claim, act, **fields)

    async def move_version(self, request: Request) -> Response:
        """POST /v1/workflows/{workflow}/versions/{number}"""
        claim, act, body = await self._acts.read_act(request, reads.ACTORS, "change workflows", WorkflowActSubmission)
        number = request.path_params["number"]
        fields = {name: getattr(body, name) for name in type(body).model_fields}
        return await self._do_act(request, claim, act, number=int(number) if number.isdecimal() else -1, **fields)

    async def run_version(self, request: Request) -> Response:
        """POST /v1/workflows/{workflow}/runs"""
        claim = await self._auth.require_role(request, SUBMITTERS, "run workflows")
        key = idempotency_key(request, required=True)
        await self._door.check_submission(claim)
        async with self._bodies.read_body(request, claim, MAX_ACT_BYTES) as raw:
            body = parse_body(RunSubmission, raw)
        name = request.path_params["workflow"]
        # Of a canary the task's own id decides: the same request gets the same version.
        run = "" if body.version else self._task_id(claim, key)
        reply = await self._ask_version(claim, name, body.version, runnable=True, run=run)
        assert reply.version is not None
        try:
            task = build_run(
                reply.version,
                reply.nested,
                body.parameters,
                claim,
                # Of what was asked: the same key runs the same version again, also when a newer one is published.
                payload_sha256=hashlib.sha256(f"{name}\n{body.model_dump_json()}".encode()).hexdigest(),
                limits=body.limits,
                conversation=body.conversation,
                chosen_by=reply.chosen_by,
                written_by=body.written_by,
            )
        except ComposeError as error:
            hint = f"GET /v1/workflows/{name} tells the parameters of {reply.version.ref}"
            raise Problem(422, "bad_parameters", "The workflow cannot run with these", str(error), hint) from error
        return await self._store_task(request, claim, key, task)

    async def publish_event(self, request: Request) -> Response:
        """POST /v1/events"""
        claim = await self._auth.require_role(request, SUBMITTERS, "publish events")
        if claim.agent:
            detail, hint = "an agent's key may not publish events", "have a program that is no agent publish it"
            raise Problem(403, "forbidden", "This key cannot do this", detail, hint)
        await self._door.check_submission(claim)
        async with self._bodies.read_body(request, claim, MAX_ACT_BYTES) as raw:
            body = parse_body(EventSubmission, raw)
        body_json = json.dumps(body.body, separators=(",", ":"), ensure_ascii=False)
        if len(body_json) > bounds.MAX_EVENT_BODY_CHARS:
            detail = f"the body has {len(body_json):,} characters, of {bounds.MAX_EVENT_BODY_CHARS:,}"
            hint = "send what a run needs, and where the rest can be read"
            raise Problem(422, "event_too_large", "The event is too large", detail, hint)
        event = EventPublished(name=body.name, id=body.id, key=body.key, body_json=body_json, requester=claim)
        token, repeated = await self._outside.publish_event(claim, event)
        return json_response(EventReceipt(event=token, repeated=repeated), 202)

    async def _ask_version(
        self, claim: RequesterClaim, name: str, number: int, *, runnable: bool = False, run: str = ""
    ) -> WorkflowsReplied:
        fields = {"requester": claim, "number": number, "runnable": runnable, "run": run}
        ask = build_request(WorkflowsRequested, "workflow", name, **fields)
        return await ask_registry(self._context, WorkflowsReplied, claim, ask)

    async def _find_obstacle(self, claim: RequesterClaim, row: WorkflowRow) -> str:
        """Reason for which no run of a version's schedule or trigger begins now; "" when one could."""
        try:
            reply = await self._ask_version(claim, row.workflow, row.number, runnable=True)
            assert reply.version is not None
            keys = self._auth.keys_of(claim.tenant)
            if row.schedule is not None:
                build_scheduled_request(claim.tenant, row, reply.version, reply.nested, keys, row.workflow)
            find_authority(claim.tenant, row, keys)
        except (Problem, ComposeError, LapsedAuthority) as obstacle:
            return str(obstacle)
        return ""

    async def _do_act(self, request: Request, claim: RequesterClaim, act: str, **fields: object) -> Response:
        ask = build_request(WorkflowActRequested, "workflow", request.path_params["workflow"], act=act, **fields)
        token = self._auth.token_of(request)
        reply = await self._acts.do_signed(WorkflowActReplied, claim, ask, ask.reason, token, kind=ask.signed_kind)
        assert reply.row is not None
        return json_response(reply.row, 201)
