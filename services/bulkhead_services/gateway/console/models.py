"""The room of models and doors: how models and tools answer now, what they cost lately, and runs of agents outside.

In: visits. Out: a page, as far as the API tells it to the role that looks.
"""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.desk import Desk, Visit

SPAN, ROWS, RUNS = "24h", 100, 50


class Models:
    """The route /models."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._desk.get("/models", self.show)]

    async def show(self, visit: Visit) -> Response:
        """GET /models"""
        spent = await visit.get_or("/v1/spend", {"rows": []}, {"by": "model", "since": SPAN, "limit": ROWS})
        told = await visit.get_or("/v1/coordination", {"windows": []})
        breakers = (await visit.get("/v1/breakers"))["breakers"]
        runs = await visit.get("/v1/tasks", limit=RUNS, opened_by="doors")
        return visit.page(
            "models/models.html",
            models=known("model", told["windows"], breakers, spent["rows"]),
            tools=known("tool", told["windows"], breakers, []),
            refused=spent.get("refused") or told.get("refused"),
            runs=runs["tasks"],
            span=SPAN,
        )


def known(scope: str, windows: list[Json], breakers: list[Json], spent: list[Json]) -> list[dict[str, Any]]:
    """The rows of models or tools by name: the state of its breaker, its window, what it cost."""
    found: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        return found.setdefault(name, {"name": name, "phase": "", "reason": "", "window": None, "spent": None})

    for row in spent:
        if row["name"]:
            of(row["name"])["spent"] = row["spent"]
    for row in windows:
        if row["scope"] == scope:
            of(row["name"]).update(window=row, phase=row["phase"])
    for row in breakers:
        if row["scope"] == scope:
            of(row["called"] or row["name"]).update(phase=row["phase"], reason=row["reason"])
    return sorted(found.values(), key=lambda one: (one["phase"] in ("", "closed"), one["name"]))
