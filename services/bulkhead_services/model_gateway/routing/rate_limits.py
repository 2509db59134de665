"""Rate limits that providers tell in headers. Enters: the headers of an answer. Leaves: how long a call has to wait.

Read are `x-ratelimit-*` (OpenAI, Azure, Groq and most others) and `anthropic-ratelimit-*`. Both describe token buckets:
the reset is the time at which a bucket is full again, and it fills evenly until then.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

BUCKET_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|[smhd]))+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
MAX_WAIT_S = 60.0
"""No longer wait is believed without a refusal: buckets of a minute are full by then."""


@dataclass(slots=True)
class RateBucket:
    """One limit as it was told at `read_at_s`: `remaining` of `capacity`, full again `refill_s` later."""

    capacity: float
    remaining: float
    refill_s: float
    read_at_s: float

    def count_call(self, amount: float) -> None:
        """Count a call that is sent now, until the next answer tells the real figure."""
        self.remaining -= amount

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much is left; a call that is larger than the bucket waits for a full one."""
        lacks = min(amount, self.capacity) - self.remaining
        if lacks <= 0 or self.refill_s <= 0:
            return 0.0
        speed = max(self.capacity - self.remaining, lacks) / self.refill_s
        return min(MAX_WAIT_S, max(0.0, lacks / speed - (now_s - self.read_at_s)))


def buckets_of_headers(headers: Mapping[str, str], now_s: float) -> dict[str, RateBucket]:
    """The buckets that an answer tells of, by kind; without what makes no sense."""
    buckets: dict[str, RateBucket] = {}
    if not any("ratelimit" in name for name in headers):
        return buckets
    for kind in BUCKET_KINDS:
        header = _KindHeaders(headers, kind)
        capacity, remaining = (_parse_number(header(name)) for name in ("limit", "remaining"))
        refill_s = _seconds_until(header("reset"), headers.get("date", ""))
        if capacity and remaining is not None and refill_s is not None and remaining <= capacity:
            buckets[kind] = RateBucket(capacity, remaining, refill_s, now_s)
    return buckets


class _KindHeaders:
    """The headers of one kind, in either spelling."""

    def __init__(self, headers: Mapping[str, str], kind: str) -> None:
        self._headers, self._kind = headers, kind

    def __call__(self, name: str) -> str:
        spellings = f"x-ratelimit-{name}-{self._kind}", f"anthropic-ratelimit-{self._kind}-{name}"
        return next((self._headers[spelling] for spelling in spellings if spelling in self._headers), "")


def _parse_number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,12}", text) else None


def _seconds_until(text: str, date: str) -> float | None:
    """`1m2.5s`, `6000ms`, plain seconds, or a time (RFC 3339), which is read against the answer's own Date."""
    if _SPAN.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text))
    if re.fullmatch(r"\d{1,6}(?:\.\d{1,6})?", text):
        return float(text)
    try:
        return max(0.0, (datetime.fromisoformat(text) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
