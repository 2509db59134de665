"""Limits over HTTP: read by everybody of a tenant, changed by its operators. Budget judges, stores and applies them.

In: requests of people and programs. Out: the tenant's limits as they stand, or problem details.
"""

from typing import Annotated

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.publisher import RpcRefused
from bulkhead_contracts import limits
from bulkhead_contracts.budget import Limit, LimitsReplied, LimitsRequested, LimitTarget, TargetLimit
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract, Count
from services.gateway import core
from services.gateway.auth import Authenticator
from services.gateway.caps import Bodies
from services.gateway.parameters import answered, parsed
from services.gateway.problems import Problem, unavailable

MAY_CHANGE = frozenset({"operator"})
MAX_BODY_BYTES = 16 * 1024
BOOK = "limits"
"""Stands where a task does in the subject of a request that is about none."""
STATUS = {"forbidden": 403, "changed_meanwhile": 409, "busy": 409, "too_many_limits": 422}


class LimitInput(Limit):
    """A ceiling by unit; what is left out, or null, has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class LimitSubmission(Contract):
    """Body of PUT /v1/limits: one target and its ceilings; none at all removes what stood there.

    expect_revision: change nothing when the limits are not at this revision any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    target: LimitTarget
    limit: LimitInput = LimitInput()
    expect_revision: Count | None = None


class LimitPage(Contract):
    """A tenant's limits. `revision` counts the changes."""

    revision: Count
    limits: Annotated[tuple[TargetLimit, ...], Field(max_length=limits.MAX_LIMIT_TARGETS)]


class Spending:
    """The routes under /v1/limits."""

    def __init__(self, context: Context, auth: Authenticator, bodies: Bodies) -> None:
        self._context = context
        self._auth = auth
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """To be hung into the application."""
        return [
            Route("/v1/limits", self.limits, methods=["GET"]),
            Route("/v1/limits", self.change, methods=["PUT"]),
        ]

    async def limits(self, request: Request) -> Response:
        """GET /v1/limits"""
        claim = await self._auth.allowed(request, core.MAY_READ, "read limits", "submitter")
        return answered(await self._ask(claim, LimitsRequested(requester=claim)))

    async def change(self, request: Request) -> Response:
        """PUT /v1/limits"""
        claim = await self._auth.allowed(request, MAY_CHANGE, "change limits", "operator")
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(LimitSubmission, raw)
        limit = Limit(**body.limit.model_dump())
        return answered(await self._ask(claim, LimitsRequested(
            requester=claim, target=body.target, limit=limit, expect_revision=body.expect_revision)))  # fmt: skip

    async def _ask(self, claim: RequesterClaim, ask: LimitsRequested) -> LimitPage:
        index = f"{ask.target}/{claim.person}/{self._context.clock()}"
        try:
            reply = await self._context.publisher.request(
                "budget", ask, tenant=claim.tenant, task=BOOK, index=index, actor=claim.person,
                timeout_s=limits.RPC_TIMEOUT_MS / 1000)  # fmt: skip
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(f"budget, which keeps the limits, does not answer: {error}",
                              "read /v1/limits to see how they stand, then repeat it: repeating is harmless") from error
        assert isinstance(reply, LimitsReplied)
        if (failure := reply.failure) is not None:
            if failure.code not in STATUS:
                raise unavailable(failure.message, failure.hint)
            raise Problem(STATUS[failure.code], failure.code, "It was not changed", failure.message, failure.hint)
        return LimitPage(revision=reply.revision, limits=reply.limits)
