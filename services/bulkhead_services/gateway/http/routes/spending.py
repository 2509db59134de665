"""Limits and spending over HTTP: everybody of a tenant reads limits, its operators change them; operators and auditors
read spending. Budget judges, stores, applies and sums.

In: requests of people and programs. Out: the tenant's limits, its spending, or problem details.
"""

import re
import secrets
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Limit, LimitsReplied, LimitsRequested, SpendReplied, SpendRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.operator_schemas import KINDS, SINCE, LimitPage, LimitSubmission, SpendPage
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, idempotency_key, parsed, size_of
from bulkhead_services.gateway.http.submission_checks import Door
from bulkhead_services.gateway.problems import Problem, unavailable
from bulkhead_services.gateway.read_model import task_view

MAY_CHANGE = frozenset({"operator"})
MAX_BODY_BYTES = 16 * 1024
BOOK = "limits"
"""The task token in the subject of a request that concerns no task."""
STATUS = {
    "forbidden": 403,
    "changed_meanwhile": 409,
    "busy": 409,
    "too_many_limits": 422,
    "too_much": 422,
    "idempotency_reused": 422,
}
MAY_SEE_SPENDING = frozenset({"operator", "auditor"})
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

R = TypeVar("R", LimitsReplied, SpendReplied)


class Spending:
    """The routes under /v1/limits and /v1/spend."""

    def __init__(self, context: Context, auth: Authenticator, bodies: Bodies, door: Door) -> None:
        self._context = context
        self._door = door
        self._auth = auth
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/limits", self.limits, methods=["GET"]),
            Route("/v1/limits", self.change, methods=["PUT"]),
            Route("/v1/spend", self.spent, methods=["GET"]),
        ]

    async def limits(self, request: Request) -> Response:
        """GET /v1/limits"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read limits", "submitter")
        return answered(await self._limits(claim, LimitsRequested(requester=claim)))

    async def change(self, request: Request) -> Response:
        """PUT /v1/limits"""
        claim = await self._auth.allowed(request, MAY_CHANGE, "change limits", "operator")
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(LimitSubmission, raw)
        limit = Limit(**body.limit.model_dump())
        return answered(
            await self._limits(
                claim,
                LimitsRequested(requester=claim, target=body.target, limit=limit, expect_revision=body.expect_revision),
                key,
            )
        )

    async def spent(self, request: Request) -> Response:
        """GET /v1/spend"""
        claim = await self._auth.allowed(request, MAY_SEE_SPENDING, "see what is spent", "operator")
        wanted, since = request.query_params.get("by", "agent"), request.query_params.get("since", "24h")
        by = next((kind for kind in KINDS if kind == wanted), None)
        if by is None:
            raise _unfit("by", wanted, f"send one of {', '.join(KINDS)}")
        seconds = int(since[:-1]) * SECONDS[since[-1]] if re.fullmatch(SINCE, since) else 0
        if not 1 <= seconds <= bounds.MAX_SPEND_S:
            raise _unfit("since", since, "send a time like 90s, 20m, 1h or 7d, at most 31d")
        ask = SpendRequested(requester=claim, by=by, since_s=seconds, top=size_of(request))
        about = f"{by}/{since}/{self._context.clock()}"
        reply = await self._ask(claim, ask, about, bounds.SPEND_TIMEOUT_MS, SpendReplied)
        return answered(SpendPage(**{name: getattr(reply, name) for name in SpendPage.model_fields}))

    async def _limits(self, claim: RequesterClaim, ask: LimitsRequested, key: str = "") -> LimitPage:
        """The id of a change derives from its key: repeated, it is made once; with another content it is refused."""
        about = f"change/{key}" if key else f"read/{self._context.clock()}"
        reply = await self._ask(claim, ask, about, bounds.RPC_TIMEOUT_MS, LimitsReplied)
        return LimitPage(
            revision=reply.revision,
            limits=reply.limits,
            top_ups=reply.top_ups,
            alerts=reply.alerts,
            policy=self._door.policy(claim.tenant),
        )

    async def _ask(self, claim: RequesterClaim, ask: Body, about: str, timeout_ms: int, kind: type[R]) -> R:
        try:
            reply = await self._context.publisher.request(
                "budget",
                ask,
                tenant=claim.tenant,
                task=BOOK,
                index=f"{claim.person}/{about}",
                actor=claim.person,
                timeout_s=timeout_ms / 1000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(
                f"budget, which keeps limits and accounts, does not answer: {error}",
                "repeat it under the same Idempotency-Key: then a change is made once",
            ) from error
        assert isinstance(reply, kind)
        if (failure := reply.failure) is not None:
            if failure.code not in STATUS:
                raise unavailable(failure.message, failure.hint)
            title = "The limit was not changed" if kind is LimitsReplied else "Spending cannot be shown"
            raise Problem(STATUS[failure.code], failure.code, title, failure.message, failure.hint)
        return reply


def _unfit(field: str, value: str, hint: str) -> Problem:
    return Problem(422, "invalid_query", f"{field} does not fit", f"{field} is {value[:20]!r}", hint)
