"""The statement of a run: what was evaluated, and what came of it. Pure.

In: a report, digests of what the mesh had then. Out: a statement, to be signed; its texts are cut, without keys and
personal data.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead.evaluation.reports.report import CaseReport, EvaluationReport, find_problems
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead_contracts import bounds
from bulkhead_contracts.evaluation import (
    DATASETS,
    IMAGES,
    PROMPTS,
    TOOLS,
    BaselineComparison,
    EvaluationPredicate,
    EvaluationStatement,
    FailedCase,
    StatementSubject,
    SubjectDigest,
)

MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class EvaluatedThings:
    """Digests by name of what was evaluated. evaluation: number of the request, 0 without one. tenant:
    of the request."""

    case_set: str
    prompts: Mapping[str, str]
    tools: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    evaluation: int = 0
    tenant: str = ""


def digest_document(document: Any) -> str:
    """SHA-256 of a document in canonical form."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def build_statement(
    report: EvaluationReport, things: EvaluatedThings, *, min_pass: float | None, made_unix_ms: int
) -> EvaluationStatement:
    """The statement of a run."""
    manifest, figures = report.manifest, report.figures
    datasets = {things.case_set: digest_document(manifest.digests)}
    kinds = ((PROMPTS, things.prompts), (DATASETS, datasets), (TOOLS, things.tools), (IMAGES, things.images))
    failed = [case for case in report.cases if case.share < 1]
    return EvaluationStatement(
        subject=_list_subjects(kinds),
        predicate=EvaluationPredicate(
            tenant=things.tenant,
            evaluation=things.evaluation,
            case_set=things.case_set,
            release=manifest.release if "." in manifest.release else "",
            models=figures.models if figures is not None else (),
            judges=tuple(f"{seat.judge.name}@{seat.digest}" for seat in manifest.judges),
            cases=len(report.cases),
            runs=len(report.totals.runs),
            expected_runs=report.totals.expected_count,
            passed=figures.passed.value if figures is not None else 0.0,
            low=figures.passed.low if figures is not None else None,
            high=figures.passed.high if figures is not None else None,
            min_pass=min_pass,
            problems=tuple(_cut(problem) for problem in find_problems(report, min_pass)[:MAX_LISTED]),
            failed=tuple(_describe_case(case) for case in failed[: bounds.MAX_FAILED_CASES]),
            failed_count=len(failed),
            baseline=_compare_with_baseline(report),
            spent_usd_micros=report.totals.spent_usd_micros,
            made_unix_ms=made_unix_ms,
            made_by=f"bulkhead {manifest.made_by}".strip(),
        ),
    )


def build_failure_statement(
    things: EvaluatedThings, release: str, reason: str, made_unix_ms: int
) -> EvaluationStatement:
    """The statement of an evaluation that could not be made."""
    return EvaluationStatement(
        subject=_list_subjects(((PROMPTS, things.prompts),)),
        predicate=EvaluationPredicate(
            tenant=things.tenant,
            evaluation=things.evaluation,
            case_set=things.case_set,
            release=release,
            cases=0,
            runs=0,
            expected_runs=0,
            passed=0.0,
            problems=(_cut(f"it could not be evaluated: {reason}"),),
            made_unix_ms=made_unix_ms,
        ),
    )


def _list_subjects(kinds: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[StatementSubject, ...]:
    return tuple(
        StatementSubject(name=f"{kind}{name}", digest=SubjectDigest(sha256=sha256))
        for kind, digests in kinds
        for name, sha256 in sorted(digests.items())
    )


def _describe_case(report: CaseReport) -> FailedCase:
    fallen = [run for run in report.runs if not run.has_passed]
    texts = (run.outcome.answer.plain_text for run in fallen if run.outcome.answer is not None)
    return FailedCase(
        case=report.case.name,
        passed=report.share,
        objective=_cut(report.case.objective),
        expected=_cut(" / ".join(report.case.references) or "; ".join(str(check) for check in report.case.checks)),
        got=_cut(next(texts, "")),
        reasons=tuple(_cut(reason) for reason in report.reasons[:MAX_LISTED]),
        tasks=tuple(run.outcome.task for run in fallen[:MAX_LISTED]),
    )


def _compare_with_baseline(report: EvaluationReport) -> BaselineComparison | None:
    difference = report.difference
    if difference is None:
        return None
    return BaselineComparison(
        run=difference.against,
        verdict=difference.verdict,
        difference=difference.passed.value if difference.passed is not None else None,
        p_value=difference.test.p_value if difference.test is not None else None,
    )


def _cut(text: str) -> str:
    return without_sensitive(text)[: bounds.MAX_EXCERPT_CHARS]
