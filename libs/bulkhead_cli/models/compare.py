"""`bulkhead models compare`: cases on routes, as tasks of a mesh; a table with intervals, and an exit code.

In: a target, a case file, routes. Out: text or JSON on standard output, progress on standard error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.amounts import counted, money, seconds
from bulkhead.client import Mesh
from bulkhead.evaluation.cases import Case, CaseError, load
from bulkhead.evaluation.comparison import Comparison, RouteFigures, compare
from bulkhead.evaluation.on_mesh import MeshRunner, NoSuchRoute
from bulkhead.evaluation.runs import Run, Runs, run_all
from bulkhead.evaluation.statistics import Estimate
from bulkhead_cli.models.routes import check_known, judged_by_itself, routes_of
from bulkhead_cli.output import Exit, Stop, err, out, print_json, print_whole
from bulkhead_cli.target import Target
from bulkhead_cli.tasks import document_files

FEATURE = "compare"
SHOWN_REASONS = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared. at_least: share that every route has to pass."""

    cases: Path
    routes: tuple[str, ...]
    repeat: int
    limit_usd_micros: int
    at_once: int
    deadline_s: float
    at_least: float | None
    check: bool


async def compare_routes(target: Target, wanted: Wanted, *, as_json: bool) -> Exit:
    """Run and compare. Raises Stop for a case file, a document or a route that does not fit."""
    cases, rows = loaded(wanted.cases), routes_of(target.data)
    check_known(rows, wanted.routes)
    warnings = _warnings(rows, wanted)
    if not as_json:
        for text in warnings:
            err.print(f"warning: {text}", style="yellow", markup=False)
    async with target.mesh() as mesh:
        await _add_documents(mesh, cases, told=not as_json)
        runner = MeshRunner(mesh, feature=FEATURE, deadline_s=wanted.deadline_s, check=wanted.check)
        runs = await run_through(
            runner,
            cases,
            wanted.routes,
            repeat=wanted.repeat,
            limit_usd_micros=wanted.limit_usd_micros,
            at_once=wanted.at_once,
            told=not as_json,
        )
    found = compare(runs, wanted.routes)
    problems = _problems(found, runs, wanted)
    if as_json:
        told = {"runs": len(runs.made), "runs_wanted": runs.wanted, "spent_usd_micros": runs.spent_usd_micros}
        each = [_run_json(run) for run in runs.made]
        print_json(told | found.as_json() | {"warnings": warnings, "problems": problems, "each": each})
    else:
        _show(found, runs, problems)
    return Exit.FAILED if problems else Exit.OK


def loaded(path: Path) -> tuple[Case, ...]:
    """The cases of a file. Raises Stop."""
    try:
        return load(path)
    except CaseError as error:
        raise Stop(Exit.USAGE, str(error), error.hint, name="case_file") from error


async def run_through(
    runner: MeshRunner, cases: tuple[Case, ...], routes: tuple[str, ...], *, told: bool, **how: int
) -> Runs:
    """All runs, with a line for each. Raises Stop for an unknown route, MeshError."""
    total, done = len(cases) * len(routes) * how["repeat"], 0

    def tell(run: Run) -> None:
        nonlocal done
        done += 1
        if told:
            outcome = run.outcome
            what = "passed" if run.passed else f"failed: {outcome.code or '; '.join(run.failed)}"
            took = f"{seconds(outcome.latency_ms)}, {money(outcome.cost_usd_micros)}, task {outcome.task}"
            style = "dim" if run.passed else "yellow"
            err.print(f"{done}/{total} {run.route} {run.case}: {what} ({took})", style=style, markup=False)

    try:
        return await run_all(runner, cases, routes, on_run=tell, **how)
    except NoSuchRoute as error:
        raise Stop(Exit.USAGE, str(error), error.hint, name="unknown_route") from error


async def _add_documents(mesh: Mesh, cases: tuple[Case, ...], *, told: bool) -> None:
    """Every document once; it stays with the tenant. Raises Stop for one that does not go in."""
    paths = [Path(one) for one in dict.fromkeys(name for case in cases for name in case.documents)]
    if uploads := document_files.find(paths):
        await document_files.add(mesh, uploads, told=told)


def _warnings(rows: list[dict[str, Any]], wanted: Wanted) -> list[str]:
    found = []
    if wanted.check and not rows:
        found.append("which model judges is not known here: a model that judges its own answers tends to accept them")
    if wanted.check and (own := judged_by_itself(rows, list(wanted.routes))):
        found.append(f"{', '.join(own)} judges its own answers: set BULKHEAD_JUDGE_MODEL, or compare with --no-check")
    models = {row["route"]: (row["provider"], row["model"], row["temperature"]) for row in rows}
    named = [models[route] for route in wanted.routes if route in models]
    if len(set(named)) < len(named):
        found.append("several of the routes have the same model: what differs between them is chance")
    return found


def _problems(found: Comparison, runs: Runs, wanted: Wanted) -> list[str]:
    """Why the exit code is 1."""
    problems = []
    if not runs.complete:
        left = runs.wanted - len(runs.made)
        problems.append(
            f"{counted(left, 'run')} of {runs.wanted} not made: {money(runs.spent_usd_micros)} of "
            f"{money(wanted.limit_usd_micros)} is spent; raise --limit-usd"
        )
    for row in found.routes:
        if wanted.at_least is not None and row.passed.value < wanted.at_least:
            problems.append(f"{row.route} passes {row.passed.value:.0%}, less than {wanted.at_least:.0%}")
    problems += [f"{one.route} is worse than {one.against}" for one in found.differences if one.verdict == "worse"]
    return problems


def _show(found: Comparison, runs: Runs, problems: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("route", "runs", "passed", "p50", "p95", "first token", "cost of a run", "of a pass", "models"):
        table.add_column(title, no_wrap=True, justify="right" if title == "runs" else "left")
    for row in found.routes:
        per_pass = row.cost_per_pass_usd_micros
        table.add_row(
            escape(row.route),
            str(row.runs),
            _interval(row.passed, "{:.0%}".format),
            *(_interval(one, seconds) for one in (row.latency_p50_ms, row.latency_p95_ms, row.first_token_ms)),
            _interval(row.cost_usd_micros, _money),
            money(per_pass) if per_pass is not None else "-",
            escape(", ".join(row.models) or "-"),
        )
    print_whole(table)
    for difference in found.differences:
        parts = (
            f"passed {_interval(difference.passed, '{:+.0%}'.format)}",
            f"latency {_interval(difference.latency_ms, _signed_seconds)}",
            f"cost {_interval(difference.cost_usd_micros, _signed_money)}",
        )
        what = f"{difference.route} minus {difference.against}: {', '.join(parts)}: {difference.verdict}"
        out.print(what, markup=False)
    for row in found.routes:
        _show_failures(row)
    for problem in problems:
        out.print(problem, style="red", markup=False)
    spent = f"{counted(len(runs.made), 'run')}, {money(runs.spent_usd_micros)}; intervals of 95 %, ? where the runs are"
    out.print(f"{spent} too few to tell", style="dim", markup=False)


def _show_failures(row: RouteFigures) -> None:
    if row.sometimes:
        what = f"{row.always} always, {row.sometimes} sometimes, {row.never} never"
        out.print(f"{row.route}: cases passed {what}", markup=False)
    reasons = [f"{count} × {why}" for why, count in (*row.failures.items(), *row.failed_checks.items())]
    for reason in reasons[:SHOWN_REASONS]:
        out.print(f"  {row.route}: {reason}", style="yellow", markup=False)
    if len(reasons) > SHOWN_REASONS:
        out.print(f"  {row.route}: and {len(reasons) - SHOWN_REASONS} more; see --json", style="dim", markup=False)


def _interval(found: Estimate | None, shown: Any) -> str:
    """`80% [60% 92%]`."""
    if found is None:
        return "-"
    low, high = ("?" if end is None else shown(end) for end in (found.low, found.high))
    return f"{shown(found.value)} [{low} {high}]"


def _money(micros: float) -> str:
    return money(round(micros))


def _signed_money(micros: float) -> str:
    return f"{'-' if micros < 0 else '+'}{money(round(abs(micros)))}"


def _signed_seconds(milliseconds: float) -> str:
    return f"{'-' if milliseconds < 0 else '+'}{seconds(abs(milliseconds))}"


def _run_json(run: Run) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "case": run.case,
        "route": run.route,
        "repetition": run.repetition,
        "task_id": outcome.task,
        "status": outcome.status,
        "code": outcome.code,
        "passed": run.passed,
        "failed": list(run.failed),
        "standing": outcome.standing,
        "latency_ms": outcome.latency_ms,
        "first_token_ms": outcome.first_token_ms,
        "cost_usd_micros": outcome.cost_usd_micros,
        "tokens": outcome.tokens,
        "models": list(outcome.models),
    }
