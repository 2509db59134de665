"""Top-ups over HTTP: an operator raises the limits of one task. Budget judges, stores and applies them.

In: POST /v1/tasks/{task_id}/topup. Out: the sum of all its top-ups, and whether it was halted and goes on; or problem
details. The task resumes where it stopped.
"""

import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Limit, TopUpReplied, TopUpRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.operator_schemas import TopUpReceipt, TopUpSubmission
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, idempotency_key, parsed, token
from bulkhead_services.gateway.http.routes.spending import MAX_BODY_BYTES, MAY_CHANGE, STATUS
from bulkhead_services.gateway.problems import Problem, not_found, unavailable
from bulkhead_services.gateway.read_model.feeds import Feed, Feeds

AFTERWARDS_MS = 3_600_000
"""A top-up is kept this long after the deadline: clocks differ, and the end comes a moment late."""


class TopUps:
    """The route under /v1/tasks/{task_id}/topup."""

    def __init__(self, context: Context, auth: Authenticator, bodies: Bodies, feeds: Feeds) -> None:
        self._context, self._auth, self._bodies, self._feeds = context, auth, bodies, feeds

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [Route("/v1/tasks/{task_id}/topup", self.top_up, methods=["POST"])]

    async def top_up(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/topup"""
        claim = await self._auth.allowed(request, MAY_CHANGE, "top up tasks", "operator")
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(TopUpSubmission, raw)
        task = token(request, "task_id", "task")
        feed = await self._feeds.fresh(claim.tenant, task)
        if feed.view.status == "unknown":
            raise not_found("task", task, "check the id; GET /v1/tasks lists your tenant's tasks")
        if feed.ended:
            raise Problem(
                409,
                "already_ended",
                "The task has ended",
                f"the task has ended: {feed.view.status}",
                "submit it again with a higher limit, or fork it to keep the finished steps",
            )
        reply = await self._ask(claim, feed, body, key)
        url = f"/v1/tasks/{task}"
        return answered(
            TopUpReceipt(
                task_id=task, added=reply.added, revision=reply.revision, resumed=reply.resumed, status_url=url
            )
        )

    async def _ask(self, claim: RequesterClaim, feed: Feed, body: TopUpSubmission, key: str) -> TopUpReplied:
        """The id of the request derives from the key: repeated, it counts once; with another content it is refused."""
        ask = TopUpRequested(
            requester=claim,
            task=feed.task,
            add=Limit(**body.add.model_dump()),
            until_unix_ms=_until(feed, self._context.clock()),
            reason=body.reason,
        )
        try:
            reply = await self._context.publisher.request(
                "budget",
                ask,
                tenant=claim.tenant,
                task=feed.task,
                index=f"topup/{claim.person}/{feed.task}/{key}",
                actor=claim.person,
                timeout_s=bounds.RPC_TIMEOUT_MS / 1000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(
                f"budget, which keeps limits and accounts, does not answer: {error}",
                "repeat it under the same Idempotency-Key: then it counts once",
            ) from error
        assert isinstance(reply, TopUpReplied)
        if (failure := reply.failure) is not None:
            if failure.code not in (*STATUS, "adds_nothing"):
                raise unavailable(failure.message, failure.hint)
            raise Problem(
                STATUS.get(failure.code, 422), failure.code, "The task was not topped up", failure.message, failure.hint
            )
        return reply


def _until(feed: Feed, now_unix_ms: int) -> int:
    """When the task has ended at the latest; one that waits for a place has its whole time before it."""
    deadline = feed.view.deadline_unix_ms or now_unix_ms + bounds.MAX_TASK_DEADLINE_MS
    return deadline + AFTERWARDS_MS
