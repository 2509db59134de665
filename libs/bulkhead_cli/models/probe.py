"""`bulkhead models probe`: fixed questions to routes, compared with answers that were stored.

In: a target, routes, the file of a baseline. Out: what has drifted, as text or JSON, and an exit code.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bulkhead.amounts import clock, counted, money
from bulkhead.evaluation import drift
from bulkhead.evaluation.cases import Case, CaseError
from bulkhead.evaluation.drift import Baseline, Drift
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.runs import Runs
from bulkhead_cli.models.compare import run_through
from bulkhead_cli.models.routes import check_known, routes_of
from bulkhead_cli.output import Exit, Stop, err, out, print_json
from bulkhead_cli.target import Target

FEATURE = "probe"
DEADLINE_S = 120.0
ACCEPTANCE = "it answers the question"


async def probe_routes(
    target: Target,
    routes: tuple[str, ...],
    files: tuple[Path, Path | None],
    limit_usd_micros: int,
    *,
    update: bool,
    as_json: bool,
) -> Exit:
    """Ask and compare. files: the baseline, and questions in place of the built-in ones. Raises Stop."""
    path, asked = files
    try:
        questions, before = drift.questions(asked), drift.read(path)
        rows = routes_of(target.data)
        check_known(rows, routes)
        if not as_json:
            _tell_temperatures(rows, routes)
        async with target.mesh() as mesh:
            # One call a question: neither a plan of the planner's nor the judge is what is probed.
            runner = MeshRunner(mesh, feature=FEATURE, deadline_s=DEADLINE_S, plan_of=_plan, check=False)
            ceiling = {"repeat": 1, "limit_usd_micros": limit_usd_micros, "at_once": 1}
            runs = await run_through(runner, questions, routes, told=False, **ceiling)
        now = drift.baseline_of(runs.made, questions, round(time.time() * 1000))
        found = drift.drifts(before, now, runs.made) if before is not None else []
        if before is None or update:
            drift.write(path, drift.merged(before, now) if before is not None else now)
    except CaseError as error:
        raise Stop(Exit.USAGE, str(error), error.hint, name="probe_file") from error
    problem = _problem(runs, before, found, limit_usd_micros, update=update)
    if as_json:
        told = {"baseline": str(path), "written": before is None or update, "problem": problem}
        print_json(told | {"spent_usd_micros": runs.spent_usd_micros, "changes": [asdict(one) for one in found]})
    else:
        _show(path, before, now, found, runs, problem, update=update)
    return Exit.FAILED if problem else Exit.OK


def _plan(case: Case) -> dict[str, Any]:
    step = {"id": "answer", "title": "Answer", "instruction": case.objective, "acceptance": ACCEPTANCE}
    return {"steps": [step]}


def _problem(runs: Runs, before: Baseline | None, found: list[Drift], limit_usd_micros: int, *, update: bool) -> str:
    """Why the exit code is 1; "" when it is 0."""
    if not runs.complete:
        spent = f"{money(runs.spent_usd_micros)} of {money(limit_usd_micros)} is spent"
        return f"{counted(runs.wanted - len(runs.made), 'question')} not asked: {spent}; raise --limit-usd"
    if before is None or update:
        lost = sum(run.outcome.answer is None for run in runs.made)
        return f"{counted(lost, 'question')} without an answer, and not in the baseline" if lost else ""
    drifted = sorted({one.route for one in found if one.drifted})
    return f"drifted: {', '.join(drifted)}" if drifted else ""


def _tell_temperatures(rows: list[dict[str, Any]], routes: tuple[str, ...]) -> None:
    warm = [row["route"] for row in rows if row["route"] in routes and row["temperature"] != 0]
    if warm:
        what = f"{', '.join(warm)}: not of temperature 0, so that answers may differ by chance"
        err.print(f"{what}; BULKHEAD_ROUTES sets it", style="yellow", markup=False)


def _show(
    path: Path, before: Baseline | None, now: Baseline, found: list[Drift], runs: Runs, problem: str, *, update: bool
) -> None:
    for one in found:
        style = "red" if one.drifted else "dim"
        out.print(f"{one.route} {one.question}: {one.what}", style=style, markup=False)
    if before is not None and before.made_by != now.made_by:
        what = f"the baseline is of version {before.made_by or '?'}, whose prompts may differ"
        out.print(f"{what}: --update makes one of this version", style="yellow", markup=False)
    asked = f"{counted(len(runs.made), 'question')}, {money(runs.spent_usd_micros)}"
    if before is None or update:
        out.print(f"baseline written to {path} ({asked})", markup=False)
    if problem:
        out.print(problem, style="bold red", markup=False)
    elif before is not None and not update:
        out.print(f"no drift since {clock(before.made_unix_ms)} ({asked})", markup=False)
