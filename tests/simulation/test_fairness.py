"""One tenant's flood leaves another's latency alone: the real services, in virtual time, with and without the cap.

What is measured is waiting in line, and nothing of the machine: time passes only where a model speaks.
"""

from dataclasses import replace
from statistics import median

import pytest

from bulkhead.runtime.consume import loop
from bulkhead_contracts.plan import Plan
from tests.simulation import world
from tests.simulation.laws import reading
from tests.simulation.laws.oracle import complaints
from tests.simulation.mesh.chaos import Chaos

from .scenario import Scenario, Wish, scripted_step

FLOOD = 150
PACE_S = 0.5
"""Of each of four pieces of an answer."""


def wish(name: str, tenant: str, after_s: float) -> Wish:
    """Two model calls, one behind the other."""
    steps = tuple(
        scripted_step(one, name, {"calls": [], "pace_s": PACE_S}, title=one, inputs=before)
        for one, before in (("a", ()), ("b", ("a",)))
    )
    return Wish(name=name, tenant=tenant, plan=Plan(steps=steps), deadline_ms=600_000, submit_after_s=after_s)


def scenario(flood: str) -> Scenario:
    """acme's five tasks, one after another, and beside them a flood of that tenant ("": none)."""
    calm = tuple(wish(f"calm{number}", "acme", 2.0 + 6 * number) for number in range(5))
    many = tuple(wish(f"flood{number}", flood, 0.001 * number) for number in range(FLOOD)) if flood else ()
    return Scenario(seed=1, wishes=(*calm, *many))


def latency_ms(record: world.Record) -> float:
    """Median of acme's tasks, from the request to the end, by the broker's clock."""
    ends = reading.said(record, "INBOX_GATEWAY", "mesh.task.ended")
    asked = reading.said(record, "INBOX_GATEWAY", "mesh.task.requested")
    return median(
        ends[task][0].time_unix_ms - asked[task][0].time_unix_ms
        for one, task in reading.wishes(record)
        if one.tenant == "acme"
    )


@pytest.mark.parametrize(
    ("whose", "share", "slowed"),
    [
        # A cap on its running tasks is enough, and so is a doer's sharing of its slots.
        ("crowd", FLOOD, False),
        ("demo", loop.TENANT_SHARE, False),
        # Without either the flood fills the doers' slots, and everybody stands in one line: this test would see it.
        ("demo", FLOOD, True),
    ],
    ids=["capped", "shared", "neither"],
)
@pytest.mark.slow
def test_a_flood_leaves_another_tenants_latency_alone(folder, monkeypatch, whose, share, slowed):
    monkeypatch.setattr(loop, "TENANT_SHARE", share)
    alone = latency_ms(world.run(scenario(""), Chaos(1), folder))
    flooded = world.run(scenario(whose), Chaos(1), folder)
    assert complaints(flooded) == [] and len(flooded.tasks) == FLOOD + 5
    assert latency_ms(flooded) > 3 * alone if slowed else latency_ms(flooded) <= 1.5 * alone


@pytest.mark.slow
def test_the_whole_mesh_full_is_shared_by_weight(folder, monkeypatch):
    """Places for three in all: the flood that came first must not hold them until it is through."""
    full = {**world.settings(folder)}
    full["gateway"] = full["gateway"].model_copy(update={"running_tasks": 3})
    monkeypatch.setattr(world, "settings", lambda _: full)
    both = Scenario(
        seed=1,
        wishes=(
            *(wish(f"flood{number}", "horde", 0.001 * number) for number in range(30)),
            *(replace(wish(f"calm{number}", "acme", 1.0 + 0.001 * number)) for number in range(10)),
        ),
    )
    record = world.run(both, Chaos(1), folder)
    assert complaints(record) == []
    order = [
        task
        for one in reading.of(record, "INBOX_GATEWAY", "mesh.task.places_given")
        for task in (place["tenant"] for place in reading.body(one)["given"])
    ]
    shared = "".join(name[0] for name in order[3:])
    # One to three. What is left of a turn is lost where the tenant's own cap is reached in it: when tasks end may
    # move one place into the next turn.
    assert all(abs(shared[:given].count("a") - given / 4) <= 1 for given in range(4, 29, 4)), shared
