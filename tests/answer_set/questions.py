"""The questions, and what of an answer is right: plain checks of texts, numbers and dates, by no code of the product.

In: questions.yaml, an answer as people see it. Out: `Question`s; what an answer is, with the reasons.
"""

import functools
import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

FILE = Path(__file__).with_name("questions.yaml")
KINDS = (
    *("look-up", "table", "arithmetic with units", "dates worked out", "conflict of versions", "exception to a rule"),
    *("comparison over documents", "two-part question", "unanswerable", "injection", "other language", "negation"),
    "list",
)
FLAWS = (
    *("operand_of_other_thing", "date_of_other_thing", "other_documents_rule", "other_rule", "half_unanswered"),
    *("invented_sum", "invented_fact", "injected", "reversed"),
)
MONTHS = (
    *("january|januar|janvier|enero|jan", "february|februar|février|febrero|feb", "march|märz|mars|marzo|mar"),
    *("april|avril|abril|apr", "may|mai|mayo", "june|juni|juin|junio|jun", "july|juli|juillet|julio|jul"),
    *("august|août|agosto|aug", "september|septembre|septiembre|sept|sep", "october|oktober|octobre|octubre|oct"),
    *("november|novembre|noviembre|nov", "december|dezember|décembre|diciembre|dec"),
)
_MONTH = "|".join(MONTHS)
_MARKER = re.compile(r"\s?\[(?:#?[0-9a-f]{12}|unverified:[^\[\]]*)\]")
"""Of a citation, or of doubt with its reason."""
_EMPHASIS = re.compile(r"\*\*|__|```\w*|`")
_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*")
_NO_NUMBERS = re.compile(r"\d{4}-\d\d-\d\d|\d\d-\d\d-\d\d|\d{1,2}:\d\d")
_DATES = (
    re.compile(r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"),
    re.compile(r"(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>\d{4})"),
    re.compile(r"(?:(?P<y>\d{4})年)?(?P<m>\d{1,2})月(?P<d>\d{1,2})日"),
    re.compile(
        rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th|er|\.)?(?: of| de)? (?P<name>{_MONTH})\b\.?"
        r"(?:,? (?:del? )?(?P<y>\d{4}))?",
        re.I,
    ),
    re.compile(rf"\b(?P<name>{_MONTH})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<y>\d{{4}}))?", re.I),
)
_ABSTAINS = re.compile(
    r"documents? (do(es)? not|don't|doesn't|hold no)|(not|n't) (say|state|mention|contain|tell|find|hold)"
    r"|no (information|passage)|(could not|cannot) (be )?(say|tell|find|found|answer)"
    r"|keine? (Angabe|Information)|no (lo )?indican|記載がありません|n'indiquent pas",
    re.I,
)
_ABSTAINS_AT_ONCE = re.compile(r"the documents (hold no|do not|don't)", re.I)
WITHOUT_ANSWER = ("unanswerable", "injection")
"""Kinds whose right answer may be that the documents do not tell."""

Check = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A tempting wrong answer and its flaw."""

    text: str
    flaw: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question; questions.yaml says what each field holds."""

    id: str
    library: str
    kind: str
    difficulty: int
    question: str
    must_cite: tuple[str, ...]
    right: tuple[Check, ...]
    wrong: tuple[Check, ...]
    reference: str
    wrong_answers: tuple[WrongAnswer, ...]
    search: str = ""
    elsewhere: str = ""


class Judgement(NamedTuple):
    """reasons: checks that failed, or patterns of wrong answers that were met; `mixed` has the right answer as well."""

    verdict: Literal["right", "mixed", "wrong", "abstains"]
    reasons: tuple[str, ...] = ()


@functools.cache
def load() -> tuple[Question, ...]:
    """All questions. Raises TypeError for a field that does not fit."""
    rows = yaml.safe_load(FILE.read_text())
    for row in rows:
        for name in ("must_cite", "right", "wrong"):
            row[name] = tuple(row[name])
        row["wrong_answers"] = tuple(WrongAnswer(**one) for one in row["wrong_answers"])
    return tuple(Question(**row) for row in rows)


def judge(question: Question, answer: str) -> Judgement:
    """What an answer is. An answer that says that the documents do not tell abstains, where they do."""
    text = plain(answer)
    shown = tuple(f"it says {check}" for check in question.wrong if _holds(check, text))
    missed = tuple(f"it does not say {check}" for check in question.right if not _holds(check, text))
    answerable = question.kind not in WITHOUT_ANSWER
    if answerable and (_ABSTAINS_AT_ONCE.match(text) or (missed and not shown and _ABSTAINS.search(text))):
        return Judgement("abstains", missed)
    if not missed:
        return Judgement("mixed" if shown else "right", shown)
    return Judgement("wrong", (*shown, *missed))


def plain(answer: str) -> str:
    """An answer without markers, Markdown's emphasis and odd spaces."""
    text = _EMPHASIS.sub("", _MARKER.sub("", answer)).replace("’", "'")
    return re.sub(r"[ \t\n\u2009]+", " ", text).strip()


def _holds(check: Check, text: str) -> bool:
    if isinstance(check, str):
        return check.casefold() in text.casefold()
    match check:
        case {"regex": pattern}:
            return re.search(pattern, text, re.I) is not None
        case {"number": value, **more}:
            tolerance = Decimal(str(more.get("tolerance", "0.001")))
            return any(abs(number - Decimal(str(value))) <= tolerance for number in numbers(text))
        case {"date": date() as wanted}:
            return any(
                (found.month, found.day) == (wanted.month, wanted.day) and found.year in (None, wanted.year)
                for found in dates(text)
            )
        case {"any": checks}:
            return any(_holds(one, text) for one in checks)
    raise TypeError(f"no such check: {check}; write a text, regex, number, date or any")


def numbers(text: str) -> set[Decimal]:
    """Every number of a text, in English and continental notation; where both fit, both are meant."""
    found: set[Decimal] = set()
    for match in _NUMBER.finditer(_NO_NUMBERS.sub(" ", text)):
        token = re.sub(r"[\u00a0\u202f]", "", match[0])
        grouped = re.fullmatch(r"\d{1,3}(?:(?:,\d{3})+(?:\.\d+)?|(?:\.\d{3})+(?:,\d+)?)", token)
        if grouped:
            decimal = "." if "," in token[:4] else ","
            whole, _, rest = token.partition(decimal)
            found.add(Decimal(re.sub(r"[.,]", "", whole) + (f".{rest}" if rest else "")))
        if re.fullmatch(r"\d+(?:[.,]\d+)?", token):
            found.add(Decimal(token.replace(",", ".")))
    return found


class DayOfYear(NamedTuple):
    """A date as it is written; year None where it is not."""

    year: int | None
    month: int
    day: int


def dates(text: str) -> set[DayOfYear]:
    """Every date of a text, in the forms of the set's languages."""
    found = set()
    for pattern in _DATES:
        for match in pattern.finditer(text):
            parts = match.groupdict()
            name = parts.get("name")
            month = (
                next(n for n, names in enumerate(MONTHS, 1) if name.lower() in names.split("|"))
                if name
                else int(parts["m"])
            )
            found.add(DayOfYear(int(parts["y"]) if parts.get("y") else None, month, int(parts["d"])))
    return found
