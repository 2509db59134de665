"""Circuit breakers as a pure state machine: (state, event) -> (state, answer). Time is in the event.

    closed --error rate, latency, spike, chatter--> open --open_ms--> half_open --trials succeed--> closed
                                                      ^------- a trial fails ------|
    any state --reset by a person--> closed            (not by the one who tripped it)

One breaker per agent, tool, model or tenant. Replicas share the state: it is small, frozen and JSON.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, assert_never

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


@dataclass(frozen=True, slots=True)
class Asked:
    """May a call be made?"""

    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Tripped:
    """Another detector (chatter, a loop) wants it open."""

    at_unix_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A person closes it."""

    at_unix_ms: int
    by: str
    person: bool = True


BreakerEvent = Called | Asked | Tripped | Reset


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

    trials: let through and not answered, each with the time when it was; good: trials that succeeded in a row.
    openings: how often it opened without having closed: each time it stays open twice as long. last: when a failure
    with words of its own came last, and its words.
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
    trials: tuple[int, ...] = ()
    good: int = 0
    openings: int = 0
    last: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Permit:
    """Go on. trial: say so in the `Called` that follows."""

    trial: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Not now."""

    reason: str
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The breaker has another phase: a fact for the journal. flooded: it opened for how many calls came, not how."""

    phase: Phase
    reason: str
    flooded: bool = False


@dataclass(frozen=True, slots=True)
class ResetRefused:
    """The one who tripped a breaker may not reset it."""

    reason: str


Answer = Permit | Held | Changed | ResetRefused | None


def step(breaker: Breaker, event: BreakerEvent, named: BreakerThresholds) -> tuple[Breaker, Answer]:
    """The state after an event, and what follows from it."""
    match event:
        case Called():
            return _called(breaker, event, named)
        case Asked(at):
            return _asked(breaker, at, named)
        case Tripped(at, reason):
            return (breaker, None) if breaker.phase == "open" else _open(breaker, at, reason, named)
        case Reset(at, by, person):
            if not person or by == breaker.name:
                return breaker, ResetRefused(
                    f"{by} may not reset the breaker of {breaker.scope} {breaker.name}; "
                    "an operator can: bulkhead breakers reset"
                )
            if breaker.phase == "closed":
                return breaker, None
            return _close(breaker, at, f"reset by {by}")
        case _:
            assert_never(event)


def _asked(breaker: Breaker, at: int, named: BreakerThresholds) -> tuple[Breaker, Answer]:
    if breaker.phase == "closed":
        return breaker, Permit()
    if breaker.phase == "open":
        if at < breaker.until_unix_ms:
            return breaker, Held(breaker.reason, breaker.until_unix_ms - at)
        breaker = replace(breaker, phase="half_open", since_unix_ms=at, trials=(), good=0)
    # A trial whose caller died must not hold the others up for ever.
    trials = tuple(one for one in breaker.trials if one + named.trial_timeout_ms > at)
    if len(trials) + breaker.good >= named.trials:
        wait = max(1, min(trials) + named.trial_timeout_ms - at) if trials else named.open_ms
        held = Held(f"trials are under way: {breaker.reason}", min(wait, named.open_ms))
        return replace(breaker, trials=trials), held
    return replace(breaker, trials=(*trials, at)), Permit(trial=True)


def _called(breaker: Breaker, call: Called, named: BreakerThresholds) -> tuple[Breaker, Answer]:
    if breaker.phase == "half_open":
        if not call.trial:
            return breaker, None  # It was let through before the breaker opened.
        if call.failed or call.latency_ms >= named.slow_ms:
            why = f" ({call.why})" if call.why else ""
            return _open(breaker, call.at_unix_ms, f"a trial failed{why}: {breaker.reason}"[:500], named)
        if call.counted:
            return breaker, None
        good, trials = breaker.good + 1, breaker.trials[1:]
        if good < named.trials:
            return replace(breaker, good=good, trials=trials), None
        return _close(breaker, call.at_unix_ms, f"{good} trials succeeded")
    if breaker.phase == "open":
        return breaker, None
    if call.at_unix_ms - call.latency_ms < breaker.since_unix_ms:
        return breaker, None  # It was under way when the breaker closed: it tells of what was then.
    breaker = _counted(breaker, call, named)
    if call.why:
        breaker = replace(breaker, last=(call.at_unix_ms, call.why))
    (reason, flooded), (at, why) = _why(breaker, named), breaker.last
    if reason and why and call.at_unix_ms - at < named.window_ms:
        reason = f"{reason}, one of them because {why}"[:500]
    return _open(breaker, call.at_unix_ms, reason, named, flooded=flooded) if reason else (breaker, None)


def _close(breaker: Breaker, at: int, reason: str) -> tuple[Breaker, Answer]:
    fresh = Breaker(
        breaker.scope, breaker.name, since_unix_ms=at, reason=reason, usual=breaker.usual, first=breaker.first
    )
    return fresh, Changed("closed", reason)


def _open(
    breaker: Breaker, at: int, reason: str, named: BreakerThresholds, *, flooded: bool = False
) -> tuple[Breaker, Answer]:
    openings = breaker.openings + 1
    lasts = min(named.max_open_ms, named.open_ms * 2 ** min(openings - 1, 20))
    opened = replace(
        breaker,
        phase="open",
        since_unix_ms=at,
        until_unix_ms=at + lasts,
        reason=reason,
        buckets=(),
        trials=(),
        good=0,
        openings=openings,
    )
    return opened, Changed("open", reason, flooded)


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
