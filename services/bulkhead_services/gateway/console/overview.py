"""The first room: what needs a person, what runs and waits, and what the day has cost against its ceiling.

In: visits. Out: a page that is read anew when something changes.
"""

import asyncio
import time

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.prompts import READERS
from bulkhead.gateway_api.query import OVERSEERS
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.mesh import room as mesh
from bulkhead_services.gateway.console.spend.forecast import draw_sparks, read_forecast
from bulkhead_services.gateway.console.task.parties import PartyNames
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

SHOWN = 20
ENDED = "rejected,succeeded,failed,cancelled,halted"


class ConsoleOverviewRoutes(ConsoleRoutes):
    """The routes of `/` and what it shows."""

    def routes(self) -> list[Route]:
        """Routes of the overview."""
        return [
            self.factory.get_route("/", self.show_overview, shared=True),
            self.factory.get_route("/overview/spending", self.show_spending, shared=True),
        ]

    async def show_overview(self, visit: Visit) -> Response:
        """GET /"""
        approvals, writes, halts, breakers, limits, tasks, ended, workflows = await asyncio.gather(
            visit.get_or("/v1/approvals", {"approvals": [], "more": 0}),
            visit.get_or("/v1/writes", {"writes": [], "more": 0}),
            visit.get_or("/v1/halts", {"halts": []}),
            visit.get_or("/v1/breakers", {"breakers": []}),
            visit.get_or("/v1/limits", {"alerts": []}),
            visit.get("/v1/tasks", status="requested,queued,running,paused", limit=SHOWN),
            visit.get("/v1/tasks", status=ENDED, limit=8),
            visit.get_or("/v1/workflows", {"workflows": []}),
        )
        releases: Json = {"releases": [], "canaries": []}
        if visit.claim.role in READERS.names:
            releases = await visit.get_or("/v1/releases", releases)
        yesterday_unix_ms = (time.time() - 24 * 3600) * 1000
        parts = (approvals, writes, halts, breakers, limits)
        return visit.render_page(
            "overview/overview.html",
            approvals=approvals,
            writes=writes,
            halts=halts["halts"],
            breakers=[row for row in breakers["breakers"] if row["phase"] != "closed"],
            proposed=[watch for watch in releases["canaries"] if watch["verdict"] in ("better", "no_worse")],
            rolled_back=[
                release
                for release in releases["releases"]
                if release.get("rolled_back") and release["moved_unix_ms"] > yesterday_unix_ms
            ],
            in_review=[row for row in workflows["workflows"] if row["state"] == "in_review"][:SHOWN],
            alerts=limits["alerts"][:SHOWN],
            tasks=tasks,
            ended=ended["tasks"],
            names=PartyNames({task["task_id"]: task for task in (*tasks["tasks"], *ended["tasks"])}),
            refused=[part["refused"] for part in parts if "refused" in part],
            troubled=await mesh.services_needing_person(visit),
            sees_spending=visit.claim.role in OVERSEERS.names,
        )

    async def show_spending(self, visit: Visit) -> Response:
        """GET /overview/spending"""
        forecast, refused = await read_forecast(visit)
        sparks = draw_sparks(forecast) if forecast else {}
        return visit.render_page("overview/spending.html", forecast=forecast, sparks=sparks, refused=refused)
