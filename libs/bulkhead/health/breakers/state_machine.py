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
class CallOutcome:
    """A call ended. trial: it was let through as a trial. why: words of a failure, told when it opens the breaker.

    counted: this is about a call that was counted by itself; only that it failed is new.
    """

    at_unix_ms: int
    failed: bool = False
    latency_ms: int = 0
    trial: bool = False
    counted: bool = False
    why: str = ""


class CallBucket(NamedTuple):
    """Calls of a twelfth of the window. number: which twelfth since 1970."""

    number: int
    calls: int = 0
    failed: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class BreakerState:
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
    buckets: tuple[CallBucket, ...] = ()
    usual: int = 0
    first: int = 0
    good: int = 0
    openings: int = 0
    flooded: bool = False
    last: tuple[int, str] = (0, "")


def apply_call(breaker: BreakerState, call: CallOutcome, thresholds: BreakerThresholds) -> BreakerState:
    """The state after a call."""
    if breaker.phase == "open":
        return breaker
    if breaker.phase == "half_open":
        return (
            _after_trial(breaker, call, thresholds) if call.trial else breaker
        )  # Any other went out before it opened.
    if call.at_unix_ms - call.latency_ms < breaker.since_unix_ms:
        return breaker  # It was under way when the breaker closed: it tells of what was then.
    breaker = _count_call(breaker, call, thresholds)
    if call.why:
        breaker = replace(breaker, last=(call.at_unix_ms, call.why))
    (reason, flooded), (failed_unix_ms, failure_words) = _opening_reason(breaker, thresholds), breaker.last
    if reason and failure_words and call.at_unix_ms - failed_unix_ms < thresholds.window_ms:
        reason = f"{reason}, one of them because {failure_words}"[:500]
    return open_breaker(breaker, call.at_unix_ms, reason, thresholds, flooded=flooded) if reason else breaker


def _after_trial(breaker: BreakerState, call: CallOutcome, thresholds: BreakerThresholds) -> BreakerState:
    if call.failed or call.latency_ms >= thresholds.slow_ms:
        failure_words = f" ({call.why})" if call.why else ""
        return open_breaker(
            breaker, call.at_unix_ms, f"a trial failed{failure_words}: {breaker.reason}"[:500], thresholds
        )
    good = breaker.good + (not call.counted)
    if good < thresholds.trials:
        return replace(breaker, good=good)
    return close_breaker(breaker, call.at_unix_ms, f"{good} trials succeeded")


def half_open_breaker(breaker: BreakerState) -> BreakerState:
    """An open breaker after its time: trials are let through."""
    return replace(breaker, phase="half_open", since_unix_ms=breaker.until_unix_ms, good=0)


def close_breaker(breaker: BreakerState, at: int, reason: str) -> BreakerState:
    """It is closed, with what it has learnt to be usual."""
    return BreakerState(
        breaker.scope, breaker.name, since_unix_ms=at, reason=reason, usual=breaker.usual, first=breaker.first
    )


def open_breaker(
    breaker: BreakerState, at: int, reason: str, thresholds: BreakerThresholds, *, flooded: bool = False
) -> BreakerState:
    """It is open, for twice as long as the time before, within bounds."""
    openings = breaker.openings + 1
    until = at + min(thresholds.max_open_ms, thresholds.open_ms * 2 ** min(openings - 1, 20))
    fresh = BreakerState(
        breaker.scope, breaker.name, "open", at, until, reason, usual=breaker.usual, first=breaker.first
    )
    return replace(fresh, openings=openings, flooded=flooded, last=breaker.last)


def _count_call(breaker: BreakerState, call: CallOutcome, thresholds: BreakerThresholds) -> BreakerState:
    width = max(1, thresholds.window_ms // BUCKETS)
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
            rate = sum(bucket.calls for bucket in buckets) * 1_000
            usual = usual + (rate - usual) // 16 if usual else rate
        buckets = (*(bucket for bucket in buckets if bucket.number > number - BUCKETS), CallBucket(number))
    position = next((index for index, bucket in enumerate(buckets) if bucket.number == number), None)
    if position is None:
        buckets = tuple(sorted((*buckets, CallBucket(number))))
        position = next(index for index, bucket in enumerate(buckets) if bucket.number == number)
    old = buckets[position]
    slow = call.latency_ms >= thresholds.slow_ms
    new = CallBucket(number, old.calls + (not call.counted), old.failed + call.failed, old.slow + slow)
    return replace(breaker, buckets=(*buckets[:position], new, *buckets[position + 1 :]), usual=usual, first=first)


def _opening_reason(breaker: BreakerState, thresholds: BreakerThresholds) -> tuple[str, bool]:
    """Why it opens, "" for it does not; and whether for how many calls came."""
    calls = sum(bucket.calls for bucket in breaker.buckets)
    if calls < thresholds.min_calls:
        return "", False
    failed = sum(bucket.failed for bucket in breaker.buckets)
    if failed >= thresholds.error_rate * calls:
        return f"{failed} of {calls} calls failed within {thresholds.window_ms // 1000} s", False
    slow = sum(bucket.slow for bucket in breaker.buckets)
    if slow >= thresholds.slow_rate * calls:
        return f"{slow} of {calls} calls took {thresholds.slow_ms // 1000} s or more", False
    if (
        breaker.usual
        and calls >= thresholds.spike_min_calls
        and calls * 1_000 >= thresholds.spike_factor * breaker.usual
    ):
        return f"{calls} calls within {thresholds.window_ms // 1000} s, where {breaker.usual // 1000} are usual", True
    return "", False
