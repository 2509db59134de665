"""The first room: what needs a person, what runs and waits, and what the day has cost against its ceiling.

In: visits. Out: a page that is read anew when something changes.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.mesh import room as mesh
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

SHOWN = 20
ENDED = "rejected,succeeded,failed,cancelled,halted"
SPARK_WIDTH, SPARK_HEIGHT = 240, 32
DAY_S, HOUR_S = 24 * 3600, 3600
SEES_SPENDING = ("operator", "auditor")


@dataclass(frozen=True, slots=True)
class Spark:
    """A small curve: an SVG path that closes along the ground. most: the highest of its values."""

    path: str
    most: int
    width: int = SPARK_WIDTH
    height: int = SPARK_HEIGHT


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
            visit.get("/v1/tasks", status=ENDED, limit=8),
        )
        parts = (approvals, halts, breakers, limits)
        return visit.render_page(
            "overview/overview.html",
            approvals=approvals,
            halts=halts["halts"],
            breakers=[row for row in breakers["breakers"] if row["phase"] != "closed"],
            alerts=limits["alerts"][:SHOWN],
            tasks=tasks,
            ended=ended["tasks"],
            refused=[part["refused"] for part in parts if "refused" in part],
            troubled=await mesh.services_needing_person(visit),
            sees_spending=visit.claim.role in SEES_SPENDING,
        )

    async def show_spending(self, visit: Visit) -> Response:
        """GET /overview/spending"""
        since_midnight_s = max(1, int(time.time()) % DAY_S)
        nothing: Json = {
            "total": {"spent": {"cost_usd_micros": 0, "calls": 0, "failed_calls": 0}, "held": {"cost_usd_micros": 0}}
        }
        day, hour, limits = await asyncio.gather(
            visit.get_or(
                "/v1/spend", nothing, {"by": "feature", "since": f"{since_midnight_s}s", "limit": 1, "slices": 24}
            ),
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
            spark=draw_spark(day.get("slices", ())),
            calls=day["total"]["spent"]["calls"],
            failed_calls=day["total"]["spent"]["failed_calls"],
            burn=burn,
            ceiling=ceiling,
            percent=min(100, 100 * spent // ceiling) if ceiling else 0,
            over=ceiling is not None and spent >= ceiling,
            reached_ms=round((left_s or 0) * 1000) if reached else None,
            refused=[part["refused"] for part in (day, hour, limits) if "refused" in part][:1],
        )


def draw_spark(values: Sequence[int]) -> Spark | None:
    """A curve through values at equal distances; None where there is nothing to draw."""
    most = max(values, default=0)
    if len(values) < 2 or not most:
        return None
    step = SPARK_WIDTH / (len(values) - 1)
    points = [
        f"{number * step:.1f} {SPARK_HEIGHT - 2 - value / most * (SPARK_HEIGHT - 4):.1f}"
        for number, value in enumerate(values)
    ]
    return Spark(f"M0 {SPARK_HEIGHT}L{'L'.join(points)}L{SPARK_WIDTH} {SPARK_HEIGHT}Z", most)


def _day_ceiling(limits: Json) -> int | None:
    """The day's ceiling in micro US dollars: the lower of the tenant's policy and its own limit."""
    rows: list[dict[str, Any]] = [row["limit"] for row in limits["limits"] if row["target"] == "day"]
    rows += [limits["policy"]["day"]] if limits["policy"] else []
    return min((row["cost_usd_micros"] for row in rows if row["cost_usd_micros"] is not None), default=None)
