"""Arithmetic of an answer, computed again: what it writes out, and what it worked out in the head.

An expression stands when its result is right and each of its numbers has a source; a number without a source stands
when one plain operation makes it of numbers that have one.
"""

import re
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, DivisionByZero, InvalidOperation
from itertools import combinations, permutations

from bulkhead.grounding.language import UNITS
from bulkhead.grounding.values import Day, TextValue

MAX_NUMBERS = 10
MAX_OPERANDS = 8
"""Numbers among which the operands of a number are looked for: among many, one fits by chance."""
_MEASURES = frozenset(UNITS.values()) - {"percent"}
TOLERANCE = Decimal("0.01")
_VALUE = r"\d[\d,]*+(?:\.\d[\d,]*+)?"
_SIGN = r"[-+*/×x·÷−]"
_UNIT = r"\s*+(?:[a-zA-Z€$%]{1,12}+\s*+)?"
# Possessive: a run is taken whole or not at all, so that a long one without an end is read once, not once a number.
_RUN = re.compile(rf"(?<![\w.,(-]){_VALUE}(?:{_UNIT}{_SIGN}\s*+{_VALUE})++")
_CLAIMED = re.compile(rf"{_UNIT}=\s*+(?:(?:[A-Z]{{3}}|[€$£])\s*+)?(-?{_VALUE})")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_OPERATORS = "-+*/×x·÷−(="


@dataclass(frozen=True, slots=True)
class Equation:
    """`expression = result` in a text. true_value: what the expression is; None where it has no value."""

    start: int
    expression: str
    result: str
    true_value: Decimal | None

    @property
    def is_right(self) -> bool:
        """True when the result is that of the expression, rounded at most, with commas for thousands or for
        decimals.
        """
        claimed = _parse_decimal(self.result)
        if self.true_value is None or claimed is None or abs(self.true_value - claimed) <= TOLERANCE:
            return True
        true, claimed = (
            _evaluate_expression(_swap_decimal_comma(self.expression)),
            _parse_decimal(_swap_decimal_comma(self.result)),
        )
        return "," in self.expression + self.result and (
            true is None or claimed is None or abs(true - claimed) <= TOLERANCE
        )


def find_equations(text: str) -> Iterator[Equation]:
    """`a x b + c = d`, each whole; what is only the end of a longer expression is left alone."""
    position = 0
    while run := _RUN.search(text, position):
        claimed = _CLAIMED.match(text, run.end())
        if claimed and not _DATE.search(run[0]) and not _ends_in_operator(text, run.start()):
            yield Equation(run.start(), run[0], claimed[1], _evaluate_expression(run[0]))
        position = (claimed or run).end()


def _ends_in_operator(text: str, end: int) -> bool:
    """True when the last character before `end` that is no space is an operator: the expression began earlier."""
    while end and text[end - 1].isspace():
        end -= 1
    return end > 0 and text[end - 1] in _OPERATORS


def _evaluate_expression(expression: str) -> Decimal | None:
    """Value of numbers joined by + - * /, products first; None when it has none."""
    expression = re.sub(r"(?<=[\d\s])[a-wyzA-Z€$%]{1,12}(?=\s)", " ", expression)
    numbers = [_parse_decimal(raw) for raw in re.findall(_VALUE, expression)]
    signs = re.findall(_SIGN, expression)
    if None in numbers or len(signs) != len(numbers) - 1:
        return None
    terms: list[Decimal] = [numbers[0]]  # type: ignore[list-item]
    try:
        for sign, number in zip(signs, numbers[1:], strict=True):
            assert number is not None
            match sign:
                case "+":
                    terms.append(number)
                case "-" | "−":
                    terms.append(-number)
                case "/" | "÷":
                    terms[-1] /= number
                case _:
                    terms[-1] *= number
    except (DivisionByZero, InvalidOperation):
        return None
    return sum(terms, Decimal(0))


def _swap_decimal_comma(raw: str) -> str:
    """Numbers that are written with a decimal comma, with a decimal point."""
    return re.sub(r"\d[\d.,]*", lambda match: match[0].rstrip(".,").replace(".", "").replace(",", "."), raw)


def _parse_decimal(raw: str) -> Decimal | None:
    try:
        return Decimal(raw.replace(",", "").rstrip("."))
    except InvalidOperation:
        return None


def find_derivation(value: TextValue, operands: Sequence[TextValue]) -> str:
    """The derivation of a value from others by one or two plain operations, in words; "" when there is none."""
    operands = operands[:MAX_OPERANDS]
    if value.kind == "date":
        return _derive_date(value, operands)
    if value.kind != "number":
        return ""
    numbers = [(number, row.unit) for row in operands if row.kind == "number" for number in row.number_readings][
        :MAX_NUMBERS
    ]
    rounding = Decimal(1).scaleb(-value.places) / 2
    for how, result, unit in _plain_operations(numbers):
        if value.unit and unit and value.unit != unit and value.unit in _MEASURES and unit in _MEASURES:
            continue
        if any(abs(abs(result) - abs(row)) <= rounding for row in value.number_readings):
            return how
    return _derive_from_times(value, operands) or _derive_from_dates(value, operands)


def _derive_from_times(value: TextValue, operands: Sequence[TextValue]) -> str:
    """A number of minutes or hours between two times of day."""
    times = [row for row in operands if row.kind == "time"]
    for first, last in permutations(times, 2):
        apart = last.number_readings[0] - first.number_readings[0]
        if apart > 0 and ((value.unit != "hour" and apart in value.readings) or apart / 60 in value.readings):
            return f"from {first.raw} to {last.raw}"
    return ""


def _plain_operations(numbers: Sequence[tuple[Decimal, str]]) -> Iterator[tuple[str, Decimal, str]]:
    """Plain operations on two or three numbers: how, the result, its unit. A percentage is one where it is written."""
    shares = [number for number, unit in numbers if unit == "percent"]
    plain = [(number, unit) for number, unit in numbers if unit != "percent"]
    products = [
        (f"{a:f} x {b:f}", a * b, _product_unit(u, v))
        for (a, u), (b, v) in combinations(plain, 2)
        if _may_multiply(u, v)
    ]
    sums = [(f"{a:f} + {b:f}", a + b, u or v) for (a, u), (b, v) in combinations(plain, 2) if _may_add(u, v)]
    yield from (*products, *sums)
    for (a, u), (b, v) in permutations(plain, 2):
        if _may_add(u, v):
            yield f"{a:f} - {b:f}", a - b, u or v
        if b:
            yield f"{a:f} / {b:f}", a / b, "" if u == v else u
    for how, number, unit in (*((f"{number:f}", number, unit) for number, unit in plain), *products, *sums):
        for share in shares:
            yield f"{share:f}% of {how}", number * share / 100, unit
            yield f"{how} - {share:f}%", number * (100 - share) / 100, unit
            yield f"{how} + {share:f}%", number * (100 + share) / 100, unit
    for how, number, unit in products:
        for c, v in plain:
            if _may_add(unit, v):
                yield f"{how} + {c:f}", number + c, unit or v
                yield f"{how} - {c:f}", number - c, unit or v
            if _may_multiply(unit, v):
                yield f"{how} x {c:f}", number * c, _product_unit(unit, v)
    for how, number, unit in sums:
        for c, v in plain:
            if _may_multiply(unit, v):
                yield f"({how}) x {c:f}", number * c, _product_unit(unit, v)
    for count in range(3, len(plain) + 1):
        # A sum is said behind what it is made of.
        addends = plain[:count]
        if len({unit for _, unit in addends if unit}) <= 1:
            yield (
                " + ".join(f"{number:f}" for number, _ in addends),
                sum((number for number, _ in addends), Decimal(0)),
                addends[0][1],
            )


def _may_add(unit: str, other: str) -> bool:
    """True when two numbers may be added: of one unit, or one of them without any."""
    return unit == other or not unit or not other


def _may_multiply(unit: str, other: str) -> bool:
    """True when two numbers may be multiplied: money by money, or days by days, means nothing."""
    return unit not in _MEASURES or other not in _MEASURES or unit != other


def _product_unit(unit: str, other: str) -> str:
    return unit if unit in _MEASURES else other


def _complete_date(day: object) -> date | None:
    match day:
        case (int(year), int(month), int(number)):
            try:
                return date(year, month, number)
            except ValueError:
                return None
    return None


def _dates_of_value(row: TextValue) -> list[date]:
    return [day for reading in row.readings if (day := _complete_date(reading)) is not None]


def _derive_date(value: TextValue, operands: Sequence[TextValue]) -> str:
    """A date that lies a stated time after or before another."""
    spans = [
        (int(n), row.unit)
        for row in operands
        if row.kind == "number" and (n := next(iter(row.number_readings), None)) and n == int(n) < 10_000
    ]
    for start in (day for row in operands if row.kind == "date" for day in _dates_of_value(row)):
        for count, unit in spans:
            for sign in (1, -1):
                for shifted in _shifted_dates(start, sign * count, unit):
                    reading: Day = (shifted.year, shifted.month, shifted.day)
                    if value.is_same(TextValue("date", frozenset({reading}), "", 0, 0)):
                        return f"{start} {'+' if sign > 0 else '-'} {count} {unit}s"
    return ""


def _shifted_dates(start: date, count: int, unit: str) -> list[date]:
    try:
        if unit in ("day", "week"):
            shifted = start + timedelta(days=count * (7 if unit == "week" else 1))
            return [shifted, shifted - timedelta(days=1)]
        if unit in ("month", "year"):
            months = start.year * 12 + start.month - 1 + count * (12 if unit == "year" else 1)
            year, month = divmod(months, 12)
            shifted = date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))
            return [shifted, shifted - timedelta(days=1)]
    except (ValueError, OverflowError):
        pass
    return []


def _derive_from_dates(value: TextValue, operands: Sequence[TextValue]) -> str:
    """A number of days, weeks, months or years between two dates."""
    days = [day for row in operands if row.kind == "date" for day in _dates_of_value(row)]
    for first, last in permutations(dict.fromkeys(days), 2):
        apart = (last - first).days
        if apart < 0:
            continue
        spans = {"day": {apart, apart + 1}, "week": {apart // 7}, "month": {apart // 30, round(apart / 30.4)}}
        spans["year"] = {apart // 365, round(apart / 365.25)}
        near = spans.get(value.unit, spans["day"] if not value.unit else set())
        if any(isinstance(row, Decimal) and row in near for row in value.readings):
            return f"from {first} to {last}"
    return ""
