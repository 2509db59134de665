"""Every true deadlock is broken, in whatever order inboxes come to the journal, and a phantom never is.

The mesh is whole and its services are the real ones; what is late here is only the journal, and messages a little. So a
task that does not end well was not helped, and one that was refused without need shows in its standing.
"""

import json
import random
from collections import Counter

import pytest

from tests.simulation import world
from tests.simulation.laws import reading
from tests.simulation.laws.oracle import complaints
from tests.simulation.mesh.chaos import APART, Chaos
from tests.simulation.situations.agents import waits

from .scenario import SERVICES, Act, Scenario

LAGS = {"lag_source": 0.4, APART: 0.0, "jitter": 0.5, "stale_read": 0.1}
"""Every inbox comes to the journal in its own order, by up to 3 s later than another."""
SEEDS = range(1, 13)


def run(wishes, seed, folder):
    """A run with lags alone, watched, by two replicas of budget."""
    scenario = Scenario(
        seed=seed,
        wishes=tuple(wishes),
        replicas={**dict.fromkeys(SERVICES, 1), "budget": 2},
        acts=(Act("watch", "watched", 0.0),),
    )
    record = world.run(scenario, Chaos(seed, rates=LAGS), folder)
    assert list(complaints(record)) == []
    assert reading.is_calm(record) and len(record.tasks) == len(wishes)
    return record


def said(record, stream, kind):
    return [json.loads(one.body) for one in reading.of(record, stream, kind)]


def refused(record):
    """Waits that were refused, each once."""
    return {one["wait_id"] for one in said(record, "INBOX_WORKER", "mesh.agent.wait_refused")}


def calmly(make, seed):
    """Wishes of a kind, none of which is cancelled."""
    for number in range(1_000):
        wishes = make(random.Random(f"{seed}/{number}"))
        if all(one.cancel_after_s is None for one in wishes):
            return wishes
    raise AssertionError("unreachable")


@pytest.mark.parametrize("make", [waits._crossed, waits._ring, waits._star], ids=["leases", "asks", "shared"])
@pytest.mark.slow
def test_deadlocks_are_broken_and_all_ends_well(make, folder):
    broken = Counter(len(refused(run(calmly(make, seed), seed, folder))) for seed in SEEDS)
    assert sum(count for number, count in broken.items() if number) > len(SEEDS) // 3, f"too few deadlocks: {broken}"


@pytest.mark.parametrize(
    "make", [waits._any, waits._expiry, waits._overdue], ids=["a way out", "an expiry", "a lease that was lost"]
)
@pytest.mark.slow
def test_who_can_go_on_is_not_refused(make, folder):
    for seed in SEEDS:
        record = run(calmly(make, seed), seed, folder)
        assert refused(record) == set()


def test_the_lease_of_a_holder_that_says_nothing_ends_and_the_next_one_has_it(folder):
    record = run(calmly(waits._expiry, 3), 3, folder)
    assert [one["why"] for one in said(record, "INBOX_WORKER", "mesh.lease.ended")].count("expired") == 1
    first, second = said(record, "INBOX_WORKER", "mesh.lease.granted")
    assert second["fencing_token"] > first["fencing_token"]


@pytest.mark.slow
def test_many_who_take_things_in_one_order_are_never_refused(folder):
    """Full of waits, full of lags, and without a circle."""
    for seed in SEEDS:
        draw = random.Random(f"order/{seed}")
        names = [waits.RESOURCES[:2], waits.RESOURCES[1:], waits.RESOURCES[::2]]
        wishes = [
            waits._task(draw, f"lease{at}", [waits._taking(draw, f"lease{at}", draw.choice(names))]) for at in range(4)
        ]
        wishes = [one for one in wishes if one.cancel_after_s is None]
        record = run(wishes, seed, folder)
        assert refused(record) == set()
        assert not said(record, "INBOX_JOURNAL", "mesh.budget.tripped")
