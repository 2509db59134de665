"""The day's spending against its ceiling: what is spent, how fast, and when the ceiling is reached at that rate.

In: the API's sums of the day and of the last hour, and the limits. Out: figures, curves and a chart, as plain values.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.visits import Visit

DAY_S, HOUR_S = 24 * 3600, 3600
HOUR_PARTS = 12
"""Parts of the last hour: five minutes each."""
SPARK_WIDTH, SPARK_HEIGHT = 240, 32
CHART_WIDTH, CHART_HEIGHT = 900, 160
HOUR_LABELS = range(0, 25, 4)


@dataclass(frozen=True, slots=True)
class Spark:
    """A small curve: an SVG path that closes along the ground. most: the highest of its values."""

    path: str
    most: int
    width: int = SPARK_WIDTH
    height: int = SPARK_HEIGHT


@dataclass(frozen=True, slots=True)
class DayForecast:
    """Money in micro US dollars. burn: in the last hour. ceiling: None where none is known. elapsed_s: since midnight
    (UTC). cost_parts, call_parts: of equal parts of that time; burn_parts: of the last hour."""

    spent: int
    held: int
    calls: int
    failed_calls: int
    burn: int
    ceiling: int | None
    elapsed_s: int
    cost_parts: Sequence[int] = ()
    call_parts: Sequence[int] = ()
    burn_parts: Sequence[int] = ()

    @property
    def over(self) -> bool:
        """True once the ceiling is reached."""
        return self.ceiling is not None and self.spent >= self.ceiling

    @property
    def percent(self) -> int:
        """Share of the ceiling that is spent."""
        return min(100, 100 * self.spent // self.ceiling) if self.ceiling else 0

    @property
    def projected(self) -> int:
        """Spending at midnight, at the rate of the last hour."""
        return self.spent + self.burn * (DAY_S - self.elapsed_s) // HOUR_S

    @property
    def reached_ms(self) -> int | None:
        """Time after which that rate reaches the ceiling; None where it does not before midnight."""
        if self.ceiling is None or not self.burn or self.over:
            return None
        left_ms = (self.ceiling - self.spent) * HOUR_S * 1000 // self.burn
        return left_ms if left_ms < (DAY_S - self.elapsed_s) * 1000 else None


@dataclass(frozen=True, slots=True)
class DayChart:
    """Spending since midnight as a curve, its projection as a line, and the ceiling's height; in pixels of one scale.

    labels: places on the vertical axis with their amounts. ceiling_y: None without a ceiling.
    """

    spent_path: str
    projected_path: str
    ceiling_y: float | None
    labels: tuple[tuple[float, int], ...]
    hours: tuple[tuple[float, str], ...]


async def read_forecast(visit: Visit) -> tuple[DayForecast | None, list[Any]]:
    """The day's forecast; None with the refusal where a part of it is refused: without it the rest would mislead."""
    elapsed_s = max(1, int(time.time()) % DAY_S)
    hours = max(2, -(-elapsed_s // HOUR_S))
    by_day: Json = {"by": "feature", "since": f"{elapsed_s}s", "limit": 1, "slices": hours}
    by_hour: Json = {"by": "feature", "since": f"{HOUR_S}s", "limit": 1, "slices": HOUR_PARTS}
    day, hour, limits = await asyncio.gather(
        visit.get_or("/v1/spend", {}, by_day), visit.get_or("/v1/spend", {}, by_hour), visit.get_or("/v1/limits", {})
    )
    if refused := [part["refused"] for part in (day, hour, limits) if "refused" in part]:
        return None, refused[:1]
    spent = day["total"]["spent"]
    forecast = DayForecast(
        spent=spent["cost_usd_micros"],
        held=day["total"]["held"]["cost_usd_micros"],
        calls=spent["calls"],
        failed_calls=spent["failed_calls"],
        burn=hour["total"]["spent"]["cost_usd_micros"],
        ceiling=find_ceiling(limits),
        elapsed_s=elapsed_s,
        cost_parts=day.get("slices", ()),
        call_parts=day.get("call_slices", ()),
        burn_parts=hour.get("slices", ()),
    )
    return forecast, []


def find_ceiling(limits: Json) -> int | None:
    """The day's ceiling in micro US dollars: the lower of the tenant's policy and its own limit."""
    rows: list[dict[str, Any]] = [row["limit"] for row in limits["limits"] if row["target"] == "day"]
    rows += [limits["policy"]["day"]] if limits["policy"] else []
    return min((row["cost_usd_micros"] for row in rows if row["cost_usd_micros"] is not None), default=None)


def draw_spark(values: Sequence[int], top: int = 0) -> Spark | None:
    """A curve through values at equal distances, flat where all are 0; None of fewer than two.

    top: the value at its upper edge, where it is more than the highest.
    """
    if len(values) < 2:
        return None
    most, step = max(values), SPARK_WIDTH / (len(values) - 1)
    scale = max(most, top, 1)
    points = [
        f"{number * step:.1f} {SPARK_HEIGHT - 2 - value / scale * (SPARK_HEIGHT - 4):.1f}"
        for number, value in enumerate(values)
    ]
    return Spark(f"M0 {SPARK_HEIGHT}L{'L'.join(points)}L{SPARK_WIDTH} {SPARK_HEIGHT}Z", most)


def draw_sparks(forecast: DayForecast) -> dict[str, Spark | None]:
    """The curves of the four figures of the day."""
    return {
        "cost": draw_spark(forecast.cost_parts),
        "share": draw_spark((0, *accumulate(forecast.cost_parts)), forecast.ceiling or 0),
        "hour": draw_spark(forecast.burn_parts),
        "calls": draw_spark(forecast.call_parts),
    }


def draw_day(forecast: DayForecast) -> DayChart:
    """The day from midnight to midnight; its axis reaches the ceiling, or the projection where that is higher."""
    top = max(forecast.ceiling or 0, forecast.projected, forecast.spent + forecast.held, 1)

    def place(elapsed_s: float, amount: int) -> str:
        return f"{elapsed_s / DAY_S * CHART_WIDTH:.1f} {height_of(amount)}"

    def height_of(amount: int) -> float:
        return round(CHART_HEIGHT * (1 - amount / top), 1)

    part_s = forecast.elapsed_s / max(1, len(forecast.cost_parts))
    sums = (0, *accumulate(forecast.cost_parts))
    spent_path = "M" + "L".join(place(number * part_s, amount) for number, amount in enumerate(sums))
    projection = (place(forecast.elapsed_s, sums[-1]), place(DAY_S, sums[-1] + forecast.projected - forecast.spent))
    labels = {0, top} if forecast.ceiling in (None, top) else {0, top, forecast.ceiling or 0}
    return DayChart(
        spent_path=spent_path,
        projected_path="M" + "L".join(projection),
        ceiling_y=height_of(forecast.ceiling) if forecast.ceiling is not None else None,
        labels=tuple((height_of(amount), amount) for amount in sorted(labels)),
        hours=tuple((round(hour / 24 * CHART_WIDTH, 1), f"{hour:02}:00") for hour in HOUR_LABELS),
    )
