"""Numbers, dates and identifiers of a text, in the ways in which people write them.

Two values are the same when one reading of each is: `1.234` is 1234 for one reader and 1.234 for another, and both are
kept. Digits within a name (LF-200, Q3) are no number.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

from bulkhead.grounding.language import MONTHS, NUMBER_WORDS, UNITS, fold_text

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
class TextValue:
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
    def number_readings(self) -> tuple[Decimal, ...]:
        """Readings as a number, the largest first: of `1,234` rather 1234 than 1.234."""
        return tuple(sorted((row for row in self.readings if isinstance(row, Decimal)), reverse=True))

    @property
    def is_claim(self) -> bool:
        """True for a claim by itself: no counting word."""
        if self.kind != "number" or self.places:
            return True
        return any(abs(row) > SMALL or row != int(row) for row in self.number_readings)

    def is_same(self, other: "TextValue") -> bool:
        """True when one reading of both is the same; a date without a year is that of any year."""
        if self.kind != other.kind:
            return _is_year_of(self, other) or _is_year_of(other, self)
        if self.kind == "date":
            return any(_is_same_day(a, b) for a in self.readings for b in other.readings)
        return not self.readings.isdisjoint(other.readings)


class ValueIndex:
    """Places of values, found by any of their readings. Of one value the first MAX_PLACES places are kept."""

    MAX_PLACES = 64

    def __init__(self) -> None:
        self._places: dict[object, list[tuple[int, TextValue]]] = {}

    def add(self, value: TextValue, place: int = 0) -> None:
        """Note a value's place."""
        for reading in value.readings:
            for key in (reading,) if not isinstance(reading, tuple) else (reading[1:], reading[0], reading[1]):
                rows = self._places.setdefault((value.kind, key), [])
                if len(rows) < self.MAX_PLACES and rows[-1:] != [(place, value)]:
                    rows.append((place, value))

    def find(self, value: TextValue) -> list[int]:
        """The places of a value, in order."""
        return list(
            dict.fromkeys(place for place, candidate in self._candidate_rows(value) if value.is_same(candidate))
        )

    def __contains__(self, value: TextValue) -> bool:
        return any(value.is_same(candidate) for _, candidate in self._candidate_rows(value))

    def _candidate_rows(self, value: TextValue) -> Iterator[tuple[int, TextValue]]:
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


def _is_same_day(a: object, b: object) -> bool:
    assert isinstance(a, tuple) and isinstance(b, tuple)
    return all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _is_year_of(number: TextValue, date: TextValue) -> bool:
    if number.kind != "number" or date.kind != "date":
        return False
    return any(isinstance(day, tuple) and Decimal(day[0] or 0) in number.readings for day in date.readings)


def find_values(text: str) -> tuple[TextValue, ...]:
    """Every value of a text, in order."""
    dates, text = _extract_dates(text)
    other_values: list[TextValue] = []
    text = _GROUPED.sub(lambda match: re.sub(r"\s", "'", match[0]), text)
    blanked = list(text)
    for token in _TOKEN.finditer(text):
        token_text = token[0]
        letters, digits = any(map(str.isalpha, token_text)), any(map(str.isdigit, token_text))
        if not digits:
            if not letters or (number := NUMBER_WORDS.get(fold_text(token_text))) is None:
                continue
            unit = _unit_after(text, token.end())
            other_values.append(
                TextValue("number", frozenset({Decimal(number)}), token_text, token.start(), token.end(), unit)
            )
        elif glued := _GLUED.match(token_text) if letters else None:
            unit = fold_text(glued[3] or glued[1] or "")
            number_values = _number_values(
                glued[2], token.start(), token.end(), "" if unit in _ORDINALS else UNITS.get(unit, unit)
            )
            other_values.extend(number_values)
            blanked[token.start() : token.end()] = " " * len(token_text)
        elif (
            letters
            or "/" in token_text
            or token_text.count("-")
            or (token_text.count(".") > 1 and not _is_grouped(token_text, "."))
        ):
            key = fold_text(token_text).strip("./-")
            other_values.append(TextValue("identifier", frozenset({key}), token_text, token.start(), token.end()))
            if letters or token_text.count(".") > 1:
                blanked[token.start() : token.end()] = " " * len(token_text)
    plain = "".join(blanked)
    for match in _NUMBER.finditer(plain):
        raw = match[0].rstrip(".,'’")
        end = match.start() + len(raw)
        before = _BEFORE.search(plain, max(0, match.start() - 6), match.start())
        unit = UNITS.get(fold_text(before[1]), "") if before else ""
        other_values.extend(_number_values(raw, match.start(), end, unit or _unit_after(plain, end)))
    return tuple(sorted((*dates, *other_values), key=lambda row: row.start))


def _unit_after(text: str, end: int) -> str:
    after = _AFTER.match(text, end)
    unit_word = fold_text(after[1]) if after else ""
    return UNITS.get(unit_word, unit_word[:6])


def _number_values(raw: str, start: int, end: int, unit: str) -> list[TextValue]:
    readings = frozenset(_possible_readings(raw.lstrip("-−").replace("’", "'")))
    if not readings:
        return []
    places = max((-int(row.as_tuple().exponent) for row in readings), default=0)
    same: frozenset[Decimal | str | Day] = frozenset(map(Decimal.normalize, readings))
    return [TextValue("number", same, raw, start, end, unit, max(0, places))]


def _possible_readings(raw: str) -> list[Decimal]:
    """Possible readings of a run of digits and separators: both `1.234` and `1234` of one with three digits behind."""
    raw = raw.replace("'", "")
    dots, commas = raw.count("."), raw.count(",")
    if dots and commas:
        point, group = (".", ",") if raw.rfind(".") > raw.rfind(",") else (",", ".")
        if raw.count(point) > 1 or not _is_grouped(raw.split(point)[0], group):
            return [value for cell in raw.split(",") for value in _possible_readings(cell)] if point == "." else []
        return _parse_decimals(raw.replace(group, "").replace(point, "."))
    if not dots and not commas:
        return _parse_decimals(raw)
    separator = "." if dots else ","
    integers = _parse_decimals(raw.replace(separator, "")) if _is_grouped(raw, separator) else []
    if dots + commas == 1:
        return [*_parse_decimals(raw.replace(separator, ".")), *integers]
    return integers or ([value for cell in raw.split(",") for value in _parse_decimals(cell)] if commas else [])


def _is_grouped(raw: str, separator: str) -> bool:
    first, *groups = raw.split(separator)
    return 1 <= len(first) <= 3 and all(len(row) == 3 for row in groups)


def _parse_decimals(raw: str) -> list[Decimal]:
    if len(raw) > 40:
        return []
    try:
        return [Decimal(raw)]
    except InvalidOperation:
        return []


def _extract_dates(text: str) -> tuple[list[TextValue], str]:
    """The dates, and the text with blanks in their places."""
    found_values: list[TextValue] = []

    def note_date(match: re.Match[str], *days: Day) -> str:
        good = [day for day in days if 1 <= day[1] <= 12 and (day[2] is None or 1 <= day[2] <= 31)]
        if not good:
            return match[0]
        found_values.append(TextValue("date", frozenset(good), match[0].strip(), match.start(), match.end()))
        return " " * len(match[0])

    def month_number(name: str) -> int:
        return 0 if name == "may" else MONTHS.get(fold_text(name), 0)

    def parse_year(raw: str | None) -> int | None:
        return int(raw) if raw else None

    def note_time(match: re.Match[str]) -> str:
        minutes = Decimal(int(match[1]) * 60 + int(match[2]))
        found_values.append(TextValue("time", frozenset({minutes}), match[0], match.start(), match.end()))
        return " " * len(match[0])

    text = _TIME.sub(note_time, text)
    text = _ISO.sub(lambda m: note_date(m, (int(m[1]), int(m[2]), int(m[3]))), text)
    text = _CJK_DATE.sub(lambda m: note_date(m, (int(m[1]), int(m[2]), int(m[3]) if m[3] else None)), text)
    text = _SLASHED.sub(
        lambda m: note_date(
            m, (int(m[4]), int(m[3]), int(m[1])), *([(int(m[4]), int(m[1]), int(m[3]))] if m[2] == "/" else [])
        ),
        text,
    )
    text = _DAY_FIRST.sub(lambda m: note_date(m, (parse_year(m[3]), month_number(m[2]), int(m[1]))), text)
    text = _MONTH_FIRST.sub(
        lambda m: note_date(m, (parse_year(m[3] or m[4]), month_number(m[1]), int(m[2]) if m[2] else None)), text
    )
    return found_values, text


def identifier_names(found: Iterable[TextValue]) -> frozenset[str]:
    """The identifiers among values, folded."""
    return frozenset(str(reading) for row in found if row.kind == "identifier" for reading in row.readings)
