"""The list of single calls of models and tools: which failed, took long or cost much, each with its place in its task.

In: visits, with a filter. Out: a page, as far as the API tells it to the role that looks.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.task.parties import read_party_names
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

SINCE = {"1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days"}
KINDS = {"": "models and tools", "model": "models", "tool": "tools"}
ORDERS = {"newest": "newest first", "slowest": "longest first", "dearest": "dearest first"}
ROWS = 100
NOTHING: Json = {"rows": [], "more": 0}


class ConsoleCallRoutes(ConsoleRoutes):
    """The route /calls."""

    def routes(self) -> list[Route]:
        """Route of the list."""
        return [self.factory.get_route("/calls", self.list_calls)]

    async def list_calls(self, visit: Visit) -> Response:
        """GET /calls"""
        filters = {name: visit.query_value(name) for name in ("since", "kind", "name", "failed", "order")}
        filters |= {"since": filters["since"] or "24h", "order": filters["order"] or "newest"}
        calls = await visit.get_or("/v1/calls", NOTHING, {**filters, "limit": ROWS})
        names = await read_party_names(visit, (call["task"] for call in calls["rows"]))
        return visit.render_page(
            "calls/list.html",
            names=names,
            calls=calls,
            refused=calls.get("refused"),
            filters=filters,
            since=SINCE,
            kinds=KINDS,
            orders=ORDERS,
        )
