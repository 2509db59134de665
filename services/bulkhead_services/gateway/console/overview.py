"""The first room: what needs a person, what runs and waits, and what the day has cost against its ceiling.

In: visits. Out: a page that is read anew when something changes.
"""

import asyncio
import time
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.mesh import room as mesh
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

SHOWN = 20
DAY_S, HOUR_S = 24 * 3600, 3600
SEES_SPENDING = ("operator", "auditor")


class ConsoleOverviewRoutes(ConsoleRoutes):
    """The routes of `/` and what it shows."""

    def routes(self) -> list[Route]:
        """Routes of the overview."""
        return [
            self.factory.get_route("/", self.show_overview, shared=True),
            self.factory.get_route("/overview/spending", self.show_spending),
        ]

    async def show_overview(self, visit: Visit) -> Response:
        """GET /"""
        approvals, halts, breakers, limits, tasks, ended = await asyncio.gather(
            visit.get_or("/v1/approvals", {"approvals": [], "more": 0}),
            visit.get_or("/v1/halts", {"halts": []}),
            visit.get_or("/v1/breakers", {"breakers": []}),
            visit.get_or("/v1/limits", {"alerts": []}),
            visit.get("/v1/tasks", status="requested,queued,running,paused", limit=SHOWN),
            visit.get("/v1/tasks", limit=5),
        )
        parts = (approvals, halts, breakers, limits)
        return visit.render_page(
            "overview/overview.html",
            approvals=approvals,
            halts=halts["halts"],
            breakers=[row for row in breakers["breakers"] if row["phase"] != "closed"],
            alerts=limits["alerts"][:SHOWN],
            tasks=tasks,
            newest=ended["tasks"],
            refused=[part["refused"] for part in parts if "refused" in part],
            troubled=await mesh.services_needing_person(visit),
            sees_spending=visit.claim.role in SEES_SPENDING,
        )

    async def show_spending(self, visit: Visit) -> Response:
        """GET /overview/spending"""
        since_midnight_s = max(1, int(time.time()) % DAY_S)
        nothing: Json = {"total": {"spent": {"cost_usd_micros": 0}, "held": {"cost_usd_micros": 0}}}
        day, hour, limits = await asyncio.gather(
            visit.get_or("/v1/spend", nothing, {"by": "feature", "since": f"{since_midnight_s}s", "limit": 1}),
            visit.get_or("/v1/spend", nothing, {"by": "feature", "since": f"{HOUR_S}s", "limit": 1}),
            visit.get_or("/v1/limits", {"limits": [], "policy": None}),
        )
        ceiling = _day_ceiling(limits)
        spent, reserved = (day["total"][name]["cost_usd_micros"] for name in ("spent", "held"))
        burn = hour["total"]["spent"]["cost_usd_micros"]
        left_s = (ceiling - spent) * HOUR_S / burn if ceiling is not None and burn else None
        reached = left_s is not None and 0 < left_s < DAY_S - since_midnight_s
        return visit.render_page(
            "overview/spending.html",
            spent=spent,
            held=reserved,
            burn=burn,
            ceiling=ceiling,
            percent=min(100, 100 * spent // ceiling) if ceiling else 0,
            over=ceiling is not None and spent >= ceiling,
            reached_ms=round((left_s or 0) * 1000) if reached else None,
            refused=[part["refused"] for part in (day, hour, limits) if "refused" in part][:1],
        )


def _day_ceiling(limits: Json) -> int | None:
    """The day's ceiling in micro US dollars: the lower of the tenant's policy and its own limit."""
    rows: list[dict[str, Any]] = [row["limit"] for row in limits["limits"] if row["target"] == "day"]
    rows += [limits["policy"]["day"]] if limits["policy"] else []
    return min((row["cost_usd_micros"] for row in rows if row["cost_usd_micros"] is not None), default=None)
