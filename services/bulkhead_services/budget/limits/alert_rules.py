"""Which accounts come near their limits. Pure.

In: how far each ceiling of a settled call's accounts has come, the time, how each grew lately. Out: alerts. An alert's
id derives from the account, its unit, its limit and the threshold: whoever finds it, in whatever order, names it the
same, and a limit that was changed has alerts of its own. A leap over several thresholds is told by the highest.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from bulkhead_services.budget.ledger.model import Level

SHARES = (95, 80, 50)
"""Percent of a limit that are told."""
WINDOW_MS = 300_000
"""The rate is that of the last five minutes."""
STEP_MS = 10_000
"""One sample for so long."""
MIN_SPAN_MS = 60_000
"""Nothing is said of a rate that was watched for less than a minute,"""
MIN_SAMPLES = 4
"""nor of one or two large calls,"""
MIN_PERCENT = 10
"""nor while next to nothing is spent;"""
AHEAD = 12
"""nor of a time that is further away than so many times what was watched: five minutes say nothing of a day."""

Kind = Literal["share", "rate"]


@dataclass(frozen=True, slots=True)
class Alert:
    """reached_unix_ms: when the limit is reached if it goes on so; 0 for a share."""

    id: str
    kind: Kind
    level: Level
    percent: int
    reached_unix_ms: int = 0


class Sample(NamedTuple):
    """What an account had spent at a time."""

    at_unix_ms: int
    spent: int


Pace = tuple[Sample, ...]
"""Samples of one ceiling, the oldest first."""


def share(level: Level) -> Alert | None:
    """The highest threshold that is reached."""
    for percent in SHARES:
        if level.limit > 0 and level.spent * 100 >= level.limit * percent:
            return Alert(_id("share", level, percent), "share", level, percent)
    return None


def paced(pace: Pace, level: Level, now_unix_ms: int) -> Pace:
    """The samples after one more look. Looks that come late or in another order change nothing that is known."""
    if pace and (now_unix_ms < pace[-1].at_unix_ms or level.spent < pace[-1].spent):
        return pace
    fresh = Sample(now_unix_ms, level.spent)
    kept = tuple(one for one in pace if one.at_unix_ms > now_unix_ms - WINDOW_MS)
    if len(kept) > 1 and kept[-1].at_unix_ms - kept[-2].at_unix_ms < STEP_MS:
        kept = kept[:-1]
    return (*kept, fresh)


def burning(pace: Pace, level: Level, now_unix_ms: int) -> Alert | None:
    """The limit is reached before the account's period ends, if it goes on as it did in these samples."""
    if len(pace) < MIN_SAMPLES or level.limit <= 0:
        return None
    span, gained = now_unix_ms - pace[0].at_unix_ms, level.spent - pace[0].spent
    left, percent = level.limit - level.spent, level.spent * 100 // level.limit
    if span < MIN_SPAN_MS or gained <= 0 or left <= 0 or not MIN_PERCENT <= percent < SHARES[0]:
        return None
    takes = left * span // gained
    if takes > AHEAD * span or now_unix_ms + takes >= ends(level):
        return None
    return Alert(_id("rate", level, 0), "rate", level, percent, now_unix_ms + takes)


def ends(level: Level) -> int:
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


def _id(kind: Kind, level: Level, percent: int) -> str:
    name = f"{kind}|{level.scope}|{level.unit}|{level.limit}|{percent}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]
