"""Services are killed (-9) in the middle of two maps, together of 198 writes: none is lost, and none is done twice."""

import json
from typing import Any

import pytest

from tests.e2e.fixtures.world import until
from tests.faults.fixtures.errand import TENANT, nothing_waits
from tests.faults.fixtures.standing import Standing

ITEMS, MAPS = 99, 2
KILLED = ("worker", "planner", "tool_executor", "worker", "planner", "tool_executor")


def _plan() -> dict[str, object]:
    """Two lists of ones (a result of a noop has 200 characters), and a map over each that counts once an item."""
    steps = []
    for name in "ab":
        call = {"tool": "counter_increment", "arguments_json": json.dumps({"name": name, "amount": 1})}
        over = {"of": name, "parallel": 8}
        steps += [
            {"id": name, "title": name, "instruction": json.dumps([1] * ITEMS, separators=(",", ":")), "kind": "noop"},
            {
                "id": f"map_{name}",
                "title": name,
                "instruction": "",
                "kind": "noop",
                "inputs": [name],
                "call": call,
                "over": over,
            },
        ]
    last = {"id": "last", "title": "", "instruction": "Both are counted.", "kind": "noop"}
    return {"steps": [*steps, {**last, "inputs": ["map_a", "map_b"]}]}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
async def test_kills_in_the_middle_of_maps_lose_and_double_nothing(standing: Standing) -> None:
    before = standing.counter.counts()
    task = await standing.submit(TENANT, "Count all of it.", plan=_plan(), idempotency_key="maps", check=False)
    all_items, died = ITEMS * MAPS, 0
    for number, service in enumerate(KILLED):
        due = all_items * (number + 1) // (len(KILLED) + 1)

        async def has_come_so_far(due: int = due) -> bool:
            return _new_increments(standing, before) >= due

        await until(has_come_so_far, f"{due} items are counted", 60)
        died += _new_increments(standing, before) < all_items
        await standing.mesh.kill_replica(service)
    document = await task.wait_until_ended(120)
    assert died == len(KILLED), "each was killed in the middle"
    assert document["status"] == "succeeded", document
    after = standing.counter.counts()
    assert {name: after["counts"][name] for name in "ab"} == {"a": ITEMS, "b": ITEMS}
    assert after["increments"] - before["increments"] == all_items
    await nothing_waits(standing)


def _new_increments(standing: Standing, before: dict[str, Any]) -> int:
    return int(standing.counter.counts()["increments"]) - int(before["increments"])
