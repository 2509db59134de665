"""HTML page of a report: one file without scripts. In: a report. Out: HTML; texts of models are escaped, never markup.

Answers stand beside those of the baseline, and the words that differ are marked.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bulkhead.evaluation.reports.report import CaseReport, EvaluationReport
from bulkhead.evaluation.runs import CaseRun
from bulkhead.evaluation.statistics import Estimate
from bulkhead.text.amounts import format_duration, format_time, format_usd

MAX_MARKED_WORDS = 1_500
"""Longer answers are shown without marks: the comparison takes the square of their length."""
MAX_SHOWN_CHARS = 20_000
_PIECES = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A piece of a text, and whether the other text has it."""

    text: str
    mark: Literal["", "removed", "added"] = ""


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """One repetition of a case, beside that of the baseline; None where there is none."""

    now: CaseRun | None
    before: CaseRun | None
    text: tuple[MarkedText, ...]
    text_before: tuple[MarkedText, ...]


def render_html(report: EvaluationReport, problems: list[str]) -> str:
    """The page."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "usd": lambda micros: format_usd(round(micros)),
        "duration": format_duration,
        "moment": format_time,
        "share": lambda estimate: _format_estimate(estimate, "{:.1%}"),
        "signed_share": lambda estimate: _format_estimate(estimate, "{:+.1%}"),
    }
    rows = [(case, _pair_answers(case)) for case in report.cases]
    return environment.get_template("report.html").render(report=report, problems=problems, rows=rows)


def _format_estimate(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return "-"
    ends = ("?" if end is None else form.format(end) for end in (estimate.low, estimate.high))
    return f"{form.format(estimate.value)} [{' '.join(ends)}]"


def _pair_answers(case: CaseReport) -> list[AnswerPair]:
    pairs = []
    before_by_repetition = {run.repetition: run for run in case.before}
    now_by_repetition = {run.repetition: run for run in case.runs}
    for repetition in sorted(now_by_repetition.keys() | before_by_repetition.keys()):
        now, before = now_by_repetition.get(repetition), before_by_repetition.get(repetition)
        pairs.append(
            AnswerPair(now, before, *mark_differences(_text_of(now), _text_of(before), marked=bool(case.before)))
        )
    return pairs


def _text_of(run: CaseRun | None) -> str:
    return run.outcome.answer.plain_text[:MAX_SHOWN_CHARS] if run is not None and run.outcome.answer is not None else ""


def mark_differences(
    now: str, before: str, *, marked: bool = True
) -> tuple[tuple[MarkedText, ...], tuple[MarkedText, ...]]:
    """Both texts in pieces; the words that only one of them has are marked."""
    words, words_before = _PIECES.findall(now), _PIECES.findall(before)
    if not marked or max(len(words), len(words_before)) > 2 * MAX_MARKED_WORDS:
        return (MarkedText(now),), (MarkedText(before),)
    pieces, pieces_before = [], []
    matcher = difflib.SequenceMatcher(None, words_before, words, autojunk=False)
    for kind, old_start, old_end, start, end in matcher.get_opcodes():
        if kind == "equal":
            same = MarkedText("".join(words[start:end]))
            pieces.append(same)
            pieces_before.append(same)
            continue
        if end > start:
            pieces.append(MarkedText("".join(words[start:end]), "added"))
        if old_end > old_start:
            pieces_before.append(MarkedText("".join(words_before[old_start:old_end]), "removed"))
    return tuple(pieces), tuple(pieces_before)
