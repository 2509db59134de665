"""Values that a plan states by a rule: the field of a record that it selects, a figure that it bounds or calculates.

In: flows and planned calls of a step, and the recorded results of its tools. Out: the value itself, whatever a model
makes of it. What is ambiguous, lacking or not whole has no value here: then a person is asked. Pure, and bounded by the
fields of the results.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import get_args

from bulkhead.policy.arithmetic import ExpressionRefused, evaluate_exactly
from bulkhead.policy.values import ValueKind, form_of, number_form, plain_decimal, word_form
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue, Selector, TextTest
from bulkhead_contracts.result import digest_of

_DAY_SHIFT = re.compile(r"\s*([a-z][a-z0-9_]*|\d{4}-\d{2}-\d{2})\s*([+-])\s*(.{1,100}?)\s*(?:days?)?\s*")
"""`due + 14 days`: the one sum that has a day in it."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MAX_PLANNED_DIGITS = 40
_AGAINST_TEXT = frozenset(get_args(TextTest))
Figure = Decimal | str
"""A number, or a day or a time in canonical form."""


@dataclass(frozen=True, slots=True)
class PlannedRules:
    """The part of a step's grant that states values for calls of one tool."""

    tool: str
    flows: tuple[Flow, ...] = ()
    calls: tuple[PlannedCall, ...] = ()

    def selecting_flows(self) -> Iterator[Flow]:
        """Flows into the tool that select records."""
        return (flow for flow in self.flows if flow.tool == self.tool and flow.where and not flow.operand)

    def calculated_values(self) -> Iterator[PlannedValue]:
        """Arguments of the tool that the plan calculates."""
        calls = (call for call in self.calls if call.tool == self.tool)
        return (value for call in calls for value in call.values if value.calculate)

    def operand_flows(self, planned: PlannedValue) -> tuple[Flow, ...]:
        """Fields over which a planned value is calculated."""
        operands = (flow for flow in self.flows if flow.operand and flow.tool == self.tool)
        return tuple(flow for flow in operands if flow.argument == planned.argument)


@dataclass(frozen=True, slots=True)
class RecordedField:
    """One field of a result. raw: as it stands there; None of a value within a longer text."""

    pointer: str
    kind: ValueKind
    form: str
    raw: object


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """The result of a call. fields: by pointer. is_whole: False where some of them are lacking."""

    tool: str
    step_id: str
    sha256: str
    fields: Mapping[str, RecordedField]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Record:
    result: RecordedResult
    pointer: str
    places: tuple[str, ...]
    """Keys or positions at each `*`."""

    def field_at(self, pointer: str) -> RecordedField | None:
        return self.result.fields.get(self.pointer + pointer)


PlacedField = tuple[RecordedResult, RecordedField]


def selection_digest(flow: Flow) -> str:
    """The name under which a value is the outcome of a flow's selection."""
    return digest_of(flow.model_dump_json())[:32]


def calculation_digest(planned: PlannedValue, rules: PlannedRules) -> str:
    """The name under which a value is the outcome of a calculation."""
    parts = (planned, *rules.operand_flows(planned))
    return digest_of("\n".join((rules.tool, *(part.model_dump_json() for part in parts))))[:32]


def select_fields(flow: Flow, results: Iterable[RecordedResult]) -> tuple[PlacedField, ...]:
    """The fields that a flow names, of the records that it selects; () where that is ambiguous or something lacks."""
    named_results = [result for result in results if result.tool == flow.from_tool and result.step_id == flow.step_id]
    if not all(result.is_whole for result in named_results):
        return ()
    segments = flow.field.split("/")
    depth = len(segments) - segments[::-1].index("*") if "*" in segments else 1
    pattern, tail = segments[:depth], "".join(f"/{segment}" for segment in segments[depth:])
    records: Sequence[_Record] = list(_list_records(pattern, named_results))
    for selector in flow.where:
        records = _narrow_records(records, selector)
    fields = [(record.result, field) for record in records if (field := record.field_at(tail)) is not None]
    if any(selector.test == "every" for selector in flow.where):
        return tuple(fields)
    return tuple(fields) if len(fields) == len(records) else ()


def selected_value(flow: Flow, fields: Sequence[PlacedField]) -> tuple[PlacedField, ...]:
    """The fields that may flow: of every record where the plan says so, else only where all say the same."""
    alike = {(field.kind, field.form, _exact_text(field)) for _, field in fields}
    return tuple(fields) if len(alike) == 1 or any(selector.test == "every" for selector in flow.where) else ()


def _list_records(pattern: Sequence[str], results: Iterable[RecordedResult]) -> Iterator[_Record]:
    for result in results:
        listed: set[str] = set()
        for pointer in result.fields:
            segments = pointer.split("/")[: len(pattern)]
            record = "/".join(segments)
            if len(segments) < len(pattern) or record in listed:
                continue
            pairs = list(zip(pattern, segments, strict=True))
            if all(pattern_segment in ("*", segment) for pattern_segment, segment in pairs):
                listed.add(record)
                places = tuple(segment for pattern_segment, segment in pairs if pattern_segment == "*")
                yield _Record(result, record, places)


def _narrow_records(records: Sequence[_Record], selector: Selector) -> Sequence[_Record]:
    """The records that meet a condition; none where it cannot be told which do."""
    match selector.test:
        case "every":
            return records
        case "only":
            return records if len(records) == 1 else ()
        case "first" | "last":
            if len({id(record.result) for record in records}) != 1:
                return ()
            if not all(place.isdigit() for record in records for place in record.places):
                return ()  # Keys of an object have no order that a reader could rely on.
            ordered = sorted(records, key=lambda record: tuple(map(int, record.places)))
            return ordered[:1] if selector.test == "first" else ordered[-1:]
        case "largest" | "smallest":
            figures = [_figure_of(record.field_at(selector.field)) for record in records]
            extreme = _extreme_figure(figures, largest=selector.test == "largest")
            return [record for record, figure in zip(records, figures, strict=True) if figure == extreme != ""]
        case _:
            return [record for record in records if _meets(record.field_at(selector.field), selector)]


def passes_test(value: object, test: TextTest, text: str) -> bool:
    """True when a single value passes a test, as a selector of the plan would have it."""
    return _meets(RecordedField("", *form_of(value), value), Selector(test=test, text=text))


def _meets(field: RecordedField | None, selector: Selector) -> bool:
    if field is None or not selector.text.strip():
        return False
    if selector.test == "is":
        same = (field.kind, field.form) == form_of(selector.text)
        return same and (
            field.kind != "text" or not isinstance(field.raw, str) or _fold(field.raw) == _fold(selector.text)
        )
    if selector.test in ("contains", "starts_with", "ends_with"):
        return isinstance(field.raw, str) and _reads_as(field.raw, selector)
    floor, ceiling = (selector.text, "") if selector.test == "at_least" else ("", selector.text)
    return is_within(_figure_of(field), floor, ceiling)


def _reads_as(text: str, selector: Selector) -> bool:
    """Words are contained whole; a text begins or ends with any signs."""
    if selector.test == "contains":
        return word_form(selector.text) in word_form(text)
    folded, sought = _fold(text), _fold(selector.text)
    return folded.startswith(sought) if selector.test == "starts_with" else folded.endswith(sought)


def _fold(text: str) -> str:
    """With signs that nobody sees: a name that has one is another name."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _exact_text(field: RecordedField) -> object:
    """A path is another one with a dot more, and its form is the same."""
    return field.raw if field.kind == "text" else None


def _figure_of(field: RecordedField | None) -> Figure:
    """The number, day or time of a field; "" where it is none."""
    if field is None:
        return ""
    if field.kind in ("date", "time"):
        return field.form
    if field.kind == "number":
        return Decimal(field.form)
    # A row of digits reads as an account.
    plain = number_form(field.raw) if isinstance(field.raw, str) and field.kind == "account" else None
    return Decimal(plain) if plain is not None else ""


def _extreme_figure(figures: Sequence[Figure], *, largest: bool) -> Figure:
    """The largest or smallest; "" where one is lacking, or they are not of one kind."""
    numbers = [figure for figure in figures if isinstance(figure, Decimal)]
    if numbers and len(numbers) == len(figures):
        return max(numbers) if largest else min(numbers)
    texts = [figure for figure in figures if isinstance(figure, str) and figure]
    if not texts or len(texts) < len(figures) or len({":" in text[:3] for text in texts}) > 1:
        return ""
    return max(texts) if largest else min(texts)


def is_within(figure: Figure, floor: str, ceiling: str) -> bool:
    """True for a number or a day between two that a plan wrote, either of which may be "". A number lies at 0 or above
    where no floor is written; ends that cannot be read bound nothing."""
    if isinstance(figure, Decimal):
        ends = [number_form(text) if text else None for text in (floor or "0", ceiling)]
        if any(text and end is None for text, end in zip((floor, ceiling), ends, strict=True)):
            return False
        low, high = ends
        return (low is None or Decimal(low) <= figure) and (high is None or figure <= Decimal(high))
    days = [form_of(text) for text in (floor, ceiling) if text]
    if not figure or any(kind != "date" for kind, _ in days) or not _DAY.match(figure):
        return False
    low_day, high_day = (form_of(text)[1] if text else "" for text in (floor, ceiling))
    # A day bounds all its hours.
    return (not low_day or low_day <= figure) and (not high_day or figure[: len(high_day)] <= high_day)


def fits_bounds(planned: PlannedValue, kind: ValueKind, form: str) -> bool:
    """True for a figure within the bounds that the plan writes for it."""
    figure: Figure = Decimal(form) if kind == "number" else form if kind == "date" else ""
    return is_within(figure, planned.at_least, planned.at_most)


def calculate_value(
    planned: PlannedValue, rules: PlannedRules, results: Sequence[RecordedResult]
) -> tuple[ValueKind, str] | None:
    """Kind and form of what a planned value is calculated to be; None where there is no one such value."""
    figures: dict[str, list[Figure]] = {}
    for flow in rules.operand_flows(planned):
        if flow.operand in figures:
            return None
        figures[flow.operand] = [_figure_of(field) for _, field in select_fields(flow, results)]
    if any(not operands or "" in operands for operands in figures.values()):
        return None
    numbers = {
        name: [figure for figure in operands if isinstance(figure, Decimal)] for name, operands in figures.items()
    }
    try:
        if (shift := _DAY_SHIFT.fullmatch(planned.calculate)) and (start := _day_named(shift[1], figures)) is not None:
            days = evaluate_exactly(shift[3], numbers).value
            moved = start + timedelta(days=int(days if shift[2] == "+" else -days))
            return ("date", moved.isoformat()) if days == days.to_integral_value() else None
        if any(len(numbers[name]) < len(operands) for name, operands in figures.items()):
            return None
        outcome = evaluate_exactly(planned.calculate, numbers)
    except (ExpressionRefused, OverflowError, ValueError):
        return None
    if outcome.is_rounded or abs(outcome.value.adjusted()) > MAX_PLANNED_DIGITS:
        return None
    return "number", plain_decimal(outcome.value)


def _day_named(name: str, figures: Mapping[str, Sequence[Figure]]) -> date | None:
    """The one day that a name or a literal stands for."""
    days = set(figures.get(name, ())) or ({name} if _DAY.fullmatch(name) else set())
    day = days.pop() if len(days) == 1 else None
    return date.fromisoformat(day) if isinstance(day, str) and _DAY.fullmatch(day) else None


def rule_problem(rules: PlannedRules) -> str:
    """The first of these rules that can state no value, whatever the results say, and why; "" where each may."""
    for flow in rules.flows:
        for selector in flow.where:
            if selector.test in _AGAINST_TEXT and not selector.text.strip():
                return f"`{selector.test}` of {flow.field} lacks the text that {selector.field} is held against"
        values = (value for call in rules.calls for value in call.values if value.argument == flow.argument)
        if flow.operand and not any(value.calculate for value in values):
            return f"{flow.operand} is an operand, and no planned call calculates {flow.argument}"
    for planned in (value for call in rules.calls for value in call.values):
        if planned.text and not planned.is_literal:
            return f"{planned.argument} has a text, and bounds or a calculation beside it: leave one out"
        ends = [form_of(text)[0] for text in (planned.at_least, planned.at_most) if text]
        if ends and (len(set(ends)) > 1 or ends[0] not in ("number", "date")):
            return f"the bounds of {planned.argument} are neither two numbers nor two days"
        if planned.calculate and (reason := _expression_problem(planned, rules)):
            return f"{planned.argument} = {planned.calculate}: {reason}"
    return ""


def _expression_problem(planned: PlannedValue, rules: PlannedRules) -> str:
    names = [flow.operand for flow in rules.operand_flows(planned)]
    if len(set(names)) < len(names):
        return "two flows have the same operand"
    expression = planned.calculate
    if (shift := _DAY_SHIFT.fullmatch(expression)) and (shift[1] in names or _DAY.fullmatch(shift[1])):
        expression = shift[3]
    try:
        evaluate_exactly(expression, {name: (Decimal(7),) for name in names})
    except ExpressionRefused as refused:
        return str(refused) if refused.code == "bad_expression" else ""
    return ""
