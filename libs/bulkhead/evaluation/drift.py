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

from bulkhead.evaluation.cases import Case, CaseError, load
from bulkhead.evaluation.runs import Run
from bulkhead_contracts import bounds

PROBE = Path(__file__).parent / "probe.yaml"
"""Questions that need no document, with checks that a model of any size may pass or not."""
ALIKE = 0.5
"""Share of words that two answers have in common, in order (difflib); below it they are different answers."""
HINT = "make a new baseline with --update when the change is meant"

Change = Literal["check", "answer", "model", "questions", "no_answer"]


class Said(BaseModel):
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
    routes: dict[str, dict[str, Said]]


@dataclass(frozen=True, slots=True)
class Drift:
    """One change of a route since its baseline. drifted: it is to be looked at; otherwise it is only told."""

    route: str
    question: str
    change: Change
    what: str
    drifted: bool = True


def questions(path: Path | None) -> tuple[Case, ...]:
    """The probe's own questions, or those of a file. Raises CaseError."""
    return load(path or PROBE)


def read(path: Path) -> Baseline | None:
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


def write(path: Path, baseline: Baseline) -> None:
    """Replace the file. Raises CaseError."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(baseline.model_dump_json(indent=1) + "\n")
        fresh.replace(path)
    except OSError as error:
        raise CaseError(f"{path} cannot be written: {error.strerror}", "name a place for the baseline") from error


def baseline_of(runs: Iterable[Run], cases: Iterable[Case], now_unix_ms: int) -> Baseline:
    """A baseline of the runs that have an answer."""
    by_name, routes = {case.name: case for case in cases}, dict[str, dict[str, Said]]()
    for run in runs:
        if run.outcome.answer is not None:
            text = run.outcome.answer.plain
            said = Said(
                objective_sha256=_digest(by_name[run.case].objective),
                sha256=_digest(text),
                answer=text[: bounds.MAX_REASON_CHARS],
                passed=run.passed,
                models=run.outcome.models,
            )
            routes.setdefault(run.route, {})[run.case] = said
    return Baseline(made_unix_ms=now_unix_ms, made_by=_version(), routes=routes)


def drifts(before: Baseline, now: Baseline, runs: Iterable[Run]) -> list[Drift]:
    """What has changed, in the order of the runs. Routes and questions that the baseline lacks are told as such."""
    found = []
    for run in runs:
        old, new = (one.routes.get(run.route, {}).get(run.case) for one in (before, now))
        if new is None:
            why = f"no answer: {run.outcome.code}, see `bulkhead why {run.outcome.task}`"
            found.append(Drift(run.route, run.case, "no_answer", why))
        elif old is None or old.objective_sha256 != new.objective_sha256:
            found.append(Drift(run.route, run.case, "questions", f"the baseline lacks this question; {HINT}"))
        else:
            found += _drifts(run, old, new)
    return found


def _drifts(run: Run, old: Said, new: Said) -> list[Drift]:
    found, at = [], (run.route, run.case)
    if old.models and new.models and old.models != new.models:
        what = f"another model answers: {', '.join(new.models)}, and it was {', '.join(old.models)}; {HINT}"
        found.append(Drift(*at, "model", what))
    if old.passed and not new.passed:
        found.append(Drift(*at, "check", f"passed before, and fails now: {'; '.join(run.failed)}"))
    if old.sha256 != new.sha256:
        alike = similarity(old.answer, new.answer)
        what = f"{alike:.0%} of the words are as before"
        found.append(Drift(*at, "answer", what, drifted=alike < ALIKE))
    return found


def similarity(one: str, two: str) -> float:
    """Share of words in common, in order, whatever their case; 1.0 for the same words."""
    return difflib.SequenceMatcher(None, one.casefold().split(), two.casefold().split(), autojunk=False).ratio()


def merged(before: Baseline, now: Baseline) -> Baseline:
    """The new answers in place of the old ones of their routes; other routes stay."""
    return now.model_copy(update={"routes": {**before.routes, **now.routes}})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _version() -> str:
    try:
        return version("bulkhead")
    except PackageNotFoundError:
        return ""
