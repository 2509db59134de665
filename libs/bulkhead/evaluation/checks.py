"""Plain checks of an answer. In: an answer with its citations, and checks. Out: which failed, and why. Pure."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bulkhead.evaluation.cases import Check, ExpectedNumber

MARKER = re.compile(r"\s?\[#[0-9a-f]{12}\]")
_FENCE = re.compile(r"^```[a-zA-Z]*\n(.*?)\n```$", re.S)
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\d[\d.,'\u2019\u00a0\u202f]*")
_GROUPED = re.compile(r"[-+]?\d{1,3}([,.'\u2019\u00a0\u202f])\d{3}(?:\1\d{3})*")
_BLANKS = re.compile(r"\s+")
SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """Text that came of a case. cited: names of the documents that the answer cites."""

    text: str
    cited: tuple[str, ...] = ()

    @property
    def plain_text(self) -> str:
        """The text without the markers of its citations."""
        return MARKER.sub("", self.text)


def failed_checks(checks: Iterable[Check], answer: CaseAnswer) -> tuple[str, ...]:
    """Reason of each check that failed; () when the answer passes."""
    return tuple(f"{check} ({reason})" for check in checks if (reason := _failure_reason(check, answer)))


def _failure_reason(check: Check, answer: CaseAnswer) -> str:
    """The reason for which an answer does not pass a check; "" when it does."""
    match check.kind:
        case "contains":
            return (
                "" if _fold_text(check.contains) in _fold_text(answer.plain_text) else "it does not stand in the answer"
            )
        case "not_contains":
            return "it stands in the answer" if _fold_text(check.not_contains) in _fold_text(answer.plain_text) else ""
        case "regex":
            return "" if re.search(check.regex or "", answer.plain_text) else "nothing fits it"
        case "equals_number":
            return _number_failure(check.equals_number, answer.plain_text)
        case "json_schema":
            return _schema_failure(check.json_schema, answer.plain_text)
        case "cites":
            return "" if check.cites in answer.cited else f"cited: {', '.join(answer.cited) or 'nothing'}"
    raise AssertionError(check.kind)


def _fold_text(text: str | None) -> str:
    return _BLANKS.sub(" ", text or "").strip().casefold()


def _number_failure(wanted: float | ExpectedNumber | None, text: str) -> str:
    value, tolerance = (wanted.value, wanted.tolerance) if isinstance(wanted, ExpectedNumber) else (wanted or 0.0, 0.0)
    answer_numbers = list(dict.fromkeys(find_numbers(text)))
    if any(abs(number - value) <= max(tolerance, abs(value) * 1e-9) for number in answer_numbers):
        return ""
    return f"numbers: {', '.join(f'{number:g}' for number in answer_numbers[:8]) or 'none'}"


def find_numbers(text: str) -> Iterator[float]:
    """The numbers in a text. Where a separator may stand for thousands or for a fraction (1,234), both are given."""
    for match in _NUMBER.finditer(text):
        raw = match[0].rstrip(".,'\u2019\u00a0\u202f").replace("\u2212", "-")
        yield from dict.fromkeys(_possible_readings(raw))


def _possible_readings(raw: str) -> Iterator[float]:
    plain = re.sub("['\u2019\u00a0\u202f]", "", raw)
    for thousands, point in ((",", "."), (".", ",")):
        integer, _, fraction = plain.partition(point)
        if point in fraction or thousands in fraction:
            continue
        if thousands in integer and not _GROUPED.fullmatch(integer):
            continue
        try:
            yield float(f"{integer.replace(thousands, '')}.{fraction or 0}")
        except ValueError:
            continue


def _schema_failure(schema: object, text: str) -> str:
    import jsonschema_rs

    fenced = _FENCE.match(text.strip())
    try:
        document = json.loads(fenced[1] if fenced else text.strip())
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    error = next(iter(jsonschema_rs.validator_for(schema).iter_errors(document)), None)  # type: ignore[arg-type]
    return "" if error is None else str(error.message)[:SHOWN_CHARS]
