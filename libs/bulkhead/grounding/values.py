"""Numbers, dates and identifiers of a text, in the ways in which people write them.

Two values are the same when one reading of each is: `1.234` is 1234 for one reader and 1.234 for another, and both are
kept. Digits within a name (LF-200, Q3) are no number.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from bulkhead.grounding.language import MONTHS, NUMBER_WORDS, UNITS, fold

Kind = Literal["number", "date", "time", "identifier"]
SMALL = 10
"""Whole numbers up to here are counting words more often than claims."""
_ISO = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)")
_SLASHED = re.compile(r"(?<![\d./])(\d{1,2})([./])(\d{1,2})\2(\d{4})(?!\d)")
_CJK_DATE = re.compile(r"(?<!\d)(\d{4})年(\d{1,2})月(?:(\d{1,2})日)?")
_DAY_FIRST = re.compile(
    r"(?<![\w.,])(\d{1,2})(?:st|nd|rd|th|er|\.|º)?\s{1,2}(?:de\s|of\s)?([^\W\d_]{3,10})\.?"
    r"(?:,?\s{1,2}(?:de\s)?(\d{4}))?(?!\w)"
)
_MONTH_FIRST = re.compile(
    r"(?<!\w)([^\W\d_]{3,10})\.?\s{1,2}(?:(\d{1,2})(?:st|nd|rd|th)?(?:,?\s{1,2}(\d{4}))?|(\d{4}))"
    r"(?![\w%])"
)
_TIME = re.compile(r"(?<![\d:.,])([01]?\d|2[0-3])[:h]([0-5]\d)(?![\d:])")
_TOKEN = re.compile(r"\w+(?:[./-]\w+)*+")
_GROUPED = re.compile(
    r"(?<![\w.,])\d{1,3}(?:[ \u00a0\u202f]\d{3}){1,6}(?!\d)(?=[.,]\d{2}(?!\d)|\s?(?:[€$£%]|EUR|USD|CHF))"
)
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\d[\d.,'’]*+")
_GLUED = re.compile(r"([A-Z]{3}|[€$£])?(\d[\d.,]*)-?([^\W\d_]{1,7}|[%€$£])?\Z")
_WORD = re.compile(r"[^\W\d_]+")
_AFTER = re.compile(r"[ \u00a0\u202f-]{0,2}([%€$£]|[^\W\d_]+)")
_BEFORE = re.compile(r"([€$£]|(?<![A-Za-z])[A-Z]{3})[ \u00a0]{0,2}\Z")
_ORDINALS = frozenset({"st", "nd", "rd", "th"})
Day = tuple[int | None, int, int | None]
"""(year, month, day); None where the text leaves it open."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value. readings: what it may be. unit: the folded word beside a number, the same in every language where it
    is known; "" without one. places: decimals that were written."""

    kind: Kind
    readings: frozenset[Decimal | str | Day]
    raw: str
    start: int
    end: int
    unit: str = ""
    places: int = 0

    @property
    def numbers(self) -> tuple[Decimal, ...]:
        """What it may be as a number, the largest first: of `1,234` rather 1234 than 1.234."""
        return tuple(sorted((row for row in self.readings if isinstance(row, Decimal)), reverse=True))

    @property
    def strong(self) -> bool:
        """Whether it is a claim by itself: no counting word."""
        if self.kind != "number" or self.places:
            return True
        return any(abs(row) > SMALL or row != int(row) for row in self.numbers)

    def same(self, other: "Value") -> bool:
        """Whether one reading of both is the same; a date without a year is that of any year."""
        if self.kind != other.kind:
            return _year_of(self, other) or _year_of(other, self)
        if self.kind == "date":
            return any(_same_day(a, b) for a in self.readings for b in other.readings)
        return not self.readings.isdisjoint(other.readings)


class ValueIndex:
    """Where values stand, found by any of their readings. Of one value the first MAX_PLACES places are kept."""

    MAX_PLACES = 64

    def __init__(self) -> None:
        self._places: dict[object, list[tuple[int, Value]]] = {}

    def add(self, value: Value, place: int = 0) -> None:
        """Note a value's place."""
        for reading in value.readings:
            for key in (reading,) if not isinstance(reading, tuple) else (reading[1:], reading[0], reading[1]):
                rows = self._places.setdefault((value.kind, key), [])
                if len(rows) < self.MAX_PLACES and rows[-1:] != [(place, value)]:
                    rows.append((place, value))

    def find(self, value: Value) -> list[int]:
        """The places of a value, in order."""
        return list(dict.fromkeys(place for place, other in self._near(value) if value.same(other)))

    def __contains__(self, value: Value) -> bool:
        return any(value.same(other) for _, other in self._near(value))

    def _near(self, value: Value) -> Iterator[tuple[int, Value]]:
        keys: list[object] = []
        for reading in value.readings:
            if isinstance(reading, tuple):
                _, month, day = reading
                # A date without a day is that of any day of its month, and the other way round.
                keys += [("date", (month, day)), ("date", (month, None))] if day else [("date", month)]
            else:
                keys.append((value.kind, reading))
                if value.kind == "number" and reading == int(reading) and 1900 <= reading <= 2100:
                    keys.append(("date", int(reading)))
        return (row for key in keys for row in self._places.get(key, ()))


def _same_day(a: object, b: object) -> bool:
    assert isinstance(a, tuple) and isinstance(b, tuple)
    return all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _year_of(number: Value, date: Value) -> bool:
    if number.kind != "number" or date.kind != "date":
        return False
    return any(isinstance(day, tuple) and Decimal(day[0] or 0) in number.readings for day in date.readings)


def values(text: str) -> tuple[Value, ...]:
    """Every value of a text, in order."""
    found, text = _dates(text)
    rest: list[Value] = []
    text = _GROUPED.sub(lambda match: re.sub(r"\s", "'", match[0]), text)
    blanked = list(text)
    for token in _TOKEN.finditer(text):
        word = token[0]
        letters, digits = any(char.isalpha() for char in word), any(char.isdigit() for char in word)
        if not digits:
            if not letters or (number := NUMBER_WORDS.get(fold(word))) is None:
                continue
            unit = _unit_after(text, token.end())
            rest.append(Value("number", frozenset({Decimal(number)}), word, token.start(), token.end(), unit))
        elif glued := _GLUED.match(word) if letters else None:
            unit = fold(glued[3] or glued[1] or "")
            made = _number(glued[2], token.start(), token.end(), "" if unit in _ORDINALS else UNITS.get(unit, unit))
            rest.extend(made)
            blanked[token.start() : token.end()] = " " * len(word)
        elif letters or "/" in word or word.count("-") or (word.count(".") > 1 and not _groups(word, ".")):
            key = fold(word).strip("./-")
            rest.append(Value("identifier", frozenset({key}), word, token.start(), token.end()))
            if letters or word.count(".") > 1:
                blanked[token.start() : token.end()] = " " * len(word)
    plain = "".join(blanked)
    for match in _NUMBER.finditer(plain):
        raw = match[0].rstrip(".,'’")
        end = match.start() + len(raw)
        before = _BEFORE.search(plain, max(0, match.start() - 6), match.start())
        unit = UNITS.get(fold(before[1]), "") if before else ""
        rest.extend(_number(raw, match.start(), end, unit or _unit_after(plain, end)))
    return tuple(sorted((*found, *rest), key=lambda row: row.start))


def _unit_after(text: str, end: int) -> str:
    after = _AFTER.match(text, end)
    word = fold(after[1]) if after else ""
    return UNITS.get(word, word[:6])


def _number(raw: str, start: int, end: int, unit: str) -> list[Value]:
    readings = frozenset(_readings(raw.lstrip("-−").replace("’", "'")))
    if not readings:
        return []
    places = max((-int(row.as_tuple().exponent) for row in readings), default=0)
    same: frozenset[Decimal | str | Day] = frozenset(row.normalize() for row in readings)
    return [Value("number", same, raw, start, end, unit, max(0, places))]


def _readings(raw: str) -> list[Decimal]:
    """What a run of digits and separators may be: both `1.234` and `1234` of one with three digits behind."""
    raw = raw.replace("'", "")
    dots, commas = raw.count("."), raw.count(",")
    if dots and commas:
        point, group = (".", ",") if raw.rfind(".") > raw.rfind(",") else (",", ".")
        if raw.count(point) > 1 or not _groups(raw.split(point)[0], group):
            return [value for cell in raw.split(",") for value in _readings(cell)] if point == "." else []
        return _decimals(raw.replace(group, "").replace(point, "."))
    if not dots and not commas:
        return _decimals(raw)
    separator = "." if dots else ","
    whole = _decimals(raw.replace(separator, "")) if _groups(raw, separator) else []
    if dots + commas == 1:
        return [*_decimals(raw.replace(separator, ".")), *whole]
    return whole or ([value for cell in raw.split(",") for value in _decimals(cell)] if commas else [])


def _groups(raw: str, separator: str) -> bool:
    first, *others = raw.split(separator)
    return 1 <= len(first) <= 3 and all(len(row) == 3 for row in others)


def _decimals(raw: str) -> list[Decimal]:
    if len(raw) > 40:
        return []
    try:
        return [Decimal(raw)]
    except InvalidOperation:
        return []


def _dates(text: str) -> tuple[list[Value], str]:
    """The dates, and the text with blanks in their places."""
    found: list[Value] = []

    def take(match: re.Match[str], *days: Day) -> str:
        good = [day for day in days if 1 <= day[1] <= 12 and (day[2] is None or 1 <= day[2] <= 31)]
        if not good:
            return match[0]
        found.append(Value("date", frozenset(good), match[0].strip(), match.start(), match.end()))
        return " " * len(match[0])

    def month(name: str) -> int:
        return 0 if name == "may" else MONTHS.get(fold(name), 0)

    def year(raw: str | None) -> int | None:
        return int(raw) if raw else None

    def clock(match: re.Match[str]) -> str:
        minutes = Decimal(int(match[1]) * 60 + int(match[2]))
        found.append(Value("time", frozenset({minutes}), match[0], match.start(), match.end()))
        return " " * len(match[0])

    text = _TIME.sub(clock, text)
    text = _ISO.sub(lambda m: take(m, (int(m[1]), int(m[2]), int(m[3]))), text)
    text = _CJK_DATE.sub(lambda m: take(m, (int(m[1]), int(m[2]), int(m[3]) if m[3] else None)), text)
    text = _SLASHED.sub(
        lambda m: take(
            m, (int(m[4]), int(m[3]), int(m[1])), *([(int(m[4]), int(m[1]), int(m[3]))] if m[2] == "/" else [])
        ),
        text,
    )
    text = _DAY_FIRST.sub(lambda m: take(m, (year(m[3]), month(m[2]), int(m[1]))), text)
    text = _MONTH_FIRST.sub(lambda m: take(m, (year(m[3] or m[4]), month(m[1]), int(m[2]) if m[2] else None)), text)
    return found, text


def names(found: Iterable[Value]) -> frozenset[str]:
    """The identifiers among values, folded."""
    return frozenset(str(reading) for row in found if row.kind == "identifier" for reading in row.readings)
