"""`date_add(date, days)`: the date that lies so many days after another."""

import re
from datetime import date, timedelta

from bulkhead.tools.api import Arguments, Call, Done, Failed

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`date + N days = date`."""
    start = read_date(arguments["date"])
    if isinstance(start, Failed):
        return start
    days = arguments["days"]
    try:
        end = start + timedelta(days=days)
    except OverflowError:
        return Failed("out_of_range", "the result lies outside the years 1-9999", "use fewer days")
    sign = "-" if days < 0 else "+"
    return Done(f"{start} {sign} {abs(days)} {'day' if abs(days) == 1 else 'days'} = {end}")


def read_date(text: str) -> date | Failed:
    """A date written YYYY-MM-DD."""
    try:
        if _ISO.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    return Failed("bad_date", f"{text[:20]!r} is no date of the calendar", "write it as YYYY-MM-DD")
