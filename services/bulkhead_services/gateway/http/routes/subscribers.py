"""Outside subscribers over HTTP: operators and auditors of a tenant see how far its own have come.

In: requests of people and programs. Out: what budget tells of them, or problem details; the gateway itself may not ask
the broker about any durable but its own.
"""

import secrets
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.runtime.context import Context
from bulkhead.runtime.halts import operator
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import SubscribersReplied, SubscribersRequested
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.operator_schemas import SubscriberDocument, SubscriberPage
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response
from bulkhead_services.gateway.http.routes.budget_requests import MAY_SEE_ALL, BudgetFailureTexts, BudgetRequests
from bulkhead_services.gateway.settings import SubscriberSettings

_READS = BudgetFailureTexts("asks the broker about subscribers", "they are told anew", "Subscribers cannot be shown")


class SubscriberRoutes(BudgetRequests):
    """The route /v1/subscribers. rows: of all tenants."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        rows: Mapping[str, SubscriberSettings],
    ) -> None:
        super().__init__(context, auth, bodies)
        self._rows = rows

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [Route("/v1/subscribers", self.list_subscribers, methods=["GET"])]

    async def list_subscribers(self, request: Request) -> Response:
        """GET /v1/subscribers"""
        claim = await self._auth.require_role(request, MAY_SEE_ALL, "see subscribers", "operator")
        names = sorted(name for name, row in self._rows.items() if row.tenant == claim.tenant)[: bounds.MAX_SUBSCRIBERS]
        if not names:
            return json_response(SubscriberPage(subscribers=()))
        ask, index = SubscribersRequested(requester=claim, names=tuple(names)), f"subscribers/{secrets.token_hex(8)}"
        reply = await self._ask_budget(SubscribersReplied, claim, ask, _READS, task=operator.HALTS, index=index)
        documents = tuple(
            SubscriberDocument(**row.model_dump(), tenant=claim.tenant, events=self._rows[row.name].events)
            for row in reply.subscribers
        )
        return json_response(SubscriberPage(subscribers=documents))
