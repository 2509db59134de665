"""`bulkhead eval serve`: runs the evaluations that people ask for, signs a statement of each, and reports it.

In: a mesh, a folder of sets, a private key. Out: one line for each evaluation as it begins and ends. A run that is cut
off goes on when the program is started again.
"""

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.transport import RETRYABLE
from bulkhead.evaluation.cases import CaseError
from bulkhead.evaluation.reports.report import build_report
from bulkhead.evaluation.reports.statement import EvaluatedThings, build_failure_statement
from bulkhead.evaluation.run_folder import MANIFEST
from bulkhead.evaluation.statement import StatementError, load_key, public_key_of, sign_statement
from bulkhead_cli.evaluation.run import EVALS, EvaluationRequest, ReportFiles, open_folder, run_cases, write_reports
from bulkhead_cli.evaluation.statements import check_set_name, read_tools, write_statement
from bulkhead_cli.models.running import read_cases
from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.screen import out
from bulkhead_cli.target import GatewayTarget

SUFFIXES = (".jsonl", ".yaml", ".yml")
POLL_S = 2.0
MAX_WAIT_MS = 3 * 86_400_000
MAX_REPEAT_MS = 1_800_000
"""An act that was cut off is repeated within this time: as old a word of a person is taken by nobody."""


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """Settings of an evaluator. sets: folder of the sets, each a file named for its set."""

    sets: Path
    key: Path
    repetitions: int
    parallel: int
    budget_usd_micros: int
    deadline_s: float
    once: bool


async def serve_evaluations(target: GatewayTarget, data: Path, request: ServeRequest) -> Exit:
    """Serve until a signal; with `once` until nothing is left. Raises CommandError for a key or sets that are none,
    Refused for an API key that may not read evaluations."""
    sets = _find_sets(request.sets)
    try:
        public_key = public_key_of(load_key(request.key))
    except StatementError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint) from error
    out.print(f"sets: {', '.join(sets)}; signs as {public_key}; Ctrl-C ends it", markup=False)
    serving = asyncio.current_task()
    assert serving is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    left_out: set[int] = set()
    settled = 0
    with suppress(asyncio.CancelledError):
        async with target.mesh_client() as mesh:
            while True:
                waiting = list[dict[str, Any]]()
                try:
                    waiting, newest = await _find_waiting(mesh, sets, left_out, settled)
                    for evaluation in waiting:
                        left_out.add(evaluation["number"])
                        await _evaluate(target, mesh, data, request, sets[evaluation["case_set"]], evaluation)
                except (CaseError, CommandError, MeshError) as error:
                    if isinstance(error, MeshError) and (not isinstance(error, Refused) or error.status in RETRYABLE):
                        out.print(f"the mesh does not answer: {error}; asked again in {POLL_S:.0f} s", markup=False)
                        left_out -= {evaluation["number"] for evaluation in waiting}
                        waiting = []
                    elif not waiting:
                        raise
                    else:
                        out.print(f"evaluation {evaluation['number']} is left out: {error}; {error.hint}", markup=False)
                        # A fault of this machine, as a full disk, says nothing of the evaluation.
                        if not isinstance(error, CommandError) or error.code == Exit.USAGE:
                            with suppress(MeshError):  # It may have its report, or none of this key's is accepted.
                                await _report_failure(mesh, request, evaluation, str(error))
                else:
                    settled = newest
                if request.once and not waiting:
                    return Exit.OK
                await asyncio.sleep(0 if waiting else POLL_S)
    return Exit.OK


def _find_sets(folder: Path) -> dict[str, Path]:
    """Sets by name. Raises CommandError for a folder that has none, or one that cannot be read."""
    sets = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES}
    if not sets:
        raise CommandError(
            Exit.USAGE, f"{folder} has no sets", "put files like answers.jsonl there (docs/how-to/evaluate.md)"
        )
    for path in sets.values():
        check_set_name(path)
        read_cases(path)
    return sets


async def _find_waiting(
    mesh: Mesh, sets: dict[str, Path], left_out: set[int], settled: int
) -> tuple[list[dict[str, Any]], int]:
    """Evaluations after a number that nobody has reported, the oldest first, of sets that are here; and the number of
    the newest that has no gap before it. Those that wait for longer than MAX_WAIT_MS are left to themselves."""
    now_unix_ms = time.time_ns() // 1_000_000
    rows, has_more, since_unix_ms = list[dict[str, Any]](), True, now_unix_ms - MAX_WAIT_MS
    while has_more:
        page = await mesh.evaluations(rows[-1]["evaluation"]["number"] if rows else 0)
        rows += page["evaluations"]
        last = page["evaluations"][-1]["evaluation"] if page["evaluations"] else None
        has_more = (
            page["more"] and last is not None and last["number"] > settled and last["requested_unix_ms"] > since_unix_ms
        )
    waiting = [row["evaluation"] for row in rows if row["report"] is None and row["evaluation"]["case_set"] in sets]
    after = [evaluation for evaluation in reversed(waiting) if evaluation["number"] > settled]
    # One whose request was cut off in the registry is stored when it is repeated, below later numbers.
    requested = [row["evaluation"] for row in rows]
    old = (row["number"] for row in requested if row["requested_unix_ms"] < now_unix_ms - MAX_REPEAT_MS)
    newest = max(old, default=settled)
    return [evaluation for evaluation in after if evaluation["number"] not in left_out], newest


async def _report_failure(mesh: Mesh, request: ServeRequest, evaluation: dict[str, Any], reason: str) -> None:
    """Report that an evaluation could not be made, which no gate lets pass. Raises MeshError."""
    things = EvaluatedThings(
        evaluation["case_set"], evaluation["prompts"], evaluation=evaluation["number"], tenant=evaluation["tenant"]
    )
    made_unix_ms = time.time_ns() // 1_000_000
    statement = build_failure_statement(things, evaluation["release"], reason, made_unix_ms)
    await mesh.report_evaluation(evaluation["number"], sign_statement(statement, load_key(request.key)))


async def _evaluate(
    target: GatewayTarget, mesh: Mesh, data: Path, request: ServeRequest, case_file: Path, evaluation: dict[str, Any]
) -> None:
    """Run one evaluation to its end, and report it. Raises CaseError, MeshError, CommandError."""
    number, case_set = evaluation["number"], evaluation["case_set"]
    cases = read_cases(case_file)
    path = data / EVALS / f"evaluation-{number}-{evaluation['act'][-8:]}"
    run = EvaluationRequest(
        case_file,
        tags=(),
        repetitions=request.repetitions,
        parallel=request.parallel,
        budget_usd_micros=request.budget_usd_micros,
        resume=str(path) if (path / MANIFEST).exists() else "",
        baseline="",
        min_pass=None,
        out=path,
        route="",
        release=evaluation["release"],
        deadline_s=request.deadline_s,
        check=True,
        force_mesh=False,
    )
    folder = open_folder(target, data, run, cases)
    try:
        runs = folder.manifest.run_count
        out.print(f"evaluation {number} ({case_set} on {evaluation['release']}): {runs} runs", markup=False)
        tools = await read_tools(mesh)
        await run_cases(mesh, folder, cases, request.parallel, verbose=False)
        things = EvaluatedThings(case_set, evaluation["prompts"], tools, evaluation=number, tenant=evaluation["tenant"])
        report = build_report(folder)
        envelope = write_statement(report, things, request.key, None, folder.path)
        write_reports(report, folder.path, [], ReportFiles())
    finally:
        folder.close()
    await mesh.report_evaluation(number, envelope)
    passed = report.figures.passed.value if report.figures is not None else 0.0
    out.print(f"evaluation {number}: {passed:.0%} passed; report in {path / 'report.html'}", markup=False)
