"""`bulkhead eval calibrate`: a judge held against people's labels, and its certificate.

In: labelled answers, a judge; a mesh where its jurors are models. Out: figures, a certificate, an exit code.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.drift import package_version
from bulkhead.evaluation.judges.agreement import RateBound
from bulkhead.evaluation.judges.calibration import (
    CalibrationFigures,
    ConfusionTable,
    LabelledAnswers,
    LabelledCase,
    calibrate_judge,
    digest_labelled,
    load_labelled,
)
from bulkhead.evaluation.judges.certificates import DAY_MS, Certificate, SeatedJudge, certificate_path, find_shortcoming
from bulkhead.evaluation.judges.jury import Jury
from bulkhead.evaluation.judges.pairs import PositionBias, build_pair_cases, build_pair_plan, find_position_bias
from bulkhead.evaluation.judges.panels import find_judge
from bulkhead.evaluation.run_folder import RunFolder, RunManifest
from bulkhead.evaluation.runs import AnswerJudges, CaseRuns, Runner, run_all
from bulkhead.evaluation.statistics import Estimate
from bulkhead.text.amounts import format_count, format_time, format_usd
from bulkhead_cli.evaluation.run import BUDGET_USD_MICROS, EVALS, find_run, find_tenant, seat_jury, vote_runner
from bulkhead_cli.models.routes import check_known, routes_of
from bulkhead_cli.models.running import render_interval, run_through
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget

UNDER_CALIBRATION = "it is being calibrated"


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """Request for a calibration. judges: file that declares them. budget_usd_micros: 0 where none is named."""

    labelled: Path
    judge: str
    judges: Path
    out: Path | None
    gate: tuple[float, float]
    parallel: int
    budget_usd_micros: int
    resume: str
    deadline_s: float
    pairs: int


async def run_calibration(
    find_target: Callable[[], GatewayTarget], data: Path, request: CalibrationRequest, *, as_json: bool
) -> Exit:
    """Calibrate, and report. Raises CommandError for files that do not fit and for a budget that does not suffice."""
    try:
        labelled = load_labelled(request.labelled)
        judge = find_judge(request.judges, request.judge)
        seat = SeatedJudge(judge=judge, advice=UNDER_CALIBRATION)
        if judge.jury:
            runs, position = await _judge_on_mesh(find_target(), data, request, labelled, seat, verbose=not as_json)
        else:
            runs, position = await judge_here(labelled, seat), None
        figures = calibrate_judge(labelled, {run.case: run.verdicts[0].passed for run in runs.runs if run.verdicts})
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error
    models = {model for run in runs.runs for verdict in run.verdicts for vote in verdict.votes for model in vote.models}
    now_ms = round(time.time() * 1000)
    certificate = Certificate(
        judge=judge.name,
        judge_sha256=judge.digest,
        dataset=str(request.labelled),
        dataset_sha256=digest_labelled(labelled),
        is_certified=figures.reaches(*request.gate) and not find_shortcoming(figures),
        gate_true_positive=request.gate[0],
        gate_true_negative=request.gate[1],
        models=tuple(sorted(models)),
        figures=figures,
        position=position,
        made_unix_ms=now_ms,
        expires_unix_ms=now_ms + judge.valid_days * DAY_MS,
    )
    if request.out is not None:
        _write_certificate(request.out, certificate)
    if as_json:
        document = certificate.model_dump(mode="json") | {"rates": _rates_json(figures.table)}
        print_json(document | {"spent_usd_micros": runs.spent_usd_micros})
    else:
        _print_certificate(certificate, runs, request.out)
    return Exit.OK if certificate.is_certified else Exit.FAILED


async def judge_here(labelled: Sequence[LabelledCase], seat: SeatedJudge) -> CaseRuns:
    """The verdicts of a judge that asks no model."""
    answers = LabelledAnswers(labelled, seat.judge.name)
    jury = Jury({seat.judge.name: seat}, find_texts=answers.find_texts)
    return await run_all(answers, answers.cases, ("",), repeat=1, limit_usd_micros=1, at_once=1, judges=jury)


async def _judge_on_mesh(
    target: GatewayTarget,
    data: Path,
    request: CalibrationRequest,
    labelled: Sequence[LabelledCase],
    seat: SeatedJudge,
    *,
    verbose: bool,
) -> tuple[CaseRuns, PositionBias | None]:
    """The verdicts of models, and what pairs show of their jurors: all votes in one folder, under one budget. Raises
    CommandError where this does not suffice."""
    judge, answers = seat.judge, LabelledAnswers(labelled, seat.judge.name)
    routes = tuple(dict.fromkeys(juror.route for juror in judge.jury))
    check_known(routes_of(target.data), tuple(filter(None, routes)))
    manifest = RunManifest(
        run=f"calibrate-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}",
        case_file=str(request.labelled),
        began_unix_ms=round(time.time() * 1000),
        made_by=package_version(),
        mesh=target.url,
        tenant=find_tenant(target, data),
        budget_usd_micros=request.budget_usd_micros or BUDGET_USD_MICROS,
        repetitions=1,
        deadline_s=request.deadline_s,
        check=False,
        cases=answers.cases,
        digests={"labelled": digest_labelled(labelled), "judge": judge.digest},
        judges=(seat,),
    )
    folder = _open_folder(data, request, manifest)

    async def make_runs(
        runner: Runner, cases: tuple[EvaluationCase, ...], routes: tuple[str, ...], judges: AnswerJudges | None = None
    ) -> CaseRuns:
        runs = await run_through(
            runner,
            cases,
            routes,
            repeat=1,
            limit_usd_micros=folder.manifest.budget_usd_micros,
            at_once=request.parallel,
            verbose=verbose,
            record=folder,
            judges=judges,
        )
        names = {case.name for case in cases}
        wanted_runs = tuple(run for run in runs.runs if run.case in names)
        if missing := runs.expected_count - len(wanted_runs):
            hint = f"go on with --resume {folder.path} and more money in --budget-usd; what is voted is not paid again"
            spent = format_usd(runs.spent_usd_micros)
            problem = f"{format_count(missing, 'answer')} not judged: {spent} is spent"
            raise CommandError(Exit.FAILED, problem, hint, name="evaluation")
        return replace(runs, runs=wanted_runs)

    try:
        if verbose:
            err.print(f"votes are kept in {folder.path}; --resume {folder.path} goes on with them", markup=False)
        async with target.mesh_client() as mesh:
            seats = {judge.name: seat}
            verdicts = await make_runs(
                answers, answers.cases, ("",), seat_jury(mesh, seats, request.deadline_s, answers.find_texts)
            )
            pairs = build_pair_cases(labelled, request.pairs)
            if not pairs:
                return verdicts, None
            voters = vote_runner(mesh, partial(build_pair_plan, judge), request.deadline_s)
            preferences = await make_runs(voters, pairs, routes)
            bias = find_position_bias(preferences.runs)
            return replace(verdicts, spent_usd_micros=preferences.spent_usd_micros), bias
    finally:
        folder.close()


def _open_folder(data: Path, request: CalibrationRequest, manifest: RunManifest) -> RunFolder:
    """The folder of the votes. Raises CaseError for one of other answers, another judge, mesh or tenant."""
    if not request.resume:
        return RunFolder.create(data / EVALS / manifest.run, manifest)
    folder = RunFolder.open(find_run(data, request.resume), may_write=True)
    begun = folder.manifest
    if (begun.digests, begun.mesh, begun.tenant) != (manifest.digests, manifest.mesh, manifest.tenant):
        folder.close()
        problem = f"{begun.run} was begun with other labelled answers, another judge, mesh or tenant"
        raise CaseError(problem, "resume it as it was begun, or begin anew without --resume")
    update = {"budget_usd_micros": request.budget_usd_micros or begun.budget_usd_micros}
    folder.change_manifest(begun.model_copy(update=update))
    return folder


def _write_certificate(path: Path, certificate: Certificate) -> None:
    try:
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_text(certificate.model_dump_json(indent=1) + "\n")
        fresh.replace(path)
    except OSError as error:
        raise CommandError(
            Exit.FAILED, f"{path} cannot be written: {error.strerror}", "name another file with --out"
        ) from error


def _rates_json(table: ConfusionTable) -> Mapping[str, Any]:
    return {"true_positive": asdict(table.true_positive), "true_negative": asdict(table.true_negative)}


def describe_calibration(figures: CalibrationFigures) -> list[str]:
    """The figures in lines of text."""
    table = figures.table

    def render_rate(rate: RateBound) -> str:
        return f"{rate.value:.1%} of {rate.count}, at least {rate.low:.1%}"

    def render_figure(estimate: Estimate | None) -> str:
        return render_interval(estimate, "{:.2f}".format)

    lines = [
        f"{format_count(figures.cases, 'labelled answer')}; of {figures.disputed} the labellers differ, and no rate "
        "counts them",
        f"{'label':<8}{'passes':>8}{'fails':>8}{'abstains':>10}",
        f"{'good':<8}{table.good_passed:>8}{table.good_failed:>8}{table.good_abstained:>10}",
        f"{'bad':<8}{table.bad_passed:>8}{table.bad_failed:>8}{table.bad_abstained:>10}",
        f"good answers that pass: {render_rate(table.true_positive)}",
        f"bad answers that fail: {render_rate(table.true_negative)} (Clopper-Pearson, one-sided 95 %)",
        f"Cohen's kappa with the label: {render_figure(figures.kappa)}",
        f"Krippendorff's alpha with the labellers: {render_figure(figures.alpha)}; of the labellers alone: "
        f"{render_figure(figures.labellers_alpha)} (bootstrap, 95 %)",
    ]
    if figures.length is not None:
        bias = figures.length
        finding = "a bias" if bias.is_shown else "no bias shown"
        lines.append(
            f"longer answers of the same label pass {bias.difference:+.1%}: {finding} (permutation test, "
            f"p = {bias.p_value:.3f})"
        )
    for tag, row in figures.by_tag.items():
        lines.append(f"  {tag}: good {render_rate(row.true_positive)}; bad {render_rate(row.true_negative)}")
    return lines


def _print_certificate(certificate: Certificate, runs: CaseRuns, path: Path | None) -> None:
    out.print(f"judge {certificate.judge} ({certificate.judge_sha256[:12]})", markup=False)
    for line in describe_calibration(certificate.figures):
        out.print(line, markup=False)
    if (bias := certificate.position) is not None:
        undecided = bias.pairs - bias.right - bias.wrong - bias.first - bias.second
        out.print(
            f"{format_count(bias.pairs, 'pair')} in both orders: the good answer {bias.right} times, the bad one "
            f"{bias.wrong}, the first place {bias.first}, the second {bias.second}, undecided {undecided}",
            markup=False,
        )
    if runs.spent_usd_micros:
        out.print(f"votes cost {format_usd(runs.spent_usd_micros)}", markup=False)
    gate = f"{certificate.gate_true_positive:.0%} and {certificate.gate_true_negative:.0%}"
    if certificate.is_certified:
        until = format_time(certificate.expires_unix_ms)
        out.print(f"certified until {until}: both lower bounds reach {gate}", style="green", markup=False)
    else:
        lack = find_shortcoming(certificate.figures) or f"the lower bounds do not both reach {gate}"
        out.print(f"not certified: {lack}", style="red", markup=False)
    if path is not None:
        place = certificate_path(Path(), certificate.judge)
        out.print(f"certificate in {path}; a set reads it as {place} beside its cases", markup=False)
