"""Figures of groups of runs (a route, an evaluation, a tag), and of one group against another. Pure.

In: judged runs. Out: figures with intervals and paired tests, for people and programs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bulkhead.evaluation import statistics
from bulkhead.evaluation.runs import CaseRun, CaseRuns
from bulkhead.evaluation.statistics import Estimate, FiguresByCase, PairedTest

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group. passed: share of runs that pass all their checks. first_token_ms: p50, of the runs that streamed.

    cost_usd_micros: mean of a run. cost_per_pass_usd_micros: all cost by the runs that passed; None when none did.
    always, sometimes, never: cases by how many of their repetitions passed. failures: runs by the code of their
    failure; failed_checks: by check.
    """

    name: str
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
class GroupDifference:
    """A group minus another one, over the same cases. test: of the shares that passed; verdict: by this test."""

    name: str
    against: str
    passed: Estimate | None
    test: PairedTest | None
    latency_ms: Estimate | None
    cost_usd_micros: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """The verdict on the quality."""
        if self.test is None or self.passed is None or not self.test.is_significant:
            return "no difference shown"
        return "better" if self.passed.value > 0 else "worse"


@dataclass(frozen=True, slots=True)
class RouteComparison:
    """Figures of all routes, in the order in which they were named."""

    routes: tuple[GroupFigures, ...]
    differences: tuple[GroupDifference, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "routes": [_name_route(figures_json(figures)) for figures in self.routes],
            "differences": [_name_route(difference_json(difference)) for difference in self.differences],
        }


def _name_route(row: dict[str, Any]) -> dict[str, Any]:
    return {"route" if name == "name" else name: value for name, value in row.items()}


def compare_runs(runs: CaseRuns, routes: Sequence[str]) -> RouteComparison:
    """Compare the routes that have runs."""
    by_route = {route: [run for run in runs.runs if run.route == route] for route in routes}
    tested = [route for route in routes if by_route[route]]
    figures = tuple(group_figures(route, by_route[route]) for route in tested)
    first = by_route[tested[0]] if tested else []
    return RouteComparison(
        figures, tuple(group_difference(tested[0], first, name, by_route[name]) for name in tested[1:])
    )


def group_figures(name: str, runs: Sequence[CaseRun]) -> GroupFigures:
    """Figures of a group that has runs."""
    outcomes, passed = [run.outcome for run in runs], _by_case(runs, lambda run: float(run.has_passed))
    streamed = [outcome.first_token_ms for outcome in outcomes if outcome.first_token_ms is not None]
    latencies, count = [outcome.latency_ms for outcome in outcomes], sum(run.has_passed for run in runs)
    shares = [sum(rows) / len(rows) for rows in passed.values()]
    always, never = shares.count(1.0), shares.count(0.0)
    return GroupFigures(
        name,
        len(runs),
        statistics.share_estimate(passed),
        statistics.quantile_estimate(latencies, 0.50),
        statistics.quantile_estimate(latencies, 0.95),
        statistics.quantile_estimate(streamed, 0.50),
        statistics.mean_estimate(_costs_by_case(runs)),
        round(sum(outcome.cost_usd_micros for outcome in outcomes) / count) if count else None,
        statistics.mean_estimate(_by_case(runs, lambda run: float(run.outcome.tokens))),
        sum(outcome.standing == "degraded" for outcome in outcomes),
        always,
        len(shares) - always - never,
        never,
        dict(Counter(outcome.code for outcome in outcomes if outcome.code).most_common()),
        dict(Counter(f"{run.case}: {reason}" for run in runs for reason in run.failed).most_common()),
        tuple(sorted({model for outcome in outcomes for model in outcome.models})),
    )


def group_difference(first: str, before: Sequence[CaseRun], name: str, runs: Sequence[CaseRun]) -> GroupDifference:
    """The difference of a group from the first one, over the cases that both have."""

    def paired_cases(figure: Callable[[CaseRun], float]) -> tuple[FiguresByCase, FiguresByCase]:
        return _by_case(before, figure), _by_case(runs, figure)

    shares = paired_cases(lambda run: float(run.has_passed))
    return GroupDifference(
        name,
        first,
        statistics.share_difference(*shares),
        statistics.paired_test(*shares),
        statistics.mean_difference(*paired_cases(lambda run: float(run.outcome.latency_ms))),
        statistics.mean_difference(_costs_by_case(before), _costs_by_case(runs)),
    )


def _costs_by_case(runs: Sequence[CaseRun]) -> FiguresByCase:
    return _by_case(runs, lambda run: float(run.outcome.cost_usd_micros))


def _by_case(runs: Sequence[CaseRun], figure: Callable[[CaseRun], float]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for run in runs:
        figures.setdefault(run.case, []).append(figure(run))
    return figures


def figures_json(row: GroupFigures | GroupDifference) -> dict[str, Any]:
    """The figures for programs."""
    values = ((name, getattr(row, name)) for name in row.__dataclass_fields__)
    return {name: value.as_json() if isinstance(value, Estimate | PairedTest) else value for name, value in values}


def difference_json(row: GroupDifference) -> dict[str, Any]:
    """A difference and its verdict, for programs."""
    return figures_json(row) | {"verdict": row.verdict}
