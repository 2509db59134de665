"""`bulkhead eval models`, earlier `models compare`: cases on routes, as tasks; a table with intervals, an exit code.

In: a target, a case file, routes. Out: text or JSON on standard output, progress on standard error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.evaluation.comparison import GroupFigures, RouteComparison, compare_runs
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.reports.frontier import find_dominators, list_candidates
from bulkhead.evaluation.reports.report import run_json
from bulkhead.evaluation.runs import CaseRuns
from bulkhead.text.amounts import format_count, format_duration, format_usd
from bulkhead_cli.models.routes import check_known, routes_of, self_judging_models
from bulkhead_cli.models.running import add_case_documents, read_cases, render_interval, render_money, run_through
from bulkhead_cli.output import Exit, print_json
from bulkhead_cli.screen import err, out, print_whole
from bulkhead_cli.target import GatewayTarget

FEATURE = "compare"
SHOWN_REASONS = 12


@dataclass(frozen=True, slots=True)
class RouteComparisonRequest:
    """Request for a comparison. at_least: share that every route has to pass. limit_option: the
    option that the limit came by."""

    cases: Path
    routes: tuple[str, ...]
    repeat: int
    limit_usd_micros: int
    at_once: int
    deadline_s: float
    at_least: float | None
    check: bool
    limit_option: str = "--limit-usd"


async def compare_routes(target: GatewayTarget, request: RouteComparisonRequest, *, as_json: bool) -> Exit:
    """Run and compare. Raises CommandError for a case file, a document or a route that does not fit."""
    cases, rows = read_cases(request.cases), routes_of(target.data)
    check_known(rows, request.routes)
    warnings = _comparison_warnings(rows, request)
    if not as_json:
        for text in warnings:
            err.print(f"warning: {text}", style="yellow", markup=False)
    async with target.mesh_client() as mesh:
        await add_case_documents(mesh, cases, verbose=not as_json)
        runner = MeshRunner(mesh, feature=FEATURE, deadline_s=request.deadline_s, check=request.check)
        runs = await run_through(
            runner,
            cases,
            request.routes,
            repeat=request.repeat,
            limit_usd_micros=request.limit_usd_micros,
            at_once=request.at_once,
            verbose=not as_json,
        )
    comparison = compare_runs(runs, request.routes)
    problems = _find_problems(comparison, runs, request)
    if as_json:
        totals = {"runs": len(runs.runs), "runs_wanted": runs.expected_count, "spent_usd_micros": runs.spent_usd_micros}
        each = [run_json(run) for run in runs.runs]
        document = totals | _frontier_json(comparison, rows)
        print_json(document | {"warnings": warnings, "problems": problems, "each": each})
    else:
        _print_comparison(comparison, runs, problems)
    return Exit.FAILED if problems else Exit.OK


def _frontier_json(comparison: RouteComparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The comparison with the frontier; routes with their settings, where the mesh tells them."""
    document, settings = comparison.as_json(), {row["route"]: row.get("settings") for row in rows}
    dominators = find_dominators(list_candidates(comparison.routes))
    document["routes"] = [
        row | {"beaten_by": dominators[row["route"]], "settings": settings.get(row["route"])}
        for row in document["routes"]
    ]
    return document | {"frontier": [name for name, dominating in dominators.items() if not dominating]}


def _comparison_warnings(rows: list[dict[str, Any]], request: RouteComparisonRequest) -> list[str]:
    warnings = []
    if request.check and not rows:
        warnings.append(
            "which model judges is not known here: a model that judges its own answers tends to accept them"
        )
    if request.check and (self_judging := self_judging_models(rows, list(request.routes))):
        warnings.append(
            f"{', '.join(self_judging)} judges its own answers: set BULKHEAD_JUDGE_MODEL, or compare with --no-check"
        )
    models = {row["route"]: (row["provider"], row["model"], row["temperature"]) for row in rows}
    named = [models[route] for route in request.routes if route in models]
    if len(set(named)) < len(named):
        warnings.append("several of the routes have the same model: what differs between them is chance")
    return warnings


def _find_problems(comparison: RouteComparison, runs: CaseRuns, request: RouteComparisonRequest) -> list[str]:
    """Why the exit code is 1."""
    problems = []
    if not runs.is_complete:
        missing_runs, spent = runs.expected_count - len(runs.runs), format_usd(runs.spent_usd_micros)
        problems.append(
            f"{format_count(missing_runs, 'run')} of {runs.expected_count} not made: {spent} of "
            f"{format_usd(request.limit_usd_micros)} is spent; raise {request.limit_option}"
        )
    for row in comparison.routes:
        if request.at_least is not None and row.passed.value < request.at_least:
            problems.append(f"{row.name} passes {row.passed.value:.0%}, less than {request.at_least:.0%}")
    problems += [
        f"{difference.name} is worse than {difference.against}"
        for difference in comparison.differences
        if difference.verdict == "worse"
    ]
    return problems


def _print_comparison(comparison: RouteComparison, runs: CaseRuns, problems: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    titles = (
        "route",
        "runs",
        "passed",
        "p50",
        "p95",
        "first token",
        "cost of a run",
        "of a pass",
        "frontier",
        "models",
    )
    for title in titles:
        table.add_column(title, no_wrap=True, justify="right" if title == "runs" else "left")
    dominators = find_dominators(list_candidates(comparison.routes))
    for row in comparison.routes:
        per_pass = row.cost_per_pass_usd_micros
        table.add_row(
            escape(row.name),
            str(row.runs),
            render_interval(row.passed, "{:.0%}".format),
            *(
                render_interval(estimate, format_duration)
                for estimate in (row.latency_p50_ms, row.latency_p95_ms, row.first_token_ms)
            ),
            render_interval(row.cost_usd_micros, render_money),
            format_usd(per_pass) if per_pass is not None else "-",
            escape(f"beaten by {', '.join(dominators[row.name])}" if dominators[row.name] else "on it"),
            escape(", ".join(row.models) or "-"),
        )
    print_whole(table)
    for difference in comparison.differences:
        parts = (
            f"passed {render_interval(difference.passed, '{:+.0%}'.format)}",
            f"latency {render_interval(difference.latency_ms, _signed_seconds)}",
            f"cost {render_interval(difference.cost_usd_micros, _signed_money)}",
        )
        summary = f"{difference.name} minus {difference.against}: {', '.join(parts)}: {difference.verdict}"
        out.print(summary, markup=False)
    for row in comparison.routes:
        _show_failures(row)
    for problem in problems:
        out.print(problem, style="red", markup=False)
    spent = (
        f"{format_count(len(runs.runs), 'run')}, {format_usd(runs.spent_usd_micros)}; intervals of 95 %, "
        "? where the runs are"
    )
    out.print(f"{spent} too few to tell", style="dim", markup=False)


def _show_failures(row: GroupFigures) -> None:
    if row.sometimes:
        case_counts = f"{row.always} always, {row.sometimes} sometimes, {row.never} never"
        out.print(f"{row.name}: cases passed {case_counts}", markup=False)
    reasons = [f"{count} × {reason}" for reason, count in (*row.failures.items(), *row.failed_checks.items())]
    for reason in reasons[:SHOWN_REASONS]:
        out.print(f"  {row.name}: {reason}", style="yellow", markup=False)
    if len(reasons) > SHOWN_REASONS:
        out.print(f"  {row.name}: and {len(reasons) - SHOWN_REASONS} more; see --json", style="dim", markup=False)


def _signed_money(micros: float) -> str:
    return f"{'-' if micros < 0 else '+'}{format_usd(round(abs(micros)))}"


def _signed_seconds(milliseconds: float) -> str:
    return f"{'-' if milliseconds < 0 else '+'}{format_duration(abs(milliseconds))}"
