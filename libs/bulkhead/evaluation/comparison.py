"""What runs say of their routes, and of each route against the first. Pure.

In: judged runs. Out: figures with intervals, for people and programs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bulkhead.evaluation import statistics
from bulkhead.evaluation.runs import Run, Runs
from bulkhead.evaluation.statistics import Cases, Estimate

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """One route. passed: share of runs that pass all their checks. first_token_ms: p50, of the runs that streamed.

    cost_usd_micros: mean of a run. cost_per_pass_usd_micros: all cost by the runs that passed; None when none did.
    always, sometimes, never: cases by how many of their repetitions passed. failures: runs by the code of their
    failure; failed_checks: by check.
    """

    route: str
    runs: int
    passed: Estimate
    latency_p50_ms: Estimate | None
    latency_p95_ms: Estimate | None
    first_token_ms: Estimate | None
    cost_usd_micros: Estimate | None
    cost_per_pass_usd_micros: int | None
    tokens: Estimate | None
    degraded: int
    always: int
    sometimes: int
    never: int
    failures: dict[str, int]
    failed_checks: dict[str, int]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A route minus the first one, over the same cases. verdict: on quality, by whether its interval holds zero."""

    route: str
    against: str
    passed: Estimate | None
    latency_ms: Estimate | None
    cost_usd_micros: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """Of the quality."""
        found = self.passed
        if found is None or found.low is None or found.high is None or found.low <= 0 <= found.high:
            return "no difference shown"
        return "better" if found.low > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of all routes, in the order in which they were named."""

    routes: tuple[RouteFigures, ...]
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "routes": [_as_json(one) for one in self.routes],
            "differences": [_as_json(one) | {"verdict": one.verdict} for one in self.differences],
        }


def compare(runs: Runs, routes: Sequence[str]) -> Comparison:
    """Compare the routes that have runs."""
    by_route = {route: [run for run in runs.made if run.route == route] for route in routes}
    there = [route for route in routes if by_route[route]]
    figures = tuple(_figures(route, by_route[route]) for route in there)
    first = by_route[there[0]] if there else []
    return Comparison(figures, tuple(_difference(there[0], first, name, by_route[name]) for name in there[1:]))


def _figures(route: str, runs: list[Run]) -> RouteFigures:
    outcomes, passed = [run.outcome for run in runs], _by_case(runs, lambda run: float(run.passed))
    streamed = [one.first_token_ms for one in outcomes if one.first_token_ms is not None]
    latencies, count = [one.latency_ms for one in outcomes], sum(run.passed for run in runs)
    shares = [sum(rows) / len(rows) for rows in passed.values()]
    always, never = shares.count(1.0), shares.count(0.0)
    return RouteFigures(
        route,
        len(runs),
        statistics.share(passed),
        statistics.quantile(latencies, 0.50),
        statistics.quantile(latencies, 0.95),
        statistics.quantile(streamed, 0.50),
        statistics.mean(_costs(runs)),
        round(sum(one.cost_usd_micros for one in outcomes) / count) if count else None,
        statistics.mean(_by_case(runs, lambda run: float(run.outcome.tokens))),
        sum(one.standing == "degraded" for one in outcomes),
        always,
        len(shares) - always - never,
        never,
        dict(Counter(one.code for one in outcomes if one.code).most_common()),
        dict(Counter(f"{run.case}: {why}" for run in runs for why in run.failed).most_common()),
        tuple(sorted({model for one in outcomes for model in one.models})),
    )


def _difference(first: str, before: list[Run], name: str, runs: list[Run]) -> Difference:
    def both(figure: Callable[[Run], float]) -> tuple[Cases, Cases]:
        return _by_case(before, figure), _by_case(runs, figure)

    return Difference(
        name,
        first,
        statistics.share_difference(*both(lambda run: float(run.passed))),
        statistics.difference(*both(lambda run: float(run.outcome.latency_ms))),
        statistics.difference(_costs(before), _costs(runs)),
    )


def _costs(runs: list[Run]) -> Cases:
    return _by_case(runs, lambda run: float(run.outcome.cost_usd_micros))


def _by_case(runs: list[Run], figure: Callable[[Run], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(run.case, []).append(figure(run))
    return found


def _as_json(row: RouteFigures | Difference) -> dict[str, Any]:
    values = ((name, getattr(row, name)) for name in row.__dataclass_fields__)
    return {name: value.as_json() if isinstance(value, Estimate) else value for name, value in values}
