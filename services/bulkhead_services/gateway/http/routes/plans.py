"""The plan of a task over HTTP: every role of a tenant reads it; approvers and operators decide about a drafted one,
and skip steps of one that runs.

In: requests of people and programs. Out: the plan, or problem details. The planner takes the first word on a plan that
the signer signed, which is bound to its digest.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import APPROVERS
from bulkhead.gateway_api.tasks import PlanDocument, PlanQuery
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import SignatureRequested
from bulkhead_contracts.plan import Plan, PlanDecided
from bulkhead_contracts.task import RequesterClaim, TaskLimits
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import existing_task, json_response, parse_body
from bulkhead_services.gateway.http.schemas import PlanDecisionReceipt, PlanDecisionSubmission
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

MAX_BODY_BYTES = bounds.MAX_MESSAGE_BYTES - bounds.MAX_HEADER_BYTES


class PlanRoutes:
    """The routes under /v1/tasks/{task_id}/plan."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        feeds: InboxFeeds,
        checks: SubmissionChecks,
        decisions: Decisions,
    ) -> None:
        self._context, self._auth, self._bodies, self._feeds, self._checks = context, auth, bodies, feeds, checks
        self._decisions = decisions

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(PlanQuery, self._auth, self.show_plan),
            Route("/v1/tasks/{task_id}/plan", self.decide_plan, methods=["POST"]),
        ]

    async def show_plan(self, claim: RequesterClaim, query: PlanQuery) -> PlanDocument:
        """The plan that waits for a person, or else the one that runs or ran."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        view = feed.view
        if view.proposed is None:
            return PlanDocument(
                task_id=feed.task,
                state="adopted" if view.plan_version else "none",
                sha256=view.plan_sha256,
                plan=_adopted(feed),
            )
        plan = view.proposed.plan
        if view.delivery != "draft" and claim.role not in APPROVERS.names:
            # A model's words, which no checker has read; who is to approve them has to read them.
            unworded = {"title": "", "instruction": "", "acceptance": ""}
            steps = tuple(step.model_copy(update=unworded) for step in plan.steps)
            plan = plan.model_copy(update={"steps": steps, "notes": ()})
        return PlanDocument(
            task_id=feed.task,
            state="in_review",
            sha256=view.proposed.sha256,
            until_unix_ms=view.proposed.until_unix_ms,
            plan=plan,
        )

    async def decide_plan(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/plan"""
        claim = await self._auth.require_role(request, APPROVERS, "decide about plans")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(PlanDecisionSubmission, raw)
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        proposed = feed.view.proposed
        if body.skip:
            _check_skip(feed, body)
        elif proposed is None or proposed.sha256 != body.sha256:
            detail = "no plan of the task waits" if proposed is None else "another plan of the task waits by now"
            hint = f"read what stands now: GET /v1/tasks/{feed.task}/plan"
            raise Problem(409, "not_in_review", "This plan does not wait for a decision", detail, hint)
        plan = body.plan.to_plan() if body.plan is not None else None
        self._checks.check_plan(plan, feed.view.request.limits if feed.view.request else TaskLimits())
        decided = PlanDecided(
            sha256=body.sha256,
            decision=body.decision,
            reason=body.reason,
            plan=plan,
            redraft=body.redraft,
            skip=body.skip,
            person=claim.person,
            role=claim.role,
        )
        now_unix_ms = self._context.clock()
        ask = SignatureRequested(
            requester=claim,
            approval_id=body.sha256,
            arguments_sha256=decided.signed_sha256,
            decision="granted" if body.decision == "approve" else "denied",
            requested_unix_ms=now_unix_ms,
            credential=self._auth.token_of(request),
        )
        index = f"plan/{body.sha256}/{claim.person}/{decided.signed_sha256}/{now_unix_ms}"
        await self._decisions.send_signed(
            ask, feed.task, index, lambda token: decided.model_copy(update={"token": token}), to="planner"
        )
        url = f"/v1/tasks/{feed.task}"
        receipt = PlanDecisionReceipt(task_id=feed.task, status_url=url, decision=body.decision)
        return json_response(receipt, 202, {"Location": url})


def _check_skip(feed: InboxFeed, body: PlanDecisionSubmission) -> None:
    """Raises Problem (409) where the step of the plan that was read cannot be skipped."""
    view, title = feed.view, "This step cannot be skipped"
    step, hint = view.steps.get(body.skip), f"read what stands now: GET /v1/tasks/{feed.task}/plan"
    if view.ended is not None:
        detail = f"task {feed.task} has ended"
    elif view.plan_sha256 != body.sha256:
        detail = "another plan of the task runs by now" if view.plan_sha256 else "no step of its plan may be skipped"
    elif body.skip not in view.skippable:
        detail = f"the plan does not let anybody skip step {body.skip}"
        hint = f"steps with `skippable: true` may be skipped: {', '.join(sorted(view.skippable))}"
    elif step is not None and step.status in ("accepted", "skipped"):
        detail = f"step {body.skip} is over: {step.status}"
    else:
        return
    raise Problem(409, "not_skippable", title, detail, hint)


def _adopted(feed: InboxFeed) -> Plan | None:
    """The last plan that was adopted, with what of its words may be shown."""
    fact = next((fact for fact in reversed(feed.facts) if fact.name == "plan.adopted"), None)
    return Plan.model_validate(fact.data["plan"]) if fact is not None else None
