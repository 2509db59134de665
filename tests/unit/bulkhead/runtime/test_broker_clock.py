"""A service's time is the broker's, whatever the clock of its machine says or becomes."""

import pytest

from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.broker_clock import BrokerClock

HOUR_MS = 3_600_000


class Machine:
    """Time as it is, the machine's idea of it, and a broker that takes a while to answer."""

    def __init__(self, ahead_ms: int = 0, way_ms: int = 1) -> None:
        self.true_ms, self.ahead_ms, self.ways_ms, self.up = 1_800_000_000_000, ahead_ms, [way_ms] * 6, True

    def wall(self) -> int:
        return self.true_ms + self.ahead_ms

    def monotonic_ns(self) -> int:
        return (self.true_ms - 1_700_000_000_000) * 1_000_000

    async def ask(self) -> int:
        if not self.up:
            raise BusUnavailable("no answer")
        way = self.ways_ms.pop(0)
        self.true_ms += way
        told = self.true_ms
        self.true_ms += way
        return told

    def clock(self) -> BrokerClock:
        return BrokerClock(self.ask, wall=self.wall, monotonic_ns=self.monotonic_ns)


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS, 0])
async def test_it_is_the_brokers_time(ahead_ms: int) -> None:
    machine = Machine(ahead_ms)
    clock = machine.clock()
    assert clock.now_ms() == machine.wall() and clock.describe_problem() == "", "nobody was asked yet"
    await clock.measure()
    assert clock.now_ms() == machine.true_ms and clock.ahead_ms == ahead_ms
    machine.true_ms += 5_000
    assert clock.now_ms() == machine.true_ms
    way = {HOUR_MS: "3600 s ahead of the broker's", -HOUR_MS: "3600 s behind the broker's", 0: ""}[ahead_ms]
    assert (
        way in clock.describe_problem()
        and bool(clock.describe_problem()) == bool(way)
        and ("NTP" in clock.describe_problem()) == bool(way)
    )


async def test_a_clock_that_is_set_while_it_runs_changes_nothing_but_what_is_said_of_it() -> None:
    machine = Machine()
    clock = machine.clock()
    await clock.measure()
    machine.ahead_ms = -HOUR_MS
    assert clock.now_ms() == machine.true_ms and "behind" in clock.describe_problem()
    machine.ahead_ms = 0
    assert clock.describe_problem() == ""


async def test_the_quickest_answer_counts_and_a_slow_one_alone_does_not() -> None:
    machine = Machine(HOUR_MS)
    machine.ways_ms = [400, 2, 300]
    clock = machine.clock()
    await clock.measure()
    assert clock.now_ms() == machine.true_ms
    slow = Machine(HOUR_MS)
    slow.ways_ms = [900, 900, 900]
    clock = slow.clock()
    await clock.measure()
    assert not clock.measured and clock.describe_problem() == ""


async def test_without_an_answer_it_goes_on_as_it_did() -> None:
    machine = Machine(HOUR_MS)
    clock = machine.clock()
    await clock.measure()
    machine.up = False
    machine.true_ms += 60_000
    await clock.measure()
    assert clock.now_ms() == machine.true_ms and clock.measured
