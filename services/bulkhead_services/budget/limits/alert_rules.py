"""Which accounts come near their limits. Pure.

In: how far each ceiling of a settled call's accounts has come, the time, how each grew lately. Out: alerts. An alert's
id derives from the account, its unit, its limit and the threshold: whoever finds it, in whatever order, names it the
same, and a limit that was changed has alerts of its own. A leap over several thresholds is told by the highest.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from bulkhead_services.budget.ledger.model import CeilingLevel

SHARES = (95, 80, 50)
"""Percent of a limit that are told."""
WINDOW_MS = 300_000
"""The rate is that of the last five minutes."""
SAMPLE_MS = 10_000
"""One sample for so long."""
MIN_SPAN_MS = 60_000
"""Nothing is said of a rate that was watched for less than a minute,"""
MIN_SAMPLES = 4
"""nor of one or two large calls,"""
MIN_PERCENT = 10
"""nor while next to nothing is spent;"""
MAX_AHEAD_FACTOR = 12
"""nor of a time that is further away than so many times what was watched: five minutes say nothing of a day."""

AlertKind = Literal["share", "rate"]


@dataclass(frozen=True, slots=True)
class LimitAlert:
    """reached_unix_ms: when the limit is reached if it goes on so; 0 for a share."""

    id: str
    kind: AlertKind
    level: CeilingLevel
    percent: int
    reached_unix_ms: int = 0


class SpendSample(NamedTuple):
    """Amount that an account had spent at a time."""

    at_unix_ms: int
    spent: int


SpendSamples = tuple[SpendSample, ...]
"""Samples of one ceiling, the oldest first."""


def share_alert(level: CeilingLevel) -> LimitAlert | None:
    """The highest threshold that is reached."""
    for percent in SHARES:
        if level.limit > 0 and level.spent * 100 >= level.limit * percent:
            return LimitAlert(_alert_id("share", level, percent), "share", level, percent)
    return None


def add_sample(samples: SpendSamples, level: CeilingLevel, now_unix_ms: int) -> SpendSamples:
    """The samples after one more look. Looks that come late or in another order change nothing that is known."""
    if samples and (now_unix_ms < samples[-1].at_unix_ms or level.spent < samples[-1].spent):
        return samples
    fresh = SpendSample(now_unix_ms, level.spent)
    recent = tuple(sample for sample in samples if sample.at_unix_ms > now_unix_ms - WINDOW_MS)
    if len(recent) > 1 and recent[-1].at_unix_ms - recent[-2].at_unix_ms < SAMPLE_MS:
        recent = recent[:-1]
    return (*recent, fresh)


def rate_alert(samples: SpendSamples, level: CeilingLevel, now_unix_ms: int) -> LimitAlert | None:
    """The limit is reached before the account's period ends, if it goes on as it did in these samples."""
    if len(samples) < MIN_SAMPLES or level.limit <= 0:
        return None
    span, gained = now_unix_ms - samples[0].at_unix_ms, level.spent - samples[0].spent
    remaining, percent = level.limit - level.spent, level.spent * 100 // level.limit
    if span < MIN_SPAN_MS or gained <= 0 or remaining <= 0 or not MIN_PERCENT <= percent < SHARES[0]:
        return None
    until_limit_ms = remaining * span // gained
    if until_limit_ms > MAX_AHEAD_FACTOR * span or now_unix_ms + until_limit_ms >= period_end(level):
        return None
    return LimitAlert(_alert_id("rate", level, 0), "rate", level, percent, now_unix_ms + until_limit_ms)


def period_end(level: CeilingLevel) -> int:
    """When the account's period is over (unix ms)."""
    if level.until_unix_ms:
        return level.until_unix_ms
    period = level.scope.rpartition(":")[2]
    try:
        first = datetime.fromisoformat(period if len(period) > len("2026-11") else f"{period}-01").replace(tzinfo=UTC)
    except ValueError:
        return 0  # A name without a time: nothing ends, so nothing can be too fast.
    days = 1 if len(period) > len("2026-11") else 32
    last = first + timedelta(days=days)
    return int((last if days == 1 else last.replace(day=1)).timestamp() * 1000)


def _alert_id(kind: AlertKind, level: CeilingLevel, percent: int) -> str:
    name = f"{kind}|{level.scope}|{level.unit}|{level.limit}|{percent}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]
