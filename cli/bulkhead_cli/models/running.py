"""Runs of cases for people: case files read, documents added, a line for each run.

In: case files, a runner. Out: runs, progress on standard error.
"""

from pathlib import Path
from typing import Any

from bulkhead.client import Mesh
from bulkhead.evaluation.cases import CaseError, EvaluationCase, load_cases
from bulkhead.evaluation.on_mesh import UnknownRoute
from bulkhead.evaluation.runs import AnswerJudges, CaseRun, CaseRuns, Runner, RunRecord, run_all
from bulkhead.evaluation.statistics import Estimate
from bulkhead.text.amounts import format_duration, format_usd
from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.screen import err
from bulkhead_cli.tasks import document_files


def read_cases(path: Path) -> tuple[EvaluationCase, ...]:
    """The cases of a file. Raises CommandError."""
    try:
        return load_cases(path)
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="case_file") from error


async def run_through(
    runner: Runner,
    cases: tuple[EvaluationCase, ...],
    routes: tuple[str, ...],
    *,
    repeat: int,
    limit_usd_micros: int,
    at_once: int,
    verbose: bool,
    record: RunRecord | None = None,
    judges: AnswerJudges | None = None,
) -> CaseRuns:
    """All runs, with a line for each that was not on record. Raises CommandError for an unknown route and for cases
    that cannot be judged, MeshError."""
    names, finished = {case.name for case in cases}, record.finished.values() if record is not None else ()
    total, done = len(cases) * len(routes) * repeat, sum(run.case in names for run in finished)

    def print_run(run: CaseRun) -> None:
        nonlocal done
        done += 1
        if verbose:
            outcome = run.outcome
            words = ["passed" if run.has_passed else f"failed: {outcome.code or '; '.join(run.failed)}"]
            words += [row.summary for row in run.verdicts]
            took = f"{format_duration(outcome.latency_ms)}, {format_usd(outcome.cost_usd_micros)}, task {outcome.task}"
            style = "dim" if run.has_passed else "yellow"
            name = f"{run.route} {run.case}".strip()
            line = f"{done}/{total} {name}: {', '.join(words)}" + (f" ({took})" if outcome.task else "")
            err.print(line, style=style, markup=False)

    try:
        return await run_all(
            runner,
            cases,
            routes,
            repeat=repeat,
            limit_usd_micros=limit_usd_micros,
            at_once=at_once,
            on_run=print_run,
            record=record,
            judges=judges,
        )
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error
    except UnknownRoute as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="unknown_route") from error


async def add_case_documents(mesh: Mesh, cases: tuple[EvaluationCase, ...], *, verbose: bool) -> None:
    """Every document once; it stays with the tenant. Raises CommandError for one that does not go in."""
    paths = [Path(document_path) for document_path in dict.fromkeys(name for case in cases for name in case.documents)]
    if uploads := document_files.find_uploads(paths):
        await document_files.add_documents(mesh, uploads, told=verbose)


def render_interval(estimate: Estimate | None, shown: Any) -> str:
    """`80% [60% 92%]`."""
    if estimate is None:
        return "-"
    low, high = ("?" if end is None else shown(end) for end in (estimate.low, estimate.high))
    return f"{shown(estimate.value)} [{low} {high}]"


def render_money(micros: float) -> str:
    return format_usd(round(micros))
