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
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.operator_schemas import SubscriberDocument, SubscriberPage
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered
from bulkhead_services.gateway.http.routes.budget_requests import MAY_SEE_ALL, BudgetRequests, Words
from bulkhead_services.gateway.settings import SubscriberPolicy

_READS = Words("asks the broker about subscribers", "they are told anew", "Subscribers cannot be shown")


class Subscribers(BudgetRequests):
    """The route /v1/subscribers. rows: of all tenants."""

    def __init__(
        self, context: Context, auth: Authenticator, bodies: Bodies, rows: Mapping[str, SubscriberPolicy]
    ) -> None:
        super().__init__(context, auth, bodies)
        self._rows = rows

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [Route("/v1/subscribers", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """GET /v1/subscribers"""
        claim = await self._auth.allowed(request, MAY_SEE_ALL, "see subscribers", "operator")
        own = sorted(name for name, row in self._rows.items() if row.tenant == claim.tenant)[: bounds.MAX_SUBSCRIBERS]
        if not own:
            return answered(SubscriberPage(subscribers=()))
        ask, index = SubscribersRequested(requester=claim, names=tuple(own)), f"subscribers/{secrets.token_hex(8)}"
        reply = await self._ask(SubscribersReplied, claim, ask, _READS, task=operator.HALTS, index=index)
        found = tuple(
            SubscriberDocument(**row.model_dump(), tenant=claim.tenant, events=self._rows[row.name].events)
            for row in reply.subscribers
        )
        return answered(SubscriberPage(subscribers=found))
