"""The room of models and tools: whether they answer now, how long they take, how often they fail, what they cost.

In: visits. Out: a page, as far as the API tells it to the role that looks.
"""

from collections.abc import Iterable
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.journal.story.calls import SEARCH_TOOL
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

SPAN, ROWS = "24h", 100


class ConsoleModelRoutes(ConsoleRoutes):
    """The route /models."""

    def routes(self) -> list[Route]:
        """Route of the page of models."""
        return [self.factory.get_route("/models", self.show_models)]

    async def show_models(self, visit: Visit) -> Response:
        """GET /models"""
        nothing: Json = {"rows": []}
        models = await visit.get_or("/v1/spend", nothing, {"by": "model", "since": SPAN, "limit": ROWS})
        tools = await visit.get_or("/v1/spend", nothing, {"by": "tool", "since": SPAN, "limit": ROWS})
        coordination = await visit.get_or("/v1/coordination", {"windows": []})
        breakers = (await visit.get("/v1/breakers"))["breakers"]
        names = (await visit.get("/v1/tasks", limit=1, counts="true"))["counts"]["names"]
        return visit.render_page(
            "models/models.html",
            models=rows_by_name("model", coordination["windows"], breakers, models["rows"]),
            tools=rows_by_name(
                "tool", coordination["windows"], breakers, tools["rows"], (SEARCH_TOOL, *names["tools"])
            ),
            refused=models.get("refused") or tools.get("refused"),
            unwatched=coordination.get("refused"),
            span=SPAN,
        )


def rows_by_name(
    scope: str, windows: list[Json], breakers: list[Json], spent: list[Json], names: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The rows of models or tools by name: the state of its breaker, and its row of spending. names: of some that are
    listed without either."""
    by_name: dict[str, dict[str, Any]] = {}

    def find_row(name: str) -> dict[str, Any]:
        return by_name.setdefault(name, {"name": name, "phase": "", "reason": "", "spending": None})

    for name in names:
        find_row(name)
    for row in spent:
        if row["name"]:
            find_row(row["name"])["spending"] = row
    for row in windows:
        if row["scope"] == scope:
            find_row(row["name"]).update(phase=row["phase"])
    for row in breakers:
        if row["scope"] == scope:
            find_row(row["called"] or row["name"]).update(phase=row["phase"], reason=row["reason"])
    return sorted(by_name.values(), key=lambda row: (row["phase"] in ("", "closed"), row["name"]))
