"""Plain checks of an answer. In: an answer with its citations, and checks. Out: which failed, and why. Pure."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bulkhead.evaluation.cases import Check, Number

MARKER = re.compile(r"\s?\[#[0-9a-f]{12}\]")
_FENCE = re.compile(r"^```[a-zA-Z]*\n(.*?)\n```$", re.S)
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\d[\d.,'\u2019\u00a0\u202f]*")
_GROUPED = re.compile(r"[-+]?\d{1,3}([,.'\u2019\u00a0\u202f])\d{3}(?:\1\d{3})*")
_BLANKS = re.compile(r"\s+")
SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a case. cited: names of the documents that the answer cites."""

    text: str
    cited: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The text without the markers of its citations."""
        return MARKER.sub("", self.text)


def failed(checks: Iterable[Check], answer: Answer) -> tuple[str, ...]:
    """Why each check failed that did; () when the answer passes."""
    return tuple(f"{check} ({why})" for check in checks if (why := _why_not(check, answer)))


def _why_not(check: Check, answer: Answer) -> str:
    """Why an answer does not pass a check; "" when it does."""
    match check.kind:
        case "contains":
            return "" if _folded(check.contains) in _folded(answer.plain) else "it does not stand in the answer"
        case "not_contains":
            return "it stands in the answer" if _folded(check.not_contains) in _folded(answer.plain) else ""
        case "regex":
            return "" if re.search(check.regex or "", answer.plain) else "nothing fits it"
        case "equals_number":
            return _no_number(check.equals_number, answer.plain)
        case "json_schema":
            return _no_instance(check.json_schema, answer.plain)
        case "cites":
            return "" if check.cites in answer.cited else f"cited: {', '.join(answer.cited) or 'nothing'}"
    raise AssertionError(check.kind)


def _folded(text: str | None) -> str:
    return _BLANKS.sub(" ", text or "").strip().casefold()


def _no_number(wanted: float | Number | None, text: str) -> str:
    value, tolerance = (wanted.value, wanted.tolerance) if isinstance(wanted, Number) else (wanted or 0.0, 0.0)
    found = list(dict.fromkeys(numbers(text)))
    if any(abs(one - value) <= max(tolerance, abs(value) * 1e-9) for one in found):
        return ""
    return f"numbers: {', '.join(f'{one:g}' for one in found[:8]) or 'none'}"


def numbers(text: str) -> Iterator[float]:
    """The numbers in a text. Where a separator may stand for thousands or for a fraction (1,234), both are given."""
    for match in _NUMBER.finditer(text):
        raw = match[0].rstrip(".,'\u2019\u00a0\u202f").replace("\u2212", "-")
        yield from dict.fromkeys(_readings(raw))


def _readings(raw: str) -> Iterator[float]:
    plain = re.sub("['\u2019\u00a0\u202f]", "", raw)
    for thousands, point in ((",", "."), (".", ",")):
        whole, _, fraction = plain.partition(point)
        if point in fraction or thousands in fraction:
            continue
        if thousands in whole and not _GROUPED.fullmatch(whole):
            continue
        try:
            yield float(f"{whole.replace(thousands, '')}.{fraction or 0}")
        except ValueError:
            continue


def _no_instance(schema: object, text: str) -> str:
    import jsonschema_rs

    fenced = _FENCE.match(text.strip())
    try:
        found = json.loads(fenced[1] if fenced else text.strip())
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    error = next(iter(jsonschema_rs.validator_for(schema).iter_errors(found)), None)  # type: ignore[arg-type]
    return "" if error is None else str(error.message)[:SHOWN_CHARS]
