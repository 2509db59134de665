"""`bulkhead models probe`: fixed questions to routes, compared with answers that were stored.

In: a target, routes, the file of a baseline. Out: what has drifted, as text or JSON, and an exit code.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bulkhead.evaluation import drift
from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.drift import Baseline, Drift
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.runs import CaseRuns
from bulkhead.text.amounts import format_count, format_time, format_usd
from bulkhead_cli.models.routes import check_known, routes_of
from bulkhead_cli.models.running import run_through
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget

FEATURE = "probe"
DEADLINE_S = 120.0
ACCEPTANCE = "it answers the question"


async def probe_routes(
    target: GatewayTarget,
    routes: tuple[str, ...],
    files: tuple[Path, Path | None],
    limit_usd_micros: int,
    *,
    update: bool,
    as_json: bool,
) -> Exit:
    """Ask and compare. files: the baseline, and questions in place of the built-in ones. Raises CommandError."""
    path, questions_file = files
    try:
        questions, before = drift.probe_questions(questions_file), drift.read_baseline(path)
        rows = routes_of(target.data)
        check_known(rows, routes)
        if not as_json:
            _tell_temperatures(rows, routes)
        async with target.mesh_client() as mesh:
            # One call a question: neither a plan of the planner's nor the judge is what is probed.
            runner = MeshRunner(mesh, feature=FEATURE, deadline_s=DEADLINE_S, plan_of=_single_step_plan, check=False)
            runs = await run_through(
                *(runner, questions, routes), repeat=1, limit_usd_micros=limit_usd_micros, at_once=1, verbose=False
            )
        current = drift.build_baseline(runs.runs, questions, round(time.time() * 1000))
        changes = drift.find_drifts(before, current, runs.runs) if before is not None else []
        if before is None or update:
            drift.write_baseline(path, drift.merge_baselines(before, current) if before is not None else current)
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="probe_file") from error
    problem = _find_problem(runs, before, changes, limit_usd_micros, update=update)
    if as_json:
        summary = {"baseline": str(path), "written": before is None or update, "problem": problem}
        print_json(
            summary | {"spent_usd_micros": runs.spent_usd_micros, "changes": [asdict(change) for change in changes]}
        )
    else:
        _print_drift(path, before, current, changes, runs, problem, update=update)
    return Exit.FAILED if problem else Exit.OK


def _single_step_plan(case: EvaluationCase) -> dict[str, Any]:
    step = {"id": "answer", "title": "Answer", "instruction": case.objective, "acceptance": ACCEPTANCE}
    return {"steps": [step]}


def _find_problem(
    runs: CaseRuns, before: Baseline | None, drifts: list[Drift], limit_usd_micros: int, *, update: bool
) -> str:
    """Why the exit code is 1; "" when it is 0."""
    if not runs.is_complete:
        spent = f"{format_usd(runs.spent_usd_micros)} of {format_usd(limit_usd_micros)} is spent"
        return f"{format_count(runs.expected_count - len(runs.runs), 'question')} not asked: {spent}; raise --limit-usd"
    if before is None or update:
        lost = sum(run.outcome.answer is None for run in runs.runs)
        return f"{format_count(lost, 'question')} without an answer, and not in the baseline" if lost else ""
    drifted = sorted({change.route for change in drifts if change.drifted})
    return f"drifted: {', '.join(drifted)}" if drifted else ""


def _tell_temperatures(rows: list[dict[str, Any]], routes: tuple[str, ...]) -> None:
    warm = [row["route"] for row in rows if row["route"] in routes and row["temperature"] != 0]
    if warm:
        warning = f"{', '.join(warm)}: not of temperature 0, so that answers may differ by chance"
        err.print(f"{warning}; BULKHEAD_ROUTES sets it", style="yellow", markup=False)


def _print_drift(
    path: Path,
    before: Baseline | None,
    now: Baseline,
    drifts: list[Drift],
    runs: CaseRuns,
    problem: str,
    *,
    update: bool,
) -> None:
    for change in drifts:
        style = "red" if change.drifted else "dim"
        out.print(f"{change.route} {change.question}: {change.what}", style=style, markup=False)
    if before is not None and before.made_by != now.made_by:
        warning = f"the baseline is of version {before.made_by or '?'}, whose prompts may differ"
        out.print(f"{warning}: --update makes one of this version", style="yellow", markup=False)
    totals = f"{format_count(len(runs.runs), 'question')}, {format_usd(runs.spent_usd_micros)}"
    if before is None or update:
        out.print(f"baseline written to {path} ({totals})", markup=False)
    if problem:
        out.print(problem, style="bold red", markup=False)
    elif before is not None and not update:
        out.print(f"no drift since {format_time(before.made_unix_ms)} ({totals})", markup=False)
