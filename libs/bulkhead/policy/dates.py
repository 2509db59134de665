"""Days and times of day as people write them, each in one canonical form.

In: a text. Out: days as `2026-03-14`, times as `15:00`. A day without a year, a day in words (`tomorrow`) and one that
reads two ways (`03/04/2026`) have no form: which day is meant is not in the text. Pure.
"""

import re
from collections.abc import Iterator
from datetime import date, time
from typing import Literal

_MONTHS = (
    "january januar janvier enero jan janv ene|february februar février febrero feb fév|"
    "march märz maerz mars marzo mar mär|april avril abril apr avr abr|may mai mayo|june juni juin junio jun|"
    "july juli juillet julio jul juil|august août agosto aug ago|september septembre septiembre sep sept|"
    "october oktober octobre octubre oct okt|november novembre noviembre nov|"
    "december dezember décembre diciembre dec dez déc dic"
)
_MONTH_BY_NAME = {name: number for number, names in enumerate(_MONTHS.split("|"), 1) for name in names.split()}
_NAMES = "|".join(sorted(_MONTH_BY_NAME, key=len, reverse=True))
_DAY = re.compile(
    r"(?<![\w./-])(?:"
    r"(?P<iso_year>\d{4})-(?P<iso_month>\d{2})-(?P<iso_day>\d{2})"
    rf"|(?P<day>\d{{1,2}})(?:\.|st|nd|rd|th)? (?:of |de )?(?P<month>{_NAMES})\.?,? (?:de )?(?P<year>\d{{4}})"
    rf"|(?P<month_first>{_NAMES})\.? (?P<day_second>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year_last>\d{{4}})"
    r"|(?P<dotted_day>\d{1,2})\. ?(?P<dotted_month>\d{1,2})\. ?(?P<dotted_year>\d{4})"
    r"|(?P<slashed>\d{1,2}/\d{1,2})/(?P<slashed_year>\d{4})"
    r")(?![\w/-]|\.\d)",
    re.I,
)
_TIME = re.compile(
    r"(?<![\w.:,-])(?P<hour>\d{1,2})(?:[:.h](?P<minute>[0-5]\d)(?::00)?)? ?(?P<half>[ap]\.?m\b\.?)?(?P<clock> ?uhr\b)?"
    r"(?![\w:-]|\.\d)",
    re.I,
)
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(?::00)?")
DayOrTime = Literal["date", "time"]


def days_and_times(text: str) -> Iterator[tuple[DayOrTime, str, str]]:
    """(kind, as it stands there, form) of each day and each time of day in a text."""
    text = _MOMENT.sub(r"\1 \2", text)
    for match in _DAY.finditer(text):
        if (day := _day_form(match)) is not None:
            yield "date", match[0], day
    for match in _TIME.finditer(_DAY.sub("\x00", text)):
        if (hours := _time_form(match)) is not None:
            yield "time", match[0].strip(), hours


def moment_form(text: str) -> tuple[DayOrTime, str] | None:
    """Kind and form of a text that is a day, a time, or a day with a time (`2026-03-14 15:00`), and nothing else."""
    if match := _MOMENT.fullmatch(text):
        day, hours = _DAY.fullmatch(match[1]), _TIME.fullmatch(match[2])
        forms = (day and _day_form(day), hours and _time_form(hours))
        return ("date", " ".join(form for form in forms if form)) if all(forms) else None
    if match := _DAY.fullmatch(text):
        day_form = _day_form(match)
        return ("date", day_form) if day_form is not None else None
    if match := _TIME.fullmatch(text):
        time_form = _time_form(match)
        return ("time", time_form) if time_form is not None else None
    return None


def _day_form(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    year = next(
        groups[name] for name in ("iso_year", "year", "year_last", "dotted_year", "slashed_year") if groups[name]
    )
    name = groups["month"] or groups["month_first"]
    if groups["slashed"]:
        first, second = map(int, groups["slashed"].split("/"))
        if first <= 12 and second <= 12 and first != second:
            return None
        month, day = (first, second) if second > 12 else (second, first)
    else:
        month = _MONTH_BY_NAME[name.lower()] if name else int(groups["iso_month"] or groups["dotted_month"])
        day = int(groups["iso_day"] or groups["day"] or groups["day_second"] or groups["dotted_day"])
    try:
        return date(int(year), month, day).isoformat()
    except ValueError:
        return None


def _time_form(match: re.Match[str]) -> str | None:
    """A bare number is no time, and `9.30` one only with a word beside it."""
    half = (match["half"] or "").lower()[:1]
    named = bool(half or match["clock"])
    separator = match[0][len(match["hour"]) : len(match["hour"]) + 1]
    if not named and (match["minute"] is None or separator == "."):
        return None
    hour = int(match["hour"])
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    try:
        return time(hour, int(match["minute"] or 0)).strftime("%H:%M")
    except ValueError:
        return None
