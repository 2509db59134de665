"""Circuit breakers as a pure state machine: (breaker, call) -> breaker. Time is in the call.

    closed --error rate, latency, spike, chatter--> open --open_ms--> half_open --trials succeed--> closed
                                                      ^------- a trial fails ------|
    any state --reset by a person--> closed

One breaker per agent, tool, model or tenant. Replicas share the state: it is small, frozen and JSON.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from bulkhead.health.thresholds import BreakerThresholds

Phase = Literal["closed", "open", "half_open"]
BUCKETS = 12
"""Buckets of one window: old calls leave it in twelfths."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call ended. trial: it was let through as a trial. why: words of a failure, told when it opens the breaker.

    counted: this is about a call that was counted by itself; only that it failed is new.
    """

    at_unix_ms: int
    failed: bool = False
    latency_ms: int = 0
    trial: bool = False
    counted: bool = False
    why: str = ""


class Bucket(NamedTuple):
    """Calls of a twelfth of the window. number: which twelfth since 1970."""

    number: int
    calls: int = 0
    failed: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One breaker. usual: calls per window as they were, a moving average in thousandths; 0 until it is known, which is
    after a whole window. first: the twelfth in which the first call came.

    good: trials that succeeded in a row. openings: how often it opened without having closed: each time it stays open
    twice as long. flooded: it opened for how many calls came, not how they ended. last: when a failure with words of
    its own came last, and its words.
    """

    scope: str
    name: str
    phase: Phase = "closed"
    since_unix_ms: int = 0
    until_unix_ms: int = 0
    reason: str = ""
    buckets: tuple[Bucket, ...] = ()
    usual: int = 0
    first: int = 0
    good: int = 0
    openings: int = 0
    flooded: bool = False
    last: tuple[int, str] = (0, "")


def step(breaker: Breaker, call: Called, named: BreakerThresholds) -> Breaker:
    """The state after a call."""
    if breaker.phase == "open":
        return breaker
    if breaker.phase == "half_open":
        return _tried(breaker, call, named) if call.trial else breaker  # Any other went out before it opened.
    if call.at_unix_ms - call.latency_ms < breaker.since_unix_ms:
        return breaker  # It was under way when the breaker closed: it tells of what was then.
    breaker = _counted(breaker, call, named)
    if call.why:
        breaker = replace(breaker, last=(call.at_unix_ms, call.why))
    (reason, flooded), (at, why) = _why(breaker, named), breaker.last
    if reason and why and call.at_unix_ms - at < named.window_ms:
        reason = f"{reason}, one of them because {why}"[:500]
    return opened(breaker, call.at_unix_ms, reason, named, flooded=flooded) if reason else breaker


def _tried(breaker: Breaker, call: Called, named: BreakerThresholds) -> Breaker:
    if call.failed or call.latency_ms >= named.slow_ms:
        why = f" ({call.why})" if call.why else ""
        return opened(breaker, call.at_unix_ms, f"a trial failed{why}: {breaker.reason}"[:500], named)
    good = breaker.good + (not call.counted)
    if good < named.trials:
        return replace(breaker, good=good)
    return closed(breaker, call.at_unix_ms, f"{good} trials succeeded")


def half_open(breaker: Breaker) -> Breaker:
    """An open breaker after its time: trials are let through."""
    return replace(breaker, phase="half_open", since_unix_ms=breaker.until_unix_ms, good=0)


def closed(breaker: Breaker, at: int, reason: str) -> Breaker:
    """It is closed, with what it has learnt to be usual."""
    return Breaker(
        breaker.scope, breaker.name, since_unix_ms=at, reason=reason, usual=breaker.usual, first=breaker.first
    )


def opened(breaker: Breaker, at: int, reason: str, named: BreakerThresholds, *, flooded: bool = False) -> Breaker:
    """It is open, for twice as long as the time before, within bounds."""
    openings = breaker.openings + 1
    until = at + min(named.max_open_ms, named.open_ms * 2 ** min(openings - 1, 20))
    fresh = Breaker(breaker.scope, breaker.name, "open", at, until, reason, usual=breaker.usual, first=breaker.first)
    return replace(fresh, openings=openings, flooded=flooded, last=breaker.last)


def _counted(breaker: Breaker, call: Called, named: BreakerThresholds) -> Breaker:
    width = max(1, named.window_ms // BUCKETS)
    number = call.at_unix_ms // width
    buckets, usual, first = breaker.buckets, breaker.usual, breaker.first or number
    newest = buckets[-1].number if buckets else number
    if number <= newest - BUCKETS:
        return breaker  # Older than the window: a message that comes late.
    if not buckets or number > newest:
        passed = number - newest if buckets else 0
        if passed and number - first >= BUCKETS:
            # What was usual is learnt from what has left the window's newest part, a sixteenth at a time; and not
            # before a window was whole: beside a part of one whatever comes is many.
            rate = sum(one.calls for one in buckets) * 1_000
            usual = usual + (rate - usual) // 16 if usual else rate
        buckets = (*(one for one in buckets if one.number > number - BUCKETS), Bucket(number))
    where = next((at for at, one in enumerate(buckets) if one.number == number), None)
    if where is None:
        buckets = tuple(sorted((*buckets, Bucket(number))))
        where = next(at for at, one in enumerate(buckets) if one.number == number)
    old = buckets[where]
    slow = call.latency_ms >= named.slow_ms
    new = Bucket(number, old.calls + (not call.counted), old.failed + call.failed, old.slow + slow)
    return replace(breaker, buckets=(*buckets[:where], new, *buckets[where + 1 :]), usual=usual, first=first)


def _why(breaker: Breaker, named: BreakerThresholds) -> tuple[str, bool]:
    """Why it opens, "" for it does not; and whether for how many calls came."""
    calls = sum(one.calls for one in breaker.buckets)
    if calls < named.min_calls:
        return "", False
    failed = sum(one.failed for one in breaker.buckets)
    if failed >= named.error_rate * calls:
        return f"{failed} of {calls} calls failed within {named.window_ms // 1000} s", False
    slow = sum(one.slow for one in breaker.buckets)
    if slow >= named.slow_rate * calls:
        return f"{slow} of {calls} calls took {named.slow_ms // 1000} s or more", False
    if breaker.usual and calls >= named.spike_min_calls and calls * 1_000 >= named.spike_factor * breaker.usual:
        return f"{calls} calls within {named.window_ms // 1000} s, where {breaker.usual // 1000} are usual", True
    return "", False
