"""The room of spending: by name and over time, the limits, what came near them and who changed them.

In: visits; forms that set a limit. Out: pages, with bars that are drawn here.
"""

import asyncio
import csv
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.operators import KINDS
from bulkhead.text.amounts import format_duration, format_usd
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.spend.forecast import draw_day, read_forecast
from bulkhead_services.gateway.console.task.parties import read_party_names
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to, sending_page

SPANS = {"1h": 30, "24h": 48, "7d": 56, "31d": 62}
"""Times to look back, and into how many bars each is divided."""
UNITS = {
    "cost_usd_micros": "US dollars",
    "tokens": "tokens",
    "model_calls": "model calls",
    "tool_calls": "tool calls",
    "wall_ms": "seconds of calls",
}
SCALE = {"cost_usd_micros": 1_000_000, "wall_ms": 1_000}
"""Of the API's unit in the form's."""
COUNTED = ("tokens", "model_calls", "tool_calls")
COLUMNS = ("cost_usd_micros", "tokens", "calls")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
REVISION = re.compile(r"[0-9]{1,15}")
ROWS = 50
POLICY_TARGETS = {"day": "a day of the tenant", "task": "one task"}
"""Targets that policy has ceilings for, in words."""
TARGET = re.compile(r"step|day|month|(task|agent|workflow|feature|user)(/[!-~]{1,64})?")
MOST = 10**15
CHART_WIDTH, CHART_HEIGHT, BAR_SHARE = 100, 160, 0.85
TICKS = 6
DAY_MS = 86_400_000
TICK_STEPS_MS = (600_000, 900_000, 3_600_000, 4 * 3_600_000, DAY_MS, 2 * DAY_MS, 5 * DAY_MS, 7 * DAY_MS)
"""Distances between ticks: minutes and hours that a clock strikes, whole days."""
OUTLIERS = 10


@dataclass(frozen=True, slots=True)
class SpendBar:
    """One part of the time: its place in the chart (percent across, pixels down), its cost, and when it began."""

    x: float
    y: float
    width: float
    height: float
    cost_usd_micros: int
    from_unix_ms: int


class LimitRow(NamedTuple):
    """Ceilings that hold for a target, in words. origin: of whom, where not of the tenant's limit alone."""

    target: str
    holds: str
    origin: str


class ConsoleSpendRoutes(ConsoleRoutes):
    """The routes under /spend."""

    def routes(self) -> list[Route]:
        """Routes of the spending pages."""
        return [
            self.factory.get_route("/spend", self.show_spend),
            self.factory.get_route("/spend/outliers", self.show_outliers),
            self.factory.get_route("/spend/today", self.show_today, shared=True),
            self.factory.get_route("/spend.json", self.download_sums),
            self.factory.get_route("/spend.csv", self.download_sums),
            self.factory.post_route("/spend/limits", self.set_limit),
        ]

    async def show_spend(self, visit: Visit) -> Response:
        """GET /spend"""
        by, since = visit.query_value("by") or "feature", visit.query_value("since") or "24h"
        query: dict[str, str | int] = {"by": by, "since": since, "limit": ROWS, "slices": SPANS.get(since, 48)}
        spent, limits, tasks = await asyncio.gather(
            visit.get_or("/v1/spend", {"rows": []}, query),
            visit.get("/v1/limits", history="true"),
            visit.get("/v1/tasks", limit=1, counts="true"),
        )
        since_unix_ms, until_unix_ms = spent.get("since_unix_ms", 0), spent.get("until_unix_ms", 0)
        bars = draw_bars(spent.get("slices", []), since_unix_ms, until_unix_ms)
        return visit.render_page(
            "spend/spend.html",
            spent=spent,
            refused=spent.get("refused"),
            bars=bars,
            most=max((bar.cost_usd_micros for bar in bars), default=0),
            ticks=label_times(since_unix_ms, until_unix_ms),
            dearest=max([_row_cost(row) for row in spent["rows"]], default=0) or 1,
            limits=limits,
            limit_rows=list_limits(limits),
            targets=known_targets(limits, tasks["counts"]["names"]),
            units=UNITS,
            amounts=_limit_text,
            by=by,
            since=since,
            kinds=KINDS,
            spans=tuple(SPANS),
        )

    async def show_outliers(self, visit: Visit) -> Response:
        """GET /spend/outliers: read after the sums, because it reads all facts of the time once more"""
        query: dict[str, str | int] = {"by": "tenant", "since": visit.query_value("since") or "24h"}
        spent = await visit.get_or("/v1/spend", {"outliers": []}, query | {"limit": 1, "outliers": OUTLIERS})
        names = await read_party_names(visit, (outlier["task"] for outlier in spent["outliers"]))
        return visit.render_page(
            "spend/outliers.html", outliers=spent["outliers"], names=names, refused=spent.get("refused")
        )

    async def show_today(self, visit: Visit) -> Response:
        """GET /spend/today: the day against its ceiling"""
        forecast, refused = await read_forecast(visit)
        chart = draw_day(forecast) if forecast else None
        return visit.render_page("spend/today.html", forecast=forecast, chart=chart, refused=refused)

    async def download_sums(self, visit: Visit) -> Response:
        """GET /spend.json and /spend.csv"""
        query: dict[str, str | int] = {
            "by": visit.query_value("by") or "feature",
            "since": visit.query_value("since") or "24h",
            "limit": ROWS,
        }
        response = await visit.api.send_request("GET", visit.token, "/v1/spend", query=query)
        spent, name = response.decode_json(), visit.request.url.path.lstrip("/")
        headers = pages.SAFE | pages.NOT_KEPT | {"Content-Disposition": f'attachment; filename="{name}"'}
        if name.endswith(".csv"):
            return Response(to_csv(spent), 200, headers, "text/csv")
        return Response(response.body, 200, headers, "application/json")

    async def set_limit(self, visit: Visit) -> Response:
        """POST /spend/limits"""
        form = await visit.read_form()
        target, limit = form.get("target", ""), dict[str, int | None]()
        if not form.get("remove"):
            amounts = {unit: form[unit] for unit in UNITS if form.get(unit)}
            if not amounts:
                problem = {"title": "No amount", "detail": f"no ceiling was named for {target[:80] or 'a target'}"}
                raise ApiRefused(422, problem | {"hint": "fill one in; `Remove a limit` takes all of a target's away"})
            rows = (await visit.get("/v1/limits"))["limits"]
            # The API takes the whole limit of a target: ceilings that the form leaves empty stay as they are.
            limit = next((row["limit"] for row in rows if row["target"] == target), {})
            limit |= {unit: _parse_amount(amount, unit) for unit, amount in amounts.items()}
        body: Json = {"target": target, "limit": limit}
        if REVISION.fullmatch(revision := form.get("revision", "")):
            body["expect_revision"] = int(revision)
        await visit.post("/v1/limits", body, form.get(KEY_FIELD, ""), "PUT")
        flash = (
            f"The limit of {target} is {'removed' if form.get('remove') else 'set: it holds from the next call on'}."
        )
        return redirect_to(visit.request, sending_page(visit.request, "/spend"), flash)


def draw_bars(slices: list[int], since_unix_ms: int, until_unix_ms: int) -> list[SpendBar]:
    """Costs of equal parts of a time as bars of one scale; one that cost anything is a pixel high at least."""
    most, step = max(slices, default=0), CHART_WIDTH / max(1, len(slices))
    drawn = []
    for number, cost in enumerate(slices):
        height = max(1.0, cost / most * CHART_HEIGHT) if cost else 0.0
        from_unix_ms = since_unix_ms + (until_unix_ms - since_unix_ms) * number // len(slices)
        x, y, width = round(number * step, 2), round(CHART_HEIGHT - height, 1), round(step * BAR_SHARE, 2)
        drawn.append(SpendBar(x, y, width, round(height, 1), cost, from_unix_ms))
    return drawn


def label_times(since_unix_ms: int, until_unix_ms: int) -> list[tuple[float, str]]:
    """Places along the chart, in percent, with the time that each stands for: full hours within a day, dates beyond."""
    span_ms = max(1, until_unix_ms - since_unix_ms)
    pattern = "%H:%M" if span_ms <= DAY_MS else "%d %b"
    step_ms = next((step_ms for step_ms in TICK_STEPS_MS if span_ms <= step_ms * TICKS), span_ms)
    first_ms = -(-since_unix_ms // step_ms) * step_ms
    return [
        (
            round(CHART_WIDTH * (tick_ms - since_unix_ms) / span_ms, 2),
            datetime.fromtimestamp(tick_ms / 1000, UTC).strftime(pattern),
        )
        for tick_ms in range(first_ms, until_unix_ms + 1, step_ms)
    ]


def list_limits(limits: Json) -> list[LimitRow]:
    """The ceilings that hold: for a day and a task policy has some, too, and the lower one of each unit holds."""
    own = {row["target"]: row["limit"] for row in limits["limits"]}
    policy = {target: limit for target, limit in (limits["policy"] or {}).items() if limit}
    rows = []
    for target in (*POLICY_TARGETS, *(name for name in own if name not in POLICY_TARGETS)):
        sources = [limit for limit in (policy.get(target), own.get(target)) if limit]
        if not sources:
            continue
        held = {
            unit: min(amounts)
            for unit in UNITS
            if (amounts := [row[unit] for row in sources if row.get(unit) is not None])
        }
        origin = "of the policy" if target not in own else ""
        if len(sources) > 1:
            origin = (
                f"the lower of policy ({_limit_text(sources[0])}) and the tenant's limit ({_limit_text(sources[1])})"
            )
        rows.append(LimitRow(POLICY_TARGETS.get(target, target), _limit_text(held), origin))
    return rows


def known_targets(limits: Json, names: Json) -> list[str]:
    """Targets that a limit may be for, as far as their names are known."""
    targets = ["day", "month", "task", "step", *(row["target"] for row in limits["limits"])]
    targets += [f"feature/{name}" for name in names["features"]] + [f"user/{name}" for name in names["people"]]
    return [target for target in dict.fromkeys(targets) if TARGET.fullmatch(target)]


def to_csv(spent: Json) -> str:
    """Sums for a spreadsheet: a row per name, one for the names that are not listed, one for all. A name that would
    count as a formula is made text: people choose names."""
    to = io.StringIO()
    writer = csv.writer(to)
    writer.writerow(("row", "name", *(f"{kind}_{unit}" for kind in ("spent", "held") for unit in COLUMNS)))
    named = [("name", row["name"], row) for row in spent["rows"]]
    rest_rows = [("rest", f"{spent['rest_rows']} others", spent["rest"])] if spent["rest_rows"] else []
    for kind_of_row, name, row in (*named, *rest_rows, ("total", "", spent["total"])):
        safe = f"'{name}" if name[:1] in FORMULAS else name
        writer.writerow((kind_of_row, safe, *(row[kind][unit] for kind in ("spent", "held") for unit in COLUMNS)))
    return to.getvalue()


def _limit_text(limit: Json) -> str:
    """A limit in words."""
    parts = [format_usd(limit["cost_usd_micros"])] if limit.get("cost_usd_micros") is not None else []
    parts += [f"{limit[unit]:,} {unit.replace('_', ' ')}" for unit in COUNTED if limit.get(unit) is not None]
    parts += [f"{format_duration(limit['wall_ms'])} of calls"] if limit.get("wall_ms") is not None else []
    return ", ".join(parts) or "no limit"


def _row_cost(row: Json) -> int:
    cost: int = row["spent"]["cost_usd_micros"] + row["held"]["cost_usd_micros"]
    return cost


def _parse_amount(text: str, unit: str) -> int | None:
    """A number of the form in the API's unit; None for `none`. Raises ApiRefused."""
    if text.lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < MOST:
        problem: dict[str, Any] = {"title": "Not a number", "detail": f"{UNITS[unit]}: {text[:40]!r}"}
        raise ApiRefused(422, problem | {"hint": "send a number from 0, or `none` for no ceiling"})
    return round(number * SCALE.get(unit, 1))
