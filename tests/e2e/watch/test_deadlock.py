"""Two agents lease two things in opposite order, on real processes: one wait is refused, and both tasks end well."""

import asyncio
from typing import Any

import pytest

from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.lease import LeaseGranted
from tests.e2e.fixtures.reasons import why
from tests.e2e.fixtures.world import LEASING, World, until

CRM, ERP = "crm:account:42", "erp:order:7"


def takes(mark: str, first: str, second: str) -> dict[str, Any]:
    """A plan of one step: a lease, a write, the other lease, another write."""
    text = (
        f"One after the other, use acquire_lease resource={first}, counter_increment name=one_{mark}, then "
        f"acquire_lease resource={second}, then counter_increment name=two_{mark}."
    )
    step = {
        "id": "book",
        "title": "Book it",
        "instruction": text,
        "tools": ["acquire_lease", "counter_increment"],
        "inputs": [],
        "acceptance": "Both are booked.",
    }
    return {"steps": [step]}


def told(entries: list[Any], kind: type) -> list[Any]:
    """The bodies of one type in a task's timeline."""
    return [one.body for one in entries if isinstance(one.body, kind)]


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_a_deadlock_on_two_leases_is_broken_and_both_tasks_end_well(world: World) -> None:
    letters = await world.letters()
    async with world.counter.held():
        before = world.counter.arrived
        tasks = [
            await world.submit(LEASING, f"Book {mark}.", plan=takes(mark, *order), check=False)
            for mark, order in (("a", (CRM, ERP)), ("b", (ERP, CRM)))
        ]

        async def both() -> bool:
            return world.counter.arrived >= before + 2

        # Each holds its first lease now, and will want the other's.
        await until(both, "both tasks write under their first lease")
    documents = await asyncio.gather(*(world.finish(task) for task in tasks))
    assert [one["status"] for one in documents] == ["succeeded", "succeeded"], documents
    histories = [await world.history(task) for task in tasks]
    refused = [told(one, WaitRefused) for one in histories]
    assert sorted(map(len, refused)) == [0, 1], "one gives way, the other goes on"
    victim = 0 if refused[0] else 1
    assert set(refused[victim][0].cycle) == {CRM, ERP, *(f"{task.id}/book" for task in tasks)}
    reasons = [documents[at]["result"]["standing_reason"] for at in (victim, 1 - victim)]
    assert ["acquire_lease failed" in reason for reason in reasons] == [True, False], reasons
    [lost] = documents[victim]["result"]["completeness"]["omissions"]
    assert lost["what"] == "tool acquire_lease" and "nobody of them can go on" in lost["detail"]
    assert len(told(histories[1 - victim], LeaseGranted)) == 2
    [trip] = [one for one in told(histories[victim], Tripped) if one.detector == "deadlock"]
    assert not trip.halted and CRM in trip.what
    reasons = await why(world, tasks[victim].id)
    assert any("deadlock" in str(one["what"]) for one in reasons), reasons
    assert {name: world.counter.count(name) for name in ("one_a", "one_b", "two_a", "two_b")} == dict.fromkeys(
        ("one_a", "one_b", "two_a", "two_b"), 1
    )
    for task in tasks:
        assert (await world.replay(task)).divergences == []
    assert await world.letters() == letters
