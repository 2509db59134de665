"""Report of one run, alone or against an earlier one. In: run folders. Out: figures, and cases, the worst first. Pure.

Only cases whose text, checks and files are the same in both runs are compared.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

from bulkhead.evaluation.cases import EvaluationCase
from bulkhead.evaluation.comparison import (
    GroupDifference,
    GroupFigures,
    difference_json,
    figures_json,
    group_difference,
    group_figures,
)
from bulkhead.evaluation.judges.agreement import corrected_share
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.run_folder import RunFolder, RunManifest
from bulkhead.evaluation.runs import CaseRun, CaseRuns
from bulkhead.evaluation.statistics import Estimate, effective_runs, share_estimate

Change = Literal["worse", "better", "same", "new"]
_ORDER: dict[Change, int] = {"worse": 0, "new": 1, "same": 1, "better": 2}


@dataclass(frozen=True, slots=True)
class CaseReport:
    """One case. runs: of this run; before: of the baseline, () where it has none that can be compared."""

    case: EvaluationCase
    runs: tuple[CaseRun, ...]
    before: tuple[CaseRun, ...] = ()

    @property
    def share(self) -> float:
        """Share of its runs that passed; 0 of none."""
        return _passed_share(self.runs)

    @property
    def change(self) -> Change:
        """The change of this share since the baseline."""
        if not self.before or not self.runs:
            return "new"
        difference = self.share - _passed_share(self.before)
        return "worse" if difference < 0 else "better" if difference > 0 else "same"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons for which runs did not pass, each once."""
        return tuple(
            dict.fromkeys(
                reason for run in self.runs if not run.has_passed for reason in run.failed or (run.outcome.code,)
            )
        )


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """Verdicts of one judge. passed: their share, as the judge says it; corrected: for its errors, None where it has no
    certificate of its definition, or is no better than chance. advice: why it fails no case."""

    name: str
    verdicts: int
    abstained: int
    advised: int
    passed: Estimate | None
    corrected: Estimate | None
    advice: str


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """A run. figures: None while it has no runs; by_tag: the same of each tag's cases. difference: from the baseline.
    incomparable: cases of both runs that are not the same in them."""

    manifest: RunManifest
    totals: CaseRuns
    figures: GroupFigures | None
    by_tag: tuple[GroupFigures, ...]
    cases: tuple[CaseReport, ...]
    baseline: RunManifest | None = None
    difference: GroupDifference | None = None
    difference_by_tag: tuple[GroupDifference, ...] = ()
    incomparable: tuple[str, ...] = ()
    judges: tuple[JudgeFigures, ...] = ()


def build_report(folder: RunFolder, baseline: RunFolder | None = None) -> EvaluationReport:
    """The report of what a folder has."""
    manifest, totals = folder.manifest, folder.runs
    by_case = _group_by_case(totals.runs)
    cases = manifest.cases
    if baseline is None:
        before, incomparable = dict[str, tuple[CaseRun, ...]](), tuple[str, ...]()
    else:
        earlier = baseline.manifest.digests
        same = {name for name, digest in manifest.digests.items() if earlier.get(name) == digest}
        incomparable = tuple(name for name in manifest.digests if name in earlier and name not in same)
        before = {name: runs for name, runs in _group_by_case(baseline.runs.runs).items() if name in same}
    reports = [CaseReport(case, by_case.get(case.name, ()), before.get(case.name, ())) for case in cases]
    reports.sort(key=lambda report: (_ORDER[report.change], report.share, report.case.name))
    tags = {tag: {case.name for case in cases if tag in case.tags} for case in cases for tag in case.tags}
    groups = [(tag, [run for run in totals.runs if run.case in names]) for tag, names in sorted(tags.items())]
    report = EvaluationReport(
        manifest,
        totals,
        group_figures(manifest.run, totals.runs) if totals.runs else None,
        tuple(group_figures(tag, runs) for tag, runs in groups if runs),
        tuple(reports),
        judges=tuple(_judge_figures(seat, totals.runs) for seat in manifest.judges),
    )
    if baseline is None:
        return report
    earlier_runs = [run for runs in before.values() for run in runs]
    against = baseline.manifest.run

    def difference_of_tag(tag: str, runs: Sequence[CaseRun]) -> GroupDifference:
        return group_difference(against, [run for run in earlier_runs if run.case in tags[tag]], tag, runs)

    return replace(
        report,
        baseline=baseline.manifest,
        difference=group_difference(against, earlier_runs, manifest.run, totals.runs),
        difference_by_tag=tuple(difference_of_tag(tag, runs) for tag, runs in groups if runs),
        incomparable=incomparable,
    )


def _judge_figures(seat: SeatedJudge, runs: Sequence[CaseRun]) -> JudgeFigures:
    verdicts = [(run.case, row) for run in runs for row in run.verdicts if row.judge == seat.judge.name]
    by_case: dict[str, list[float]] = {}
    for case, verdict in verdicts:
        if verdict.passed is not None:
            by_case.setdefault(case, []).append(float(verdict.passed))
    passed, corrected = share_estimate(by_case) if by_case else None, None
    certificate = seat.certificate
    if passed is not None and certificate is not None and certificate.judge_sha256 == seat.judge.digest:
        rates = certificate.figures.table.voting_rates
        corrected = corrected_share(passed.value, effective_runs(by_case), *rates)
    return JudgeFigures(
        seat.judge.name,
        len(verdicts),
        sum(verdict.passed is None for _, verdict in verdicts),
        sum(bool(verdict.advice) for _, verdict in verdicts),
        passed,
        corrected,
        seat.advice,
    )


def find_problems(report: EvaluationReport, min_pass: float | None) -> list[str]:
    """Reasons for which a release should not stand on this run; [] for none."""
    problems = []
    totals = report.totals
    if not totals.is_complete:
        missing = f"{totals.expected_count - len(totals.runs)} of {totals.expected_count} runs not made"
        problems.append(f"{missing}: go on with --resume, and with more money in --budget-usd")
    if report.figures is not None and min_pass is not None and report.figures.passed.value < min_pass:
        problems.append(f"{report.figures.passed.value:.1%} of the runs pass, less than {min_pass:.1%}")
    if report.difference is not None and report.difference.verdict == "worse":
        test = report.difference.test
        assert test is not None
        problems.append(f"worse than {report.difference.against} ({test.name}, p = {test.p_value:.3g})")
    return problems


def _group_by_case(runs: Sequence[CaseRun]) -> dict[str, tuple[CaseRun, ...]]:
    by_case: dict[str, list[CaseRun]] = {}
    for run in runs:
        by_case.setdefault(run.case, []).append(run)
    return {name: tuple(sorted(rows, key=lambda run: run.repetition)) for name, rows in by_case.items()}


def _passed_share(runs: Sequence[CaseRun]) -> float:
    return fmean(run.has_passed for run in runs) if runs else 0.0


def report_json(report: EvaluationReport) -> dict[str, Any]:
    """The report for programs."""
    manifest = report.manifest
    return {
        "run": manifest.run,
        "set": manifest.case_file,
        "release": manifest.release,
        "route": manifest.route,
        "began_unix_ms": manifest.began_unix_ms,
        "runs": len(report.totals.runs),
        "runs_wanted": report.totals.expected_count,
        "spent_usd_micros": report.totals.spent_usd_micros,
        "figures": figures_json(report.figures) if report.figures is not None else None,
        "tags": [figures_json(figures) for figures in report.by_tag],
        "baseline": report.baseline.run if report.baseline is not None else None,
        "difference": difference_json(report.difference) if report.difference is not None else None,
        "difference_by_tag": [difference_json(difference) for difference in report.difference_by_tag],
        "incomparable": list(report.incomparable),
        "judges": [asdict(figures) for figures in report.judges],
        "cases": [_case_json(case) for case in report.cases],
    }


def _case_json(case: CaseReport) -> dict[str, Any]:
    return {
        "name": case.case.name,
        "tags": list(case.case.tags),
        "change": case.change,
        "passed": case.share,
        "passed_before": _passed_share(case.before) if case.before else None,
        "runs": [run_json(run) for run in case.runs],
    }


def run_json(run: CaseRun) -> dict[str, Any]:
    """One run for programs, without its text."""
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
        "verdicts": [asdict(verdict) for verdict in run.verdicts],
        "standing": outcome.standing,
        "latency_ms": outcome.latency_ms,
        "first_token_ms": outcome.first_token_ms,
        "cost_usd_micros": outcome.cost_usd_micros,
        "tokens": outcome.tokens,
        "models": list(outcome.models),
    }
