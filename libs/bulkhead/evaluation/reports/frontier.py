"""The frontier of candidates by quality, latency and price, and the cheapest that clears a gate. Pure.

In: figures of routes, of a comparison or of its report. Out: who beats whom, and a proposal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bulkhead.evaluation.comparison import GroupFigures

MAX_CANDIDATES = 64
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """A route and its figures. passed: share of its runs; passed_low: the lower end of its interval of 95 %.

    latency_ms: p50. cost_usd_micros: mean of a run.
    """

    name: str
    passed: float
    passed_low: float
    latency_ms: float
    cost_usd_micros: float

    def is_better_than(self, other: "FrontierPoint") -> bool:
        """True when it is as good in all three, and better in one."""
        pairs = (
            (self.passed, other.passed),
            (-self.latency_ms, -other.latency_ms),
            (-self.cost_usd_micros, -other.cost_usd_micros),
        )
        return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)


class ReportedAmount(BaseModel):
    """A latency or a cost of a report."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    value: Amount


class ReportedShare(BaseModel):
    """A share of a report, and the lower end of its interval."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    value: Share
    low: Share


class ReportedRoute(BaseModel):
    """A route of a report. settings: its row of BULKHEAD_ROUTES; None where the mesh did not tell it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    route: Name
    passed: ReportedShare
    latency_p50_ms: ReportedAmount
    cost_usd_micros: ReportedAmount
    settings: dict[Annotated[str, Field(max_length=64)], JsonValue] | None = None


class FrontierReport(BaseModel):
    """The fields of `eval models --json` that a proposal needs."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    runs: Annotated[int, Field(ge=0)]
    runs_wanted: Annotated[int, Field(ge=1)]
    routes: Annotated[tuple[ReportedRoute, ...], Field(max_length=MAX_CANDIDATES)]

    def list_points(self) -> list[FrontierPoint]:
        """Candidates in the order of the report."""
        return [
            FrontierPoint(
                row.route, row.passed.value, row.passed.low, row.latency_p50_ms.value, row.cost_usd_micros.value
            )
            for row in self.routes
        ]


def list_candidates(routes: Sequence[GroupFigures]) -> list[FrontierPoint]:
    """Candidates of a comparison; all of its routes have runs."""
    candidates = []
    for row in routes:
        assert row.latency_p50_ms is not None and row.cost_usd_micros is not None
        low = row.passed.low or 0.0
        candidates.append(
            FrontierPoint(row.name, row.passed.value, low, row.latency_p50_ms.value, row.cost_usd_micros.value)
        )
    return candidates


def find_dominators(candidates: Sequence[FrontierPoint]) -> dict[str, list[str]]:
    """By candidate those that beat it; none for one on the frontier. Equal ones stay."""
    return {
        candidate.name: [other.name for other in candidates if other.is_better_than(candidate)]
        for candidate in candidates
    }


def propose_candidate(candidates: Sequence[FrontierPoint], min_pass: float) -> FrontierPoint | None:
    """The cheapest on the frontier whose lower bound reaches the gate; of equally cheap ones the better, then the
    faster."""
    dominators = find_dominators(candidates)
    cleared = [row for row in candidates if not dominators[row.name] and row.passed_low >= min_pass]
    return min(cleared, key=lambda row: (row.cost_usd_micros, -row.passed, row.latency_ms), default=None)
