"""Halts and breakers over HTTP: everybody of a tenant reads them, its operators set and lift them.

In: requests of people and programs. Out: the state, or problem details. All of it belongs to the caller's tenant: the
operator of the mesh halts what all tenants share, from the command line. Budget sets a halt; the gateway cannot.
"""

import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.halts import operator
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.control import Halt, HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.operator_schemas import (
    MAX_LISTED,
    BreakerPage,
    HaltPage,
    HaltSubmission,
    ResetSubmission,
)
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, idempotency_key, parsed
from bulkhead_services.gateway.problems import Problem, unavailable
from bulkhead_services.gateway.read_model import task_view

MAY_SWITCH = frozenset({"operator"})
MAX_BODY_BYTES = 16 * 1024
STATUS = {
    "forbidden": 403,
    "not_yours": 403,
    "tripped_it": 403,
    "not_open": 409,
    "ended": 409,
    "at_its_ceiling": 409,
    "not_halted": 409,
    "busy": 409,
    "idempotency_reused": 422,
}


class Switches:
    """The routes under /v1/halts, /v1/resumes, /v1/breakers and /v1/resets."""

    def __init__(self, context: Context, auth: Authenticator, bodies: Bodies) -> None:
        self._context = context
        self._auth = auth
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/halts", self.halts, methods=["GET"]),
            Route("/v1/halts", self.halt, methods=["POST"]),
            Route("/v1/resumes", self.resume, methods=["POST"]),
            Route("/v1/breakers", self.breakers, methods=["GET"]),
            Route("/v1/resets", self.reset, methods=["POST"]),
        ]

    async def halts(self, request: Request) -> Response:
        """GET /v1/halts"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read halts", "submitter")
        found = await operator.standing(self._context.bus, claim.tenant)
        return answered(HaltPage(halts=tuple(found[:MAX_LISTED])))

    async def breakers(self, request: Request) -> Response:
        """GET /v1/breakers"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read breakers", "submitter")
        found = await operator.breakers(self._context.bus, claim.tenant)
        return answered(BreakerPage(breakers=tuple(found[:MAX_LISTED])))

    async def halt(self, request: Request) -> Response:
        """POST /v1/halts"""
        return await self._switch(request, active=True)

    async def resume(self, request: Request) -> Response:
        """POST /v1/resumes"""
        return await self._switch(request, active=False)

    async def _switch(self, request: Request, *, active: bool) -> Response:
        claim = await self._auth.allowed(request, MAY_SWITCH, "halt or resume", "operator")
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(HaltSubmission, raw)
        return answered(await self._ask(claim, body, active, key))

    async def _ask(self, claim: RequesterClaim, body: HaltSubmission, active: bool, key: str) -> Halt:
        """The id of the request derives from the key: repeated, it counts once, whatever others changed since."""
        name = subjects.as_token(body.name)
        ask = HaltRequested(
            requester=claim, scope=body.scope, name=name, active=active, reason=body.reason, called=body.name
        )
        index = f"switch/{body.scope}/{body.name}/{claim.person}/{key}"
        try:
            reply = await self._context.publisher.request(
                "budget",
                ask,
                tenant=claim.tenant,
                task=operator.HALTS,
                index=index,
                actor=claim.person,
                timeout_s=bounds.RPC_TIMEOUT_MS / 1000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(
                f"budget, which sets halts, does not answer: {error}",
                "repeat it under the same Idempotency-Key: then it counts once; /v1/halts says how it stands",
            ) from error
        assert isinstance(reply, HaltReplied)
        if reply.failure is not None:
            raise _not_changed(reply.failure)
        assert reply.halt is not None
        return reply.halt

    async def reset(self, request: Request) -> Response:
        """POST /v1/resets"""
        claim = await self._auth.allowed(request, MAY_SWITCH, "reset breakers", "operator")
        key = idempotency_key(request, required=False) or secrets.token_hex(16)
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(ResetSubmission, raw)
        name = subjects.as_token(body.name)
        ask = ResetRequested(requester=claim, scope=body.scope, name=name, reason=body.reason, called=body.name)
        try:
            reply = await self._context.publisher.request(
                "budget",
                ask,
                tenant=claim.tenant,
                task=operator.HALTS,
                actor=claim.person,
                index=f"reset/{body.scope}/{body.name}/{claim.person}/{key}",
                timeout_s=bounds.RPC_TIMEOUT_MS / 1000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(
                f"budget, which keeps the breakers, does not answer: {error}",
                "repeat it under the same Idempotency-Key: then it counts once; /v1/breakers says how it stands",
            ) from error
        assert isinstance(reply, ResetReplied)
        if reply.failure is not None:
            raise _not_changed(reply.failure)
        assert reply.breaker is not None
        return answered(reply.breaker)


def _not_changed(failure: Failure) -> Problem:
    if failure.code not in STATUS:
        return unavailable(failure.message, failure.hint)
    return Problem(STATUS[failure.code], failure.code, "The state was not changed", failure.message, failure.hint)
