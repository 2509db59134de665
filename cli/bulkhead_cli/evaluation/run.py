"""`bulkhead eval run` and `compare`: a set as tasks of a mesh, kept in a folder, and reports of it.

In: a target, a set, an earlier run. Out: files in the run's folder, a summary or JSON, an exit code.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh
from bulkhead.evaluation.cases import CaseDigests, CaseError, EvaluationCase, digest_cases
from bulkhead.evaluation.drift import package_version
from bulkhead.evaluation.judges.certificates import SeatedJudge, seat_judges
from bulkhead.evaluation.judges.jury import Jury, build_vote_plan, read_documents
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.python_checks import load_python_checks
from bulkhead.evaluation.reports.html import render_html
from bulkhead.evaluation.reports.inspect_log import build_inspect_log, log_file_name
from bulkhead.evaluation.reports.junit import render_junit
from bulkhead.evaluation.reports.report import EvaluationReport, build_report, find_problems, report_json
from bulkhead.evaluation.reports.statement import EvaluatedThings
from bulkhead.evaluation.run_folder import RunFolder, RunManifest
from bulkhead.prompts.trial import list_reading
from bulkhead.text.amounts import format_count, format_duration, format_usd
from bulkhead_cli.evaluation.sets import print_standings
from bulkhead_cli.evaluation.statements import StatementRequest, check_request, read_things, write_statement
from bulkhead_cli.models.routes import check_known, routes_of
from bulkhead_cli.models.running import add_case_documents, read_cases, render_interval, render_money, run_through
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import API_KEYS_FILE, GatewayTarget, read_json

FEATURE = "eval"
EVALS = "evals"
BUDGET_USD_MICROS = 1_000_000
"""Budget of a run whose request names none."""
SHOWN_CASES = 12


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Request for an evaluation. budget_usd_micros: 0 where none is named. min_pass: share of the runs that has to
    pass. force_mesh: go on where the run was not begun. statement: None for a run that nobody signs."""

    case_file: Path
    tags: tuple[str, ...]
    repetitions: int
    parallel: int
    budget_usd_micros: int
    resume: str
    baseline: str
    min_pass: float | None
    out: Path | None
    route: str
    release: str
    deadline_s: float
    check: bool
    force_mesh: bool
    statement: StatementRequest | None = None


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Files of a report that are wanted beside those in the run's folder."""

    html: Path | None = None
    junit: Path | None = None


async def run_evaluation(
    target: GatewayTarget, data: Path, request: EvaluationRequest, files: ReportFiles, *, as_json: bool
) -> Exit:
    """Run, or go on with a run, and report. Raises CommandError for a set or a folder that does not fit."""
    if request.statement is not None:
        check_request(request.case_file, request.statement)
    try:
        cases = _tagged_cases(read_cases(request.case_file), request)
        if request.route:
            check_known(routes_of(target.data), (request.route,))
        baseline = RunFolder.open(find_run(data, request.baseline)) if request.baseline else None
        folder = open_folder(target, data, request, cases)
        try:
            things = await _run_folder(target, folder, cases, request, verbose=not as_json)
            if request.statement is not None and things is not None:
                report = build_report(folder, baseline)
                write_statement(report, things, request.statement.key, request.min_pass, folder.path)
            return _report(folder, baseline, request.min_pass, files, as_json=as_json)
        finally:
            folder.close()
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error


def compare_evaluations(data: Path, baseline: str, run: str, files: ReportFiles, *, as_json: bool) -> Exit:
    """Report a run against another. Raises CommandError for a folder that has none."""
    try:
        earlier, later = (RunFolder.open(find_run(data, name)) for name in (baseline, run))
        return _report(later, earlier, None, files, as_json=as_json)
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error


def find_run(data: Path, run: str) -> Path:
    """The folder of a run that is named by its id or by its folder."""
    below = data / EVALS / run
    return below if "/" not in run and below.is_dir() else Path(run)


def _tagged_cases(cases: tuple[EvaluationCase, ...], request: EvaluationRequest) -> tuple[EvaluationCase, ...]:
    """The cases that have one of the tags. Raises CommandError for a tag that no case has."""
    known_tags = sorted({tag for case in cases for tag in case.tags})
    if unknown := [tag for tag in request.tags if tag not in known_tags]:
        hint = f"there are: {', '.join(known_tags) or 'none'}"
        raise CommandError(Exit.USAGE, f"no case of {request.case_file} has the tag {unknown[0][:80]}", hint)
    return tuple(case for case in cases if not request.tags or {*request.tags} & {*case.tags})


def open_folder(
    target: GatewayTarget, data: Path, request: EvaluationRequest, cases: tuple[EvaluationCase, ...]
) -> RunFolder:
    """A new folder, or the one that is resumed. Raises CaseError, CommandError."""
    seats = seat_judges(request.case_file, cases, round(time.time() * 1000))
    jurors = {juror.route for seat in seats.values() for juror in seat.judge.jury}
    check_known(routes_of(target.data), tuple(sorted(jurors - {""})))
    print_standings(seats.values(), err)
    digests = digest_cases(cases, {name: seat.digest for name, seat in seats.items()})
    # Before anything is paid: a check that cannot be loaded judges nothing.
    load_python_checks(cases)
    tenant = find_tenant(target, data)
    if request.resume:
        folder = RunFolder.open(find_run(data, request.resume), may_write=True)
        try:
            _go_on(target, tenant, folder, request, cases, digests, seats)
        except BaseException:
            folder.close()
            raise
        return folder
    now_s = time.time()
    run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now_s))}-{secrets.token_hex(2)}"
    manifest = RunManifest(
        run=run,
        case_file=str(request.case_file),
        began_unix_ms=round(now_s * 1000),
        made_by=package_version(),
        mesh=target.url,
        tenant=tenant,
        budget_usd_micros=request.budget_usd_micros or BUDGET_USD_MICROS,
        release=request.release,
        route=request.route,
        repetitions=request.repetitions,
        deadline_s=request.deadline_s,
        check=request.check,
        cases=cases,
        digests=digests.wholes,
        inputs=digests.inputs,
        judges=tuple(seats.values()),
    )
    return RunFolder.create(request.out or data / EVALS / run, manifest)


def find_tenant(target: GatewayTarget, data: Path) -> str:
    """The tenant of the key where DIR knows it; else the key's digest, and of tokens, which change, no more than that
    it is one."""
    digest = hashlib.sha256(target.api_key.encode()).hexdigest()
    rows = read_json(data / API_KEYS_FILE).get("keys", ())
    unnamed = "token" if target.api_key.count(".") == 2 else f"key {digest[:16]}"
    return next((str(row["tenant"]) for row in rows if row["sha256"] == digest), unnamed)


def _go_on(
    target: GatewayTarget,
    tenant: str,
    folder: RunFolder,
    request: EvaluationRequest,
    cases: tuple[EvaluationCase, ...],
    digests: CaseDigests,
    seats: Mapping[str, SeatedJudge],
) -> None:
    """Hold a run that began before to the request, and judge by its checks. Raises CaseError for other inputs, and for
    another mesh or tenant, which knows none of its tasks and would be paid for them again."""
    manifest = folder.manifest
    begun, now = (manifest.mesh.rstrip("/"), manifest.tenant), (target.url.rstrip("/"), tenant)
    if begun != now and not request.force_mesh:
        places = [f"{url} as {name or 'an unknown tenant'}" for url, name in (begun, now)]
        raise CaseError(
            f"run {manifest.run} was begun on {places[0]}, and this is {places[1]}",
            "name that mesh and tenant with --url, --api-key, --data and --tenant; --force-mesh goes on here, where "
            "tasks that have not ended there are paid once more",
        )
    if manifest.inputs != digests.inputs:
        raise CaseError(
            f"{request.case_file} is not what run {manifest.run} was begun with",
            "resume with the same cases, inputs, documents, references and tags, or start a new run; only checks may "
            "be changed",
        )
    update: dict[str, object] = {"cases": cases, "digests": digests.wholes, "mesh": target.url, "tenant": tenant}
    update["judges"] = tuple(seats.values())
    update["budget_usd_micros"] = request.budget_usd_micros or manifest.budget_usd_micros or BUDGET_USD_MICROS
    if count := folder.change_manifest(manifest.model_copy(update=update)):
        err.print(f"the checks were changed: {format_count(count, 'run')} to be judged again", markup=False)


async def _run_folder(
    target: GatewayTarget,
    folder: RunFolder,
    cases: tuple[EvaluationCase, ...],
    request: EvaluationRequest,
    *,
    verbose: bool,
) -> EvaluatedThings | None:
    """Make the runs that are not made; digests of what they ran on where these are wanted. Raises CommandError."""
    manifest, things = folder.manifest, None
    if verbose:
        state = f", {len(folder.finished)} of {manifest.run_count} runs are made" if request.resume else ""
        err.print(f"run {manifest.run} in {folder.path}{state}; --resume {folder.path} goes on with it", markup=False)
    async with target.mesh_client() as mesh:
        if request.statement is not None:
            case_set = request.case_file.stem
            things = await read_things(mesh, case_set, manifest.release, request.statement.images)
        await run_cases(mesh, folder, cases, request.parallel, verbose=verbose)
        if request.statement is not None and things != await read_things(
            mesh, case_set, manifest.release, request.statement.images
        ):
            reason = "prompts or tools of the mesh were changed while the set ran"
            raise CommandError(Exit.FAILED, reason, "run it again: a statement is of one state of the mesh")
    return things


async def run_cases(
    mesh: Mesh, folder: RunFolder, cases: tuple[EvaluationCase, ...], parallel: int, *, verbose: bool
) -> None:
    """Make the runs of a folder that are not made. Raises CommandError, MeshError."""
    manifest = folder.manifest
    tools = await _reading_tools(mesh) if manifest.release else ()
    await add_case_documents(mesh, cases, verbose=verbose)
    runner = MeshRunner(
        mesh,
        feature=FEATURE,
        deadline_s=manifest.deadline_s,
        check=manifest.check,
        leaves_running=True,
        reads_calls=True,
        release=manifest.release,
        tools=tools,
    )
    await run_through(
        runner,
        cases,
        (manifest.route,),
        repeat=manifest.repetitions,
        limit_usd_micros=manifest.budget_usd_micros,
        at_once=parallel,
        verbose=verbose,
        record=folder,
        judges=seat_jury(mesh, {seat.judge.name: seat for seat in manifest.judges}, manifest.deadline_s),
    )


async def _reading_tools(mesh: Mesh) -> tuple[str, ...]:
    """Tools for prompts that do not stand in production: those that only read. Raises CommandError, MeshError."""
    rows = (await mesh.tools()).model_dump(mode="json")["tools"]
    tools = list_reading(rows)
    if rows and not tools:
        # A task that names none gets those that write by default.
        hint = "run without --release, or give the tenant a tool that only reads"
        raise CommandError(Exit.USAGE, "all tools of the tenant change something", hint)
    return tuple(tools)


def seat_jury(
    mesh: Mesh,
    seats: Mapping[str, SeatedJudge],
    deadline_s: float,
    find_texts: Callable[[EvaluationCase], Mapping[str, str]] = read_documents,
) -> Jury:
    """Judges whose votes are tasks of the mesh."""
    return Jury(seats, vote_runner(mesh, partial(build_vote_plan, seats), deadline_s), find_texts)


def vote_runner(mesh: Mesh, plan_of: Callable[[EvaluationCase], Mapping[str, Any]], deadline_s: float) -> MeshRunner:
    """A runner of votes, which neither the planner plans nor the checker judges."""
    return MeshRunner(mesh, feature=FEATURE, deadline_s=deadline_s, plan_of=plan_of, check=False, leaves_running=True)


def _report(
    folder: RunFolder, baseline: RunFolder | None, min_pass: float | None, files: ReportFiles, *, as_json: bool
) -> Exit:
    report = build_report(folder, baseline)
    problems = find_problems(report, min_pass)
    document = write_reports(report, folder.path, problems, files)
    if as_json:
        print_json(document)
    else:
        _print_report(report, folder.path, problems)
    return Exit.FAILED if problems else Exit.OK


def write_reports(report: EvaluationReport, folder: Path, problems: list[str], files: ReportFiles) -> dict[str, Any]:
    """Write the reports of a run into its folder; returns the one for programs. Raises CommandError."""
    document = report_json(report) | {"problems": problems, "folder": str(folder)}
    page, junit = render_html(report, problems), render_junit(report)
    log = build_inspect_log(report, round(time.time() * 1000))
    texts = {
        folder / "report.json": json.dumps(document, indent=1, ensure_ascii=False),
        folder / "report.html": page,
        folder / "junit.xml": junit,
        folder / log_file_name(report): json.dumps(log, indent=1),
    }
    texts |= {path: text for path, text in ((files.html, page), (files.junit, junit)) if path is not None}
    for path, text in texts.items():
        try:
            path.write_text(text, errors="replace")
        except OSError as error:
            hint = "name another file; the runs are kept"
            raise CommandError(Exit.FAILED, f"{path} cannot be written: {error.strerror}", hint) from error
    return document


def _print_report(report: EvaluationReport, folder: Path, problems: list[str]) -> None:
    if report.figures is not None:
        figures = report.figures
        passed = render_interval(figures.passed, "{:.0%}".format)
        latency = render_interval(figures.latency_p50_ms, format_duration)
        cost = render_interval(figures.cost_usd_micros, render_money)
        out.print(f"passed {passed} of {format_count(figures.runs, 'run')}", markup=False)
        spent = format_usd(report.totals.spent_usd_micros)
        out.print(f"latency p50 {latency}; cost of a run {cost}, of all {spent}", markup=False)
    for figures in report.by_tag:
        passed = render_interval(figures.passed, "{:.0%}".format)
        out.print(f"  {figures.name}: passed {passed} of {format_count(figures.runs, 'run')}", markup=False)
    for judge in report.judges:
        shares = [render_interval(share, "{:.0%}".format) for share in (judge.passed, judge.corrected)]
        state = f"passed {shares[0]} of {format_count(judge.verdicts, 'answer')}, corrected for its errors {shares[1]}"
        out.print(f"judge {judge.name}: {state}{' (advice)' if judge.advice else ''}", markup=False)
    if report.difference is not None:
        difference, test = report.difference, report.difference.test
        reason = f" ({test.name}, p = {test.p_value:.3g})" if test is not None else ": no case is the same in both"
        shift = render_interval(difference.passed, "{:+.0%}".format)
        out.print(f"minus {difference.against}: passed {shift}: {difference.verdict}{reason}", markup=False)
    if report.incomparable:
        out.print(f"changed since, and not compared: {', '.join(report.incomparable)}", markup=False)
    failed = [case for case in report.cases if case.runs and case.share < 1]
    for case in failed[:SHOWN_CASES]:
        note = " (worse)" if case.change == "worse" else ""
        reasons = "; ".join(case.reasons)
        out.print(f"  {case.case.name}: {case.share:.0%}{note}: {reasons}", style="yellow", markup=False)
    if len(failed) > SHOWN_CASES:
        out.print(f"  and {format_count(len(failed) - SHOWN_CASES, 'case')} more", style="dim", markup=False)
    for problem in problems:
        out.print(problem, style="red", markup=False)
    out.print(f"report in {folder / 'report.html'}; `inspect view --log-dir {folder}` opens the log", markup=False)
