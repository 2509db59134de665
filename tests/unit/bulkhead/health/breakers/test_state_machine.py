"""Whole lives of breakers of tools, models, agents and tenants: closed, open, half-open, closed or open again; with
calls that are told late, twice or in another order, and by two replicas that fold the same stream."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bulkhead.health.breakers import registry as module
from bulkhead.health.breakers.registry import AGENT_MIN_CALLS, Key
from bulkhead.health.breakers.state_machine import BUCKETS, BreakerState, CallOutcome, apply_call
from bulkhead.health.events import CallEnded, LineageEnded
from bulkhead.health.findings import HealthFinding
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch

NAMED = DEFAULT.breakers
NOW = 1_790_000_000_000
TWELFTH = NAMED.window_ms // BUCKETS
TOOL, MODEL = ("tool", "acme", "look"), ("model", "acme", "big-1")
AGENT, TENANT = ("agent", "acme", "worker.clerk"), ("tenant", "", "acme")


class Life:
    """One breaker's, with the calls that it hears of. Times are since NOW."""

    def __init__(self, key: Key) -> None:
        self.key, self.watch, self.trips, self.phases = key, Watch(DEFAULT), list[HealthFinding](), ["closed"]
        self.stream: list[CallEnded] = []

    @property
    def breaker(self) -> BreakerState:
        return self.watch.breakers.states[self.key]

    def call(self, at_ms: int, latency_ms: int = 5, *, failed: bool = False) -> None:
        """A call that ended then."""
        scope, _, name = self.key
        resource = name if scope in ("tool", "model") else f"other{len(self.stream)}"
        kind = "model" if scope == "model" else "tool"
        event = CallEnded(
            f"m{len(self.stream)}",
            f"acme/t{len(self.stream) % 7}",
            "s1/1",
            "acme",
            kind,
            resource,
            failed and scope != "agent",
            latency_ms,
            NOW + at_ms,
            "worker.clerk" if scope == "agent" else "",
            failed,
        )
        self.hear(event)

    def hear(self, event: CallEnded) -> None:
        self.stream.append(event)
        self.trips += [one for one in self.watch.fold_event(event) if one.detector == f"breaker.{self.key[0]}"]  # type: ignore[union-attr]
        if (found := self.watch.breakers.states.get(self.key)) is not None and found.phase != self.phases[-1]:
            self.phases.append(found.phase)

    def due_ms(self) -> int:
        return self.breaker.until_unix_ms - NOW

    def trials(self, good: int, latency_ms: int = 5) -> None:
        """So many good trials, one after the other, each begun when the breaker lets calls go out."""
        begin = self.due_ms() + 1
        for number in range(good):
            self.call(begin + number * 10 + latency_ms, latency_ms)


def errors(life: Life, at_ms: int) -> None:
    for number in range(AGENT_MIN_CALLS):
        life.call(at_ms + number, failed=True)


def slowness(life: Life, at_ms: int) -> None:
    for number in range(NAMED.min_calls):
        life.call(at_ms + NAMED.slow_ms + number, NAMED.slow_ms)


def spike(life: Life, at_ms: int) -> None:
    if not at_ms:
        for number in range(120):
            life.call(number * 5_000)
    for number in range(NAMED.spike_min_calls):
        life.call(at_ms + 600_000 + number)


CAUSES = [
    (TOOL, errors, "calls failed"),
    (MODEL, errors, "calls failed"),
    (AGENT, errors, "calls failed"),
    (TOOL, slowness, "took 60 s or more"),
    (MODEL, slowness, "took 60 s or more"),
    (TOOL, spike, "are usual"),
    (MODEL, spike, "are usual"),
    (AGENT, spike, "are usual"),
    (TENANT, spike, "are usual"),
]


@pytest.mark.parametrize(("key", "cause", "words"), CAUSES, ids=[f"{one[0]}-{two.__name__}" for one, two, _ in CAUSES])
def test_a_whole_life(key: Key, cause, words: str) -> None:
    """Opened by its cause, tried, closed; the cause comes back, and it opens for as long as at first."""
    life = Life(key)
    cause(life, 0)
    assert life.phases == ["closed", "open"] and words in life.breaker.reason
    assert life.breaker.until_unix_ms - life.breaker.since_unix_ms == NAMED.open_ms
    (trip,) = life.trips
    assert (trip.detector, trip.level, trip.agents) == (f"breaker.{key[0]}", "stop", (key[2],)) and trip.evidence
    assert set(trip.evidence) <= {one.id for one in life.stream}
    life.trials(NAMED.trials - 1)
    assert life.phases == ["closed", "open", "half_open"], "one good trial is missing"
    life.call(life.due_ms() + 1_000)
    assert life.phases[-1] == "closed" and life.breaker.reason == "3 trials succeeded"
    cause(life, 10_000_000)
    assert life.phases[3:] == ["closed", "open"] and len(life.trips) == 2
    assert life.breaker.openings == 1, "it had closed: its patience is what it was"


@pytest.mark.parametrize(
    ("key", "cause"), [(TOOL, errors), (MODEL, slowness), (AGENT, errors)], ids=["tool", "model", "agent"]
)
def test_trials_that_fail_open_it_for_longer_each_time_up_to_a_bound(key: Key, cause) -> None:
    life = Life(key)
    cause(life, 0)
    lasted = []
    for _ in range(7):
        lasted.append(life.breaker.until_unix_ms - life.breaker.since_unix_ms)
        life.trials(NAMED.trials - 1)
        if cause is slowness:
            life.call(life.due_ms() + 100 + NAMED.slow_ms, NAMED.slow_ms)  # It answers well, and too late.
        else:
            life.call(life.due_ms() + 100, failed=True)
    assert lasted == [min(NAMED.max_open_ms, NAMED.open_ms * 2**times) for times in range(7)]
    assert len({trip.id for trip in life.trips}) == len(life.trips) == 8
    life.trials(NAMED.trials)
    assert life.breaker.phase == "closed"


def test_calls_of_before_it_closed_say_nothing_about_it_now() -> None:
    """A time-out of 40 s that began in the outage ends after the trials; so does news that comes late."""
    life = Life(TOOL)
    errors(life, 0)
    life.trials(NAMED.trials)
    closed = life.breaker
    for number in range(NAMED.min_calls):
        life.call(life.breaker.since_unix_ms - NOW + 5_000 + number, 40_000, failed=True)
        life.call(1_000 + number, failed=True)
    assert life.breaker == closed and life.phases[-1] == "closed"
    errors(life, closed.since_unix_ms - NOW + 10_000)
    assert life.phases[-1] == "open", "those that began after it count"


def test_a_person_who_reset_it_is_not_overruled_by_what_was_under_way() -> None:
    life = Life(TOOL)
    errors(life, 0)
    life.watch.breakers.reset_breaker(TOOL, "operator:ada", NOW + 1_000)
    life.phases.append("closed")
    for number in range(NAMED.min_calls):
        life.call(3_000 + number, 5_000, failed=True)
    assert life.phases[-1] == "closed"
    errors(life, 4_000)
    assert life.phases[-1] == "open"


def test_the_first_minute_of_somebody_new_is_no_spike() -> None:
    """One call to try it out and then all there is to do: what is usual is not known yet."""
    life = Life(TENANT)
    life.call(0)
    for number in range(NAMED.spike_min_calls * 2):
        life.call(TWELFTH + number * 100)
    assert life.phases == ["closed"] and not life.trips


def test_growth_of_a_working_day_is_no_spike_and_a_flood_beside_it_is() -> None:
    life = Life(MODEL)
    at = 0
    for minute in range(12):
        for number in range(20 + 20 * minute):
            life.call(at + number * NAMED.window_ms // (20 + 20 * minute))
        at += NAMED.window_ms
    assert life.phases == ["closed"]
    for number in range(5_000):
        if life.phases[-1] == "closed":
            life.call(at + number)
    assert life.phases[-1] == "open" and "are usual" in life.breaker.reason


def test_beside_many_names_an_open_one_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BREAKERS", 50)
    life = Life(TOOL)
    errors(life, 0)
    for number in range(200):
        life.hear(CallEnded(f"x{number}", "acme/t", "s1/1", "acme", "tool", f"name{number}", False, 1, NOW + 2_000))
    assert len(life.watch.breakers.states) <= 50 and life.breaker.phase == "open"
    life.trials(NAMED.trials)
    assert life.breaker.phase == "closed", "nobody would have closed what stands in its entry"


def random_stream(seed: int) -> Iterator[CallEnded | LineageEnded]:
    """Calls of two tools, a model and two roles in outages, slow times and floods; some late, some told twice."""
    chance, events, at = random.Random(seed), list[CallEnded | LineageEnded](), 0
    for number in range(1_500):
        hour = number // 250
        at += chance.choice((1, 20, 400)) if hour % 3 != 1 else chance.choice((200, 3_000))
        kind, name = chance.choice((("tool", "look"), ("tool", "write"), ("model", "big-1")))
        failed = chance.random() < (0.7 if hour % 2 == 0 else 0.02)
        latency = NAMED.slow_ms + 5 if hour == 3 and kind == "model" else chance.choice((5, 90, 9_000))
        event = CallEnded(
            f"m{number}",
            f"acme/t{number // 40}",
            "s1/1",
            "acme",
            kind,
            name,
            failed,
            latency,
            NOW + at,
            chance.choice(("", "worker.step", "worker.clerk")),
            failed,
        )
        events.append(event)
        if number % 40 == 39:
            events.append(LineageEnded(f"e{number}", event.lineage, event.time_unix_ms))
        for _ in range(chance.random() < 0.1):
            events.insert(max(0, len(events) - chance.randrange(30)), event)
    for _ in range(100):
        events.append(events.pop(chance.randrange(len(events) - 1)))
    return iter(events)


@pytest.mark.parametrize("seed", range(4))
def test_two_replicas_that_fold_the_same_stream_know_and_tell_the_same(seed: int) -> None:
    """Whatever comes late, twice or in another order; and who hears of each message once knows the same, too."""
    one, other, once = Watch(DEFAULT), Watch(DEFAULT), Watch(DEFAULT)
    told: list[list[str]] = [[], [], []]
    seen: set[str] = set()
    for event in random_stream(seed):
        for at, watch in enumerate((one, other, once)):
            if watch is once and event.id in seen:
                continue
            told[at] += [trip.id for trip in watch.fold_event(event) if isinstance(trip, HealthFinding)]
        seen.add(event.id)
    assert told[0] == told[1] == told[2] and len(told[0]) > 3
    assert one.breakers.states == other.breakers.states == once.breakers.states
    assert one.breakers.changed == other.breakers.changed
    for breaker in one.breakers.states.values():
        counts = [(bucket.calls, bucket.failed, bucket.slow) for bucket in breaker.buckets]
        assert all(failed <= calls and slow <= calls for calls, failed, slow in counts)
        assert [bucket.number for bucket in breaker.buckets] == sorted({bucket.number for bucket in breaker.buckets})


def test_in_whatever_order_one_window_is_told_it_counts_the_same() -> None:
    chance = random.Random(3)
    calls = [CallOutcome(NOW + number * 700, failed=number % 3 == 0) for number in range(60)]
    counts = set()
    for _ in range(10):
        chance.shuffle(calls)
        breaker = BreakerState("tool", "look")
        for call in calls:
            breaker = apply_call(breaker, call, replace(NAMED, error_rate=0.9))
        counts.add(tuple(tuple(bucket) for bucket in breaker.buckets))
    assert len(counts) == 1
