"""Halts and breakers over HTTP: everybody of a tenant reads them, its operators set and lift them.

In: requests of people and programs. Out: the state, or problem details. All of it belongs to the caller's tenant, but
the load of the mesh, which names nobody: the operator of the mesh halts what all tenants share, from the command line.
Budget sets a halt; the gateway cannot.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.runtime.halts import operator
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import CoordinationReplied, CoordinationRequested, MeshReplied, MeshRequested
from bulkhead_contracts.control import HaltReplied, HaltRequested, ResetReplied, ResetRequested
from bulkhead_services.gateway.http.operator_schemas import (
    MAX_LISTED,
    BreakerPage,
    CoordinationPage,
    HaltPage,
    HaltSubmission,
    MeshPage,
    ResetSubmission,
)
from bulkhead_services.gateway.http.request_values import json_response
from bulkhead_services.gateway.http.routes.budget_requests import MAY_SEE_ALL, BudgetFailureTexts, BudgetRequests
from bulkhead_services.gateway.read_model import task_view

_TITLE = "The state was not changed"
_HALTS = BudgetFailureTexts("sets halts", "it counts once; /v1/halts says how it stands", _TITLE)
_WATCH = BudgetFailureTexts("watches the tasks", "it is told anew", "Coordination cannot be shown")
_LOAD = BudgetFailureTexts("watches the mesh", "it is told anew", "The mesh cannot be shown")
_BREAKERS = BudgetFailureTexts("keeps the breakers", "it counts once; /v1/breakers says how it stands", _TITLE)


class HaltRoutes(BudgetRequests):
    """The routes under /v1/halts, /v1/resumes, /v1/breakers, /v1/resets, /v1/coordination and /v1/mesh."""

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            Route("/v1/halts", self.list_halts, methods=["GET"]),
            Route("/v1/halts", self.set_halt, methods=["POST"]),
            Route("/v1/resumes", self.lift_halt, methods=["POST"]),
            Route("/v1/breakers", self.list_breakers, methods=["GET"]),
            Route("/v1/resets", self.reset_breaker, methods=["POST"]),
            Route("/v1/coordination", self.show_coordination, methods=["GET"]),
            Route("/v1/mesh", self.show_mesh, methods=["GET"]),
        ]

    async def list_halts(self, request: Request) -> Response:
        """GET /v1/halts"""
        claim = await self._auth.require_role(request, task_view.MAY_READ, "read halts", "submitter")
        halts = await operator.standing_halts(self._context.bus, claim.tenant)
        return json_response(HaltPage(halts=tuple(halts[:MAX_LISTED])))

    async def list_breakers(self, request: Request) -> Response:
        """GET /v1/breakers"""
        claim = await self._auth.require_role(request, task_view.MAY_READ, "read breakers", "submitter")
        breakers = await operator.read_breakers(self._context.bus, claim.tenant)
        return json_response(BreakerPage(breakers=tuple(breakers[:MAX_LISTED])))

    async def show_coordination(self, request: Request) -> Response:
        """GET /v1/coordination"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see how tasks hang together", "operator")
        ask, index = CoordinationRequested(requester=claim), f"coordination/{claim.person}/{self._context.clock()}"
        reply = await self._ask_budget(CoordinationReplied, claim, ask, _WATCH, task=operator.HALTS, index=index)
        return json_response(CoordinationPage(**{name: getattr(reply, name) for name in CoordinationPage.model_fields}))

    async def show_mesh(self, request: Request) -> Response:
        """GET /v1/mesh"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see the load of the mesh", "operator")
        ask, index = MeshRequested(requester=claim), f"mesh/{claim.person}/{self._context.clock()}"
        reply = await self._ask_budget(MeshReplied, claim, ask, _LOAD, task=operator.HALTS, index=index)
        return json_response(MeshPage(**{name: getattr(reply, name) for name in MeshPage.model_fields}))

    async def set_halt(self, request: Request) -> Response:
        """POST /v1/halts"""
        return await self._submit_halt(request, active=True)

    async def lift_halt(self, request: Request) -> Response:
        """POST /v1/resumes"""
        return await self._submit_halt(request, active=False)

    async def _submit_halt(self, request: Request, *, active: bool) -> Response:
        claim, key, body = await self._read_change(request, HaltSubmission, "halt or resume")
        name = subjects.as_token(body.name)
        ask = HaltRequested(
            requester=claim, scope=body.scope, name=name, active=active, reason=body.reason, called=body.name
        )
        index = f"switch/{body.scope}/{body.name}/{claim.person}/{key}"
        reply = await self._ask_budget(HaltReplied, claim, ask, _HALTS, task=operator.HALTS, index=index)
        assert reply.halt is not None
        return json_response(reply.halt)

    async def reset_breaker(self, request: Request) -> Response:
        """POST /v1/resets"""
        claim, key, body = await self._read_change(request, ResetSubmission, "reset breakers")
        name = subjects.as_token(body.name)
        ask = ResetRequested(requester=claim, scope=body.scope, name=name, reason=body.reason, called=body.name)
        index = f"reset/{body.scope}/{body.name}/{claim.person}/{key}"
        reply = await self._ask_budget(ResetReplied, claim, ask, _BREAKERS, task=operator.HALTS, index=index)
        assert reply.breaker is not None
        return json_response(reply.breaker)
