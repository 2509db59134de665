"""Checks of an answer. In: an answer with what the task did, and checks. Out: which failed, and why.

All are plain but `python`, which runs a function of the set's author.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bulkhead.evaluation.answers import CaseAnswer, ToolCallRecord
from bulkhead.evaluation.cases import Check, ExpectedCall, ExpectedNumber, LengthBounds, compile_pattern
from bulkhead.evaluation.python_checks import run_python_check
from bulkhead.flow.step_calls import FENCED
from bulkhead.grounding.personal_data import find_personal_data

_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\d[\d.,'\u2019\u00a0\u202f]*")
_GROUPED = re.compile(r"[-+]?\d{1,3}([,.'\u2019\u00a0\u202f])\d{3}(?:\1\d{3})*")
_BLANKS = re.compile(r"\s+")
SHOWN_CHARS = 80


def needs_tool_calls(checks: Iterable[Check]) -> bool:
    """Check whether any of the checks looks at the calls of tools."""
    return any(check.kind in ("tool_called", "tool_not_called", "python") for check in checks)


def failed_checks(checks: Iterable[Check], answer: CaseAnswer, references: Sequence[str] = ()) -> tuple[str, ...]:
    """Reason of each check that failed; () when the answer passes. Judges are asked elsewhere."""
    reasons = ((check, _failure_reason(check, answer, references)) for check in checks if check.judge is None)
    return tuple(escape_surrogates(f"{check} ({reason})") for check, reason in reasons if reason)


def escape_surrogates(text: str) -> str:
    """The text with halves of characters written out: no file and no pattern takes them."""
    return text.encode(errors="backslashreplace").decode()


def _failure_reason(check: Check, answer: CaseAnswer, references: Sequence[str]) -> str:
    """The reason for which an answer does not pass a check; "" when it does."""
    text = answer.plain_text
    match check.kind:
        case "contains":
            return "" if _fold_text(check.contains) in _fold_text(text) else "it does not stand in the answer"
        case "not_contains":
            return "it stands in the answer" if _fold_text(check.not_contains) in _fold_text(text) else ""
        case "regex":
            return "" if compile_pattern(check.regex or "").search(escape_surrogates(text)) else "nothing fits it"
        case "equals_number":
            return _number_failure(check.equals_number, text)
        case "json_schema":
            return _schema_failure(check.json_schema, text)
        case "cites":
            return "" if check.cites in answer.cited else f"cited: {', '.join(answer.cited) or 'nothing'}"
        case "entities":
            missing = [name for name in check.entities or () if not _names_word(name, text)]
            return f"not named: {', '.join(missing)}"[:SHOWN_CHARS] if missing else ""
        case "forbidden":
            present = [term for term in check.forbidden or () if _names_word(term, text)]
            return f"named: {', '.join(present)}"[:SHOWN_CHARS] if present else ""
        case "length":
            return _length_failure(check.length or LengthBounds(), text)
        case "personal_data":
            kinds = {kind for _, _, kind in find_personal_data(text)} - set(check.personal_data or ())
            return f"it holds: {', '.join(sorted(kinds))}" if kinds else ""
        case "python":
            return run_python_check(check.python or "", answer)
        case "reference_overlap":
            overlap = max((word_overlap(reference, text) for reference in references), default=0.0)
            return "" if overlap >= (check.reference_overlap or 0) else f"it is {overlap:.2f}"
    return _task_failure(check, answer)


def _task_failure(check: Check, answer: CaseAnswer) -> str:
    """The reason for which a task does not pass a check of what it did; "" when it does."""
    match check.kind:
        case "tool_called":
            return _call_failure(check.tool_called or "", answer.tool_calls)
        case "tool_not_called":
            if answer.tool_calls is None:
                return "not all calls of the task are known"
            count = sum(call.tool == check.tool_not_called for call in answer.tool_calls)
            return f"it was asked for {count} times" if count else ""
        case "max_cost_usd":
            cost_usd = answer.cost_usd_micros / 1_000_000
            return "" if cost_usd <= (check.max_cost_usd or 0) else f"it cost {cost_usd:.6f}"
        case "max_latency_s":
            latency_s = answer.latency_ms / 1000
            return "" if latency_s <= (check.max_latency_s or 0) else f"it took {latency_s:.1f}"
        case "answered":
            passing = ("yes", "partly") if check.answered == "partly" else ("yes",)
            return "" if answer.answered in passing else f"it is {answer.answered or 'unknown'}"
    raise AssertionError(check.kind)


def _names_word(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_fold_text(word))}(?!\w)", _fold_text(text)) is not None


def _length_failure(limits: LengthBounds, text: str) -> str:
    for count, least, most, unit in (
        (len(text.split()), limits.min_words, limits.max_words, "words"),
        (len(text), limits.min_chars, limits.max_chars, "characters"),
    ):
        if count < least or (most is not None and count > most):
            return f"it has {count:,} {unit}"
    return ""


def _call_failure(expected: str | ExpectedCall, calls: Sequence[ToolCallRecord] | None) -> str:
    expected_call = expected if isinstance(expected, ExpectedCall) else ExpectedCall(tool=expected)
    made_calls = [call for call in calls or () if call.outcome != "refused"]
    of_tool = [call for call in made_calls if call.tool == expected_call.tool]
    if not of_tool:
        names = dict.fromkeys(call.tool for call in made_calls)
        return f"called: {', '.join(names) or 'nothing'}"[:SHOWN_CHARS]
    if any(_has_arguments(call.arguments, expected_call.arguments) for call in of_tool):
        return ""
    return f"called with {of_tool[-1].arguments or 'arguments that may not be read'}"[:SHOWN_CHARS]


def _has_arguments(arguments: str, wanted: dict[str, object]) -> bool:
    if not wanted:
        return True
    try:
        document = json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and all(
        name in document and document[name] == value for name, value in wanted.items()
    )


def word_overlap(reference: str, text: str) -> float:
    """F1 of the words that two texts have in common, whatever their order and case: 1.0 for the same words."""
    expected, actual = (Counter(re.findall(r"\w+", part.casefold())) for part in (reference, text))
    shared = (expected & actual).total()
    return 2 * shared / (expected.total() + actual.total()) if shared else 0.0


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

    fenced = FENCED.match(text.strip())
    try:
        document = json.loads(fenced[1] if fenced else text.strip())
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    try:
        error = next(iter(jsonschema_rs.validator_for(schema).iter_errors(document)), None)  # type: ignore[arg-type]
    except (ValueError, RecursionError):  # Halves of characters, numbers without end, too deep.
        return "the answer is JSON that no schema can judge"
    return "" if error is None else str(error.message)[:SHOWN_CHARS]
