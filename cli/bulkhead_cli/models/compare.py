"""`bulkhead models compare`: cases on routes, as tasks of a mesh; a table with intervals, and an exit code.

In: a target, a case file, routes. Out: text or JSON on standard output, progress on standard error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.client import Mesh
from bulkhead.evaluation.cases import CaseError, EvaluationCase, load_cases
from bulkhead.evaluation.comparison import RouteComparison, RouteFigures, compare_runs
from bulkhead.evaluation.on_mesh import MeshRunner, UnknownRoute
from bulkhead.evaluation.runs import CaseRun, CaseRuns, run_all
from bulkhead.evaluation.statistics import Estimate
from bulkhead.text.amounts import format_count, format_duration, format_usd
from bulkhead_cli.models.routes import check_known, routes_of, self_judging_models
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out, print_whole
from bulkhead_cli.target import GatewayTarget
from bulkhead_cli.tasks import document_files

FEATURE = "compare"
SHOWN_REASONS = 12


@dataclass(frozen=True, slots=True)
class RouteComparisonRequest:
    """Request for a comparison. at_least: share that every route has to pass."""

    cases: Path
    routes: tuple[str, ...]
    repeat: int
    limit_usd_micros: int
    at_once: int
    deadline_s: float
    at_least: float | None
    check: bool


async def compare_routes(target: GatewayTarget, request: RouteComparisonRequest, *, as_json: bool) -> Exit:
    """Run and compare. Raises CommandError for a case file, a document or a route that does not fit."""
    cases, rows = read_cases(request.cases), routes_of(target.data)
    check_known(rows, request.routes)
    warnings = _comparison_warnings(rows, request)
    if not as_json:
        for text in warnings:
            err.print(f"warning: {text}", style="yellow", markup=False)
    async with target.mesh_client() as mesh:
        await _add_documents(mesh, cases, verbose=not as_json)
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
        each = [_run_json(run) for run in runs.runs]
        print_json(totals | comparison.as_json() | {"warnings": warnings, "problems": problems, "each": each})
    else:
        _print_comparison(comparison, runs, problems)
    return Exit.FAILED if problems else Exit.OK


def read_cases(path: Path) -> tuple[EvaluationCase, ...]:
    """The cases of a file. Raises CommandError."""
    try:
        return load_cases(path)
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="case_file") from error


async def run_through(
    runner: MeshRunner, cases: tuple[EvaluationCase, ...], routes: tuple[str, ...], *, verbose: bool, **how: int
) -> CaseRuns:
    """All runs, with a line for each. Raises CommandError for an unknown route, MeshError."""
    total, done = len(cases) * len(routes) * how["repeat"], 0

    def print_run(run: CaseRun) -> None:
        nonlocal done
        done += 1
        if verbose:
            outcome = run.outcome
            verdict = "passed" if run.has_passed else f"failed: {outcome.code or '; '.join(run.failed)}"
            took = f"{format_duration(outcome.latency_ms)}, {format_usd(outcome.cost_usd_micros)}, task {outcome.task}"
            style = "dim" if run.has_passed else "yellow"
            err.print(f"{done}/{total} {run.route} {run.case}: {verdict} ({took})", style=style, markup=False)

    try:
        return await run_all(runner, cases, routes, on_run=print_run, **how)
    except UnknownRoute as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="unknown_route") from error


async def _add_documents(mesh: Mesh, cases: tuple[EvaluationCase, ...], *, verbose: bool) -> None:
    """Every document once; it stays with the tenant. Raises CommandError for one that does not go in."""
    paths = [Path(document_path) for document_path in dict.fromkeys(name for case in cases for name in case.documents)]
    if uploads := document_files.find_uploads(paths):
        await document_files.add_documents(mesh, uploads, told=verbose)


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
            f"{format_usd(request.limit_usd_micros)} is spent; raise --limit-usd"
        )
    for row in comparison.routes:
        if request.at_least is not None and row.passed.value < request.at_least:
            problems.append(f"{row.route} passes {row.passed.value:.0%}, less than {request.at_least:.0%}")
    problems += [
        f"{difference.route} is worse than {difference.against}"
        for difference in comparison.differences
        if difference.verdict == "worse"
    ]
    return problems


def _print_comparison(comparison: RouteComparison, runs: CaseRuns, problems: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("route", "runs", "passed", "p50", "p95", "first token", "cost of a run", "of a pass", "models"):
        table.add_column(title, no_wrap=True, justify="right" if title == "runs" else "left")
    for row in comparison.routes:
        per_pass = row.cost_per_pass_usd_micros
        table.add_row(
            escape(row.route),
            str(row.runs),
            _render_interval(row.passed, "{:.0%}".format),
            *(
                _render_interval(estimate, format_duration)
                for estimate in (row.latency_p50_ms, row.latency_p95_ms, row.first_token_ms)
            ),
            _render_interval(row.cost_usd_micros, _render_money),
            format_usd(per_pass) if per_pass is not None else "-",
            escape(", ".join(row.models) or "-"),
        )
    print_whole(table)
    for difference in comparison.differences:
        parts = (
            f"passed {_render_interval(difference.passed, '{:+.0%}'.format)}",
            f"latency {_render_interval(difference.latency_ms, _signed_seconds)}",
            f"cost {_render_interval(difference.cost_usd_micros, _signed_money)}",
        )
        summary = f"{difference.route} minus {difference.against}: {', '.join(parts)}: {difference.verdict}"
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


def _show_failures(row: RouteFigures) -> None:
    if row.sometimes:
        case_counts = f"{row.always} always, {row.sometimes} sometimes, {row.never} never"
        out.print(f"{row.route}: cases passed {case_counts}", markup=False)
    reasons = [f"{count} × {reason}" for reason, count in (*row.failures.items(), *row.failed_checks.items())]
    for reason in reasons[:SHOWN_REASONS]:
        out.print(f"  {row.route}: {reason}", style="yellow", markup=False)
    if len(reasons) > SHOWN_REASONS:
        out.print(f"  {row.route}: and {len(reasons) - SHOWN_REASONS} more; see --json", style="dim", markup=False)


def _render_interval(estimate: Estimate | None, shown: Any) -> str:
    """`80% [60% 92%]`."""
    if estimate is None:
        return "-"
    low, high = ("?" if end is None else shown(end) for end in (estimate.low, estimate.high))
    return f"{shown(estimate.value)} [{low} {high}]"


def _render_money(micros: float) -> str:
    return format_usd(round(micros))


def _signed_money(micros: float) -> str:
    return f"{'-' if micros < 0 else '+'}{format_usd(round(abs(micros)))}"


def _signed_seconds(milliseconds: float) -> str:
    return f"{'-' if milliseconds < 0 else '+'}{format_duration(abs(milliseconds))}"


def _run_json(run: CaseRun) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "case": run.case,
        "route": run.route,
        "repetition": run.repetition,
        "task_id": outcome.task,
        "status": outcome.status,
        "code": outcome.code,
        "passed": run.has_passed,
        "failed": list(run.failed),
        "standing": outcome.standing,
        "latency_ms": outcome.latency_ms,
        "first_token_ms": outcome.first_token_ms,
        "cost_usd_micros": outcome.cost_usd_micros,
        "tokens": outcome.tokens,
        "models": list(outcome.models),
    }
