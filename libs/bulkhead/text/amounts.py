"""Amounts as people read them: counts, money, durations and times."""

import math
from datetime import datetime

FIGURE_SPACE = "\u2007"
"""As wide as a digit."""


def format_count(number: int, thing: str) -> str:
    """`1 step`, `2 steps`, `1,200 tokens`."""
    return f"{number:,} {thing if number == 1 else thing + ('es' if thing.endswith('s') else 's')}"


def format_usd(micros: int) -> str:
    """Dollars, with as many digits as a small amount needs."""
    dollars = micros / 1_000_000
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.6f}".rstrip("0").ljust(5, "0")


def format_usd_column(micros: int) -> str:
    """Dollars whose point stands under that of any other amount: six places, or two and blanks for four."""
    dollars = micros / 1_000_000
    return f"${dollars:.6f}" if 0 < dollars < 1 else f"${dollars:,.2f}" + 4 * FIGURE_SPACE


def format_usd_short(micros: int) -> str:
    """Dollars to three digits that count, for a figure that is read at a glance."""
    dollars = micros / 1_000_000
    places = min(6, 2 - math.floor(math.log10(dollars))) if 0 < dollars < 1 else 2
    return f"${dollars:,.{places}f}"


def format_cost(micros: int, estimated: int = 0) -> str:
    """Dollars, with the part that is an estimate."""
    return f"about {format_usd(micros)} ({format_usd(estimated)} estimated)" if estimated else format_usd(micros)


def format_tokens(number: int, estimated: int = 0) -> str:
    """A count of tokens, with the part that is an estimate."""
    return format_count(number, "token") + (f" ({estimated:,} estimated)" if estimated else "")


def format_duration(milliseconds: float) -> str:
    """A duration as people say it."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, remainder_s = divmod(round(milliseconds / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {remainder_s} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def format_time(unix_ms: int) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if unix_ms else "-"
