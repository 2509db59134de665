"""Drift of a route: answers to the same few questions, against a baseline that was stored.

In: runs, and the file of an earlier time. Out: what has changed since. An answer that is worded otherwise is none: its
digest differs, its checks and most of its words hold.
"""

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bulkhead.evaluation.cases import CaseError, EvaluationCase, load_cases
from bulkhead.evaluation.runs import CaseRun
from bulkhead_contracts import bounds

PROBE = Path(__file__).parent / "probe.yaml"
"""Questions that need no document, with checks that a model of any size may pass or not."""
ALIKE = 0.5
"""Share of words that two answers have in common, in order (difflib); below it they are different answers."""
HINT = "make a new baseline with --update when the change is meant"

Change = Literal["check", "answer", "model", "questions", "no_answer"]


class BaselineAnswer(BaseModel):
    """One answer. objective_sha256: of the question. answer: cut, for the comparison."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    objective_sha256: str
    sha256: str
    answer: str
    passed: bool
    models: tuple[str, ...] = ()


class Baseline(BaseModel):
    """Answers by route and question. made_by: the version whose prompts they rest on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    form: Literal[1] = 1
    made_unix_ms: int
    made_by: str = ""
    routes: dict[str, dict[str, BaselineAnswer]]


@dataclass(frozen=True, slots=True)
class Drift:
    """One change of a route since its baseline. drifted: it is to be looked at; otherwise it is only told."""

    route: str
    question: str
    change: Change
    what: str
    drifted: bool = True


def probe_questions(path: Path | None) -> tuple[EvaluationCase, ...]:
    """The probe's own questions, or those of a file. Raises CaseError."""
    return load_cases(path or PROBE)


def read_baseline(path: Path) -> Baseline | None:
    """The baseline in a file; None where there is no file. Raises CaseError."""
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}", "name the file that holds the baseline") from error
    except ValidationError as error:
        raise CaseError(
            f"{path} holds no baseline", "name another file, or write this one anew with --update"
        ) from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Replace the file. Raises CaseError."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(baseline.model_dump_json(indent=1) + "\n")
        fresh.replace(path)
    except OSError as error:
        raise CaseError(f"{path} cannot be written: {error.strerror}", "name a place for the baseline") from error


def build_baseline(runs: Iterable[CaseRun], cases: Iterable[EvaluationCase], now_unix_ms: int) -> Baseline:
    """A baseline of the runs that have an answer."""
    by_name, routes = {case.name: case for case in cases}, dict[str, dict[str, BaselineAnswer]]()
    for run in runs:
        if run.outcome.answer is not None:
            text = run.outcome.answer.plain_text
            answer = BaselineAnswer(
                objective_sha256=_text_digest(by_name[run.case].objective),
                sha256=_text_digest(text),
                answer=text[: bounds.MAX_REASON_CHARS],
                passed=run.has_passed,
                models=run.outcome.models,
            )
            routes.setdefault(run.route, {})[run.case] = answer
    return Baseline(made_unix_ms=now_unix_ms, made_by=package_version(), routes=routes)


def find_drifts(before: Baseline, now: Baseline, runs: Iterable[CaseRun]) -> list[Drift]:
    """Changes since the baseline, in the order of the runs; routes and questions that it lacks are told as such."""
    drifts = []
    for run in runs:
        old, new = (baseline.routes.get(run.route, {}).get(run.case) for baseline in (before, now))
        if new is None:
            reason = f"no answer: {run.outcome.code}, see `bulkhead why {run.outcome.task}`"
            drifts.append(Drift(run.route, run.case, "no_answer", reason))
        elif old is None or old.objective_sha256 != new.objective_sha256:
            drifts.append(Drift(run.route, run.case, "questions", f"the baseline lacks this question; {HINT}"))
        else:
            drifts += _answer_drifts(run, old, new)
    return drifts


def _answer_drifts(run: CaseRun, old: BaselineAnswer, new: BaselineAnswer) -> list[Drift]:
    drifts, subject = [], (run.route, run.case)
    if old.models and new.models and old.models != new.models:
        change = f"another model answers: {', '.join(new.models)}, and it was {', '.join(old.models)}; {HINT}"
        drifts.append(Drift(*subject, "model", change))
    if old.passed and not new.passed:
        drifts.append(Drift(*subject, "check", f"passed before, and fails now: {'; '.join(run.failed)}"))
    if old.sha256 != new.sha256:
        alike = word_similarity(old.answer, new.answer)
        change = f"{alike:.0%} of the words are as before"
        drifts.append(Drift(*subject, "answer", change, drifted=alike < ALIKE))
    return drifts


def word_similarity(before: str, now: str) -> float:
    """Share of words in common, in order, whatever their case; 1.0 for the same words."""
    return difflib.SequenceMatcher(None, before.casefold().split(), now.casefold().split(), autojunk=False).ratio()


def merge_baselines(before: Baseline, now: Baseline) -> Baseline:
    """The new answers in place of the old ones of their routes; other routes stay."""
    return now.model_copy(update={"routes": {**before.routes, **now.routes}})


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def package_version() -> str:
    """Version of the installed package; "" of a checkout that is not installed."""
    try:
        return version("bulkhead")
    except PackageNotFoundError:
        return ""
