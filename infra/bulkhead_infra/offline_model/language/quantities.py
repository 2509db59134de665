"""Amounts, percentages, dates and day ranges in plain text. Enters: text. Leaves: values with their place."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

CURRENCIES = "EUR|USD|GBP|CHF|SEK|NOK|DKK|CAD|AUD|NZD|JPY|PLN|CZK|SGD|HUF|INR|ZAR|BRL|MXN|CNY|HKD|TRY"
SYMBOL = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY"}
WORD_CURRENCY = {"euro": "EUR", "euros": "EUR", "dollars": "USD", "pounds": "GBP", "francs": "CHF"}
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
MONEY = re.compile(
    rf"\b({CURRENCIES})\s?({NUMBER})|([€$£¥])\s?({NUMBER})|\b({NUMBER})\s?(?:({CURRENCIES})\b|([€£])|"
    rf"(euros?|dollars|pounds|francs)\b)"
)
PERCENT = re.compile(rf"\b({NUMBER})\s?(?:%|percent\b|per cent\b|pct\b)", re.I)
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
MONTH_NUMBER = {name.lower(): number for number, name in enumerate(MONTHS.split("|"), 1)}
SHORT_MONTH = "|".join(name[:3] + r"\.?" for name in MONTHS.split("|"))
ANY_MONTH = f"{MONTHS}|{SHORT_MONTH}|Sept"
DATE = re.compile(
    rf"(?i)\b(\d{{4}})-(\d{{2}})-(\d{{2}})\b|\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({ANY_MONTH}),? (\d{{4}})\b|"
    rf"\b({ANY_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})\b|\b(\d{{1,2}})\.(\d{{1,2}})\.(\d{{4}})\b"
)


@dataclass(frozen=True)
class Money:
    """An amount in a text; `raw` is its spelling there."""

    amount: Decimal
    currency: str
    raw: str
    start: int
    end: int


@dataclass(frozen=True)
class Percent:
    value: Decimal
    raw: str
    start: int
    end: int


@dataclass(frozen=True)
class Day:
    day: date
    raw: str
    start: int
    end: int


@dataclass(frozen=True)
class DayRange:
    """A condition on a number of days, both ends included; `None` is open."""

    low: int | None
    high: int | None

    def holds(self, days: int) -> bool:
        return (self.low is None or days >= self.low) and (self.high is None or days <= self.high)

    def meets(self, other: "DayRange") -> bool:
        """Whether some number of days fits both."""
        low = max(self.low or 0, other.low or 0)
        highs = [high for high in (self.high, other.high) if high is not None]
        return not highs or low <= min(highs)


def find_money(text: str) -> list[Money]:
    """Amounts with a currency, in order."""
    amounts = []
    for match in MONEY.finditer(text):
        code, after_code, sign, after_sign, before, code_behind, sign_behind, word = match.groups()
        number = after_code or after_sign or before
        currency = code or code_behind or SYMBOL.get(sign or sign_behind or "") or WORD_CURRENCY[word]
        amounts.append(Money(Decimal(number.replace(",", "")), currency, match.group(), match.start(), match.end()))
    return amounts


def find_percents(text: str) -> list[Percent]:
    """Percentages, in order."""
    return [
        Percent(Decimal(match.group(1).replace(",", "")), match.group(), match.start(), match.end())
        for match in PERCENT.finditer(text)
    ]


def find_dates(text: str) -> list[Day]:
    """Calendar dates in the usual spellings (ISO, 3 May 2025, May 3, 2025, 03.05.2025), in order."""
    days = []
    for match in DATE.finditer(text):
        g = match.groups()
        forms = (g[:3], (g[5], g[4], g[3]), (g[8], g[6], g[7]), (g[11], g[10], g[9]))
        year, month, day = next(parts for parts in forms if parts[0])
        try:
            when = date(int(year), int(month) if month.isdigit() else _month(month), int(day))
        except ValueError:
            continue
        days.append(Day(when, match.group(), match.start(), match.end()))
    return days


def _month(name: str) -> int:
    short = name.lower().rstrip(".")[:3]
    return next(number for full, number in MONTH_NUMBER.items() if full.startswith(short))


CHARS_AROUND = 40
UNIT_DAYS = {"day": 1, "week": 7}
_N = r"(\d{1,4})"
_U = r"(?:calendar |full |working )?(day|week)s?"
RANGES: tuple[tuple[re.Pattern[str], int, int], ...] = tuple(
    (re.compile(pattern, re.I), low, high)
    for pattern, low, high in (
        # (pattern, offset of the low end, offset of the high end); 9 marks an open end
        (rf"\b(?:between |from )?{_N}(?: {_U})? ?(?:and|to|through|-|–|—) ?{_N} {_U}", 0, 0),
        (
            rf"\b(?:at least|no fewer than|not fewer than|no less than|not less than|a minimum of|no later than|"
            rf"not later than) {_N} {_U}",
            0,
            9,
        ),
        (rf"\b{_N} (?:or more {_U}|{_U} or (?:more|longer|earlier)|\+ ?{_U}|{_U} and (?:more|over|above))", 0, 9),
        (
            rf"\b(?:no more than|not more than|at most|up to|within|a maximum of|inside|the last|the final) {_N} {_U}",
            9,
            0,
        ),
        (rf"\b{_N} (?:or (?:fewer|less) {_U}|{_U} or (?:fewer|less|later))", 9, 0),
        (rf"\b(?:more than|over|longer than|exceeding) {_N} {_U}", 1, 9),
        (rf"\b(?:fewer than|less than|under|shorter than) {_N} {_U}", 9, -1),
    )
)


def find_day_range(text: str) -> DayRange | None:
    """The first condition on a number of days, such as `at least 21 days` or `7 to 20 days`."""
    for pattern, low, high in RANGES:
        match = pattern.search(text)
        if not match:
            continue
        numbers = [int(group) for group in match.groups() if group and group.isdigit()]
        units = [group.lower() for group in match.groups() if group and not group.isdigit()]
        scale = UNIT_DAYS[units[-1]]
        if len(numbers) == 2:
            return DayRange(min(numbers) * scale, max(numbers) * scale)
        count = numbers[0] * scale
        return DayRange(None if low == 9 else count + low, None if high == 9 else count + high)
    return None


def words_at_range(text: str) -> str:
    """The words around a condition on days, which tell its two ends; empty when there is no condition."""
    match = next(filter(None, (pattern.search(text) for pattern, _, _ in RANGES)), None)
    return text[max(0, match.start() - CHARS_AROUND) : match.end() + CHARS_AROUND] if match else ""


def plain(number: Decimal) -> str:
    """A decimal as a calculator reads it: no exponent, its decimals as written."""
    return format(number, "f")
