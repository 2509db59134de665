"""Limits, top-ups and spending over HTTP: everybody of a tenant reads limits, its operators change them and top up
tasks; operators and auditors read spending. Budget judges, stores, applies and sums.

In: requests of people and programs. Out: the tenant's limits, its spending, or problem details. A task that was halted
at its ceiling and is topped up resumes where it stopped.
"""

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import (
    Limit,
    LimitsReplied,
    LimitsRequested,
    SpendReplied,
    SpendRequested,
    TopUpReplied,
    TopUpRequested,
)
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.operator_schemas import (
    KINDS,
    SINCE,
    LimitPage,
    LimitSubmission,
    SpendPage,
    TopUpReceipt,
    TopUpSubmission,
)
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import existing_task, flag_of, json_response, number_of, size_of
from bulkhead_services.gateway.http.routes.budget_requests import MAY_SEE_ALL, BudgetFailureTexts, BudgetRequests
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.problems import already_ended, invalid_query
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

BOOK = "limits"
"""The task token in the subject of a request that concerns no task."""
AFTERWARDS_MS = 3_600_000
"""A top-up is kept this long after the deadline: clocks differ, and the end comes a moment late."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_LIMITS = BudgetFailureTexts("keeps limits and accounts", "a change is made once", "The limit was not changed")
_SPENDING = _LIMITS._replace(title="Spending cannot be shown")
_TOP_UPS = BudgetFailureTexts("keeps limits and accounts", "it counts once", "The task was not topped up")


class SpendingRoutes(BudgetRequests):
    """The routes under /v1/limits, /v1/spend and /v1/tasks/{task_id}/topup."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        door: SubmissionChecks,
        feeds: InboxFeeds,
    ) -> None:
        super().__init__(context, auth, bodies)
        self._door, self._feeds = door, feeds

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/limits", self.show_limits, methods=["GET"]),
            Route("/v1/limits", self.change_limit, methods=["PUT"]),
            Route("/v1/spend", self.show_spending, methods=["GET"]),
            Route("/v1/tasks/{task_id}/topup", self.top_up, methods=["POST"]),
        ]

    async def show_limits(self, request: Request) -> Response:
        """GET /v1/limits"""
        claim = await self._auth.require_role(request, task_view.MAY_READ, "read limits", "submitter")
        ask = LimitsRequested(requester=claim, history=flag_of(request, "history"))
        return await self._request_limits(claim, ask, f"read/{self._context.clock()}")

    async def change_limit(self, request: Request) -> Response:
        """PUT /v1/limits"""
        claim, key, body = await self._read_change(request, LimitSubmission, "change limits")
        limit = Limit(**body.limit.model_dump())
        ask = LimitsRequested(requester=claim, target=body.target, limit=limit, expect_revision=body.expect_revision)
        return await self._request_limits(claim, ask, f"change/{key}")

    async def _request_limits(self, claim: RequesterClaim, ask: LimitsRequested, about: str) -> Response:
        reply = await self._ask_budget(LimitsReplied, claim, ask, _LIMITS, task=BOOK, index=f"{claim.person}/{about}")
        same = {name: getattr(reply, name) for name in ("revision", "limits", "top_ups", "alerts", "history")}
        return json_response(LimitPage(**same, policy=self._door.policy(claim.tenant)))

    async def show_spending(self, request: Request) -> Response:
        """GET /v1/spend"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see what is spent", "operator")
        kind_name, since = request.query_params.get("by", "agent"), request.query_params.get("since", "24h")
        by = next((kind for kind in KINDS if kind == kind_name), None)
        if by is None:
            raise invalid_query("by", kind_name, f"send one of {', '.join(KINDS)}")
        seconds = int(since[:-1]) * SECONDS[since[-1]] if re.fullmatch(SINCE, since) else 0
        if not 1 <= seconds <= bounds.MAX_SPEND_S:
            raise invalid_query("since", since, "send a time like 90s, 20m, 1h or 7d, at most 31d")
        slices = number_of(request, "slices")
        if slices > bounds.MAX_SPEND_SLICES:
            raise invalid_query("slices", str(slices), f"send a number up to {bounds.MAX_SPEND_SLICES}")
        ask = SpendRequested(
            requester=claim, by=by, since_s=seconds, top=size_of(request), slices=slices, tasks=_tasks_of(request)
        )
        index, timeout_ms = f"{claim.person}/{by}/{since}/{self._context.clock()}", bounds.SPEND_TIMEOUT_MS
        reply = await self._ask_budget(
            SpendReplied, claim, ask, _SPENDING, task=BOOK, index=index, timeout_ms=timeout_ms
        )
        return json_response(SpendPage(**{name: getattr(reply, name) for name in SpendPage.model_fields}))

    async def top_up(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/topup"""
        claim, key, body = await self._read_change(request, TopUpSubmission, "top up tasks")
        feed = await existing_task(request, self._feeds, claim)
        if feed.has_ended:
            raise already_ended(
                feed.view.status, "submit it again with a higher limit, or fork it to keep the finished steps"
            )
        add, until = Limit(**body.add.model_dump()), _latest_end(feed, self._context.clock())
        ask = TopUpRequested(requester=claim, task=feed.task, add=add, until_unix_ms=until, reason=body.reason)
        index = f"topup/{claim.person}/{feed.task}/{key}"
        reply = await self._ask_budget(TopUpReplied, claim, ask, _TOP_UPS, task=feed.task, index=index)
        task, url, same = feed.task, f"/v1/tasks/{feed.task}", reply.model_dump(include={"revision", "resumed"})
        return json_response(TopUpReceipt(task_id=task, status_url=url, added=reply.added, **same))


def _tasks_of(request: Request) -> tuple[str, ...]:
    """The query's `tasks`; empty for all. Raises Problem 422."""
    text = request.query_params.get("tasks", "")
    named = tuple(dict.fromkeys(text.split(","))) if text else ()
    if len(named) > bounds.MAX_SPEND_ROWS:
        raise invalid_query("tasks", f"{len(named)} tasks", f"name at most {bounds.MAX_SPEND_ROWS} tasks at once")
    try:
        return tuple(subjects.check_token(task) for task in named)
    except subjects.SubjectError as error:
        hint = "send ids of tasks with a comma between two; they are made of A-Z a-z 0-9 _ - only"
        raise invalid_query("tasks", text, hint) from error


def _latest_end(feed: InboxFeed, now_unix_ms: int) -> int:
    """When the task has ended at the latest; one that waits for a place has its whole time before it."""
    request = feed.view.request
    waits_ms = request.limits.approval_wait_ms if request is not None else 0
    deadline = feed.view.deadline_unix_ms or now_unix_ms + bounds.MAX_TASK_DEADLINE_MS
    return deadline + waits_ms + AFTERWARDS_MS
