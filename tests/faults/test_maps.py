"""Services are killed (-9) in the middle of a map of 200 writes: none is lost, and none is done twice."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.fixtures.world import TOOLS, until
from tests.faults.fixtures.errand import TENANT, nothing_waits
from tests.faults.fixtures.standing import Standing, short_waits

ITEMS = 200
KILLED = ("worker", "planner", "tool_executor", "worker", "planner", "tool_executor")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """A mesh whose code may make a list."""
    runs_code = {name: {"BULKHEAD_RUN_PYTHON": "true"} for name in ("signer", "tool_executor")}
    with short_waits():
        world = Standing(tmp_path_factory.mktemp("standing"), extra_env=runs_code)
        world.change_tenants(**{TENANT: {"tools": [*TOOLS, "run_python"]}})
        async with world:
            yield world


def _plan() -> dict[str, object]:
    """A list of ones, and a map over it that counts once an item."""
    makes = {"tool": "run_python", "arguments_json": json.dumps({"code": f"print([1] * {ITEMS})"})}
    counts = {"tool": "counter_increment", "arguments_json": json.dumps({"name": "a", "amount": 1})}
    over = {"of": "list", "parallel": 8, "max_items": ITEMS}
    plain = {"title": "", "instruction": "", "kind": "noop"}
    return {
        "steps": [
            {"id": "list", **plain, "call": makes},
            {"id": "map", **plain, "inputs": ["list"], "call": counts, "over": over},
        ]
    }


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
async def test_kills_in_the_middle_of_a_map_lose_and_double_nothing(standing: Standing) -> None:
    before = standing.counter.counts()
    task = await standing.submit(TENANT, "Count all of it.", plan=_plan(), idempotency_key="maps", check=False)
    died = 0
    for number, service in enumerate(KILLED):
        due = ITEMS * (number + 1) // (len(KILLED) + 1)

        async def has_come_so_far(due: int = due) -> bool:
            return _new_increments(standing, before) >= due

        await until(has_come_so_far, f"{due} items are counted", 60)
        died += _new_increments(standing, before) < ITEMS
        await standing.mesh.kill_replica(service)
    document = await task.wait_until_ended(120)
    assert died == len(KILLED), "each was killed in the middle"
    assert document["status"] == "succeeded", document
    after = standing.counter.counts()
    assert after["counts"]["a"] == ITEMS
    assert after["increments"] - before["increments"] == ITEMS
    await nothing_waits(standing)


def _new_increments(standing: Standing, before: dict[str, Any]) -> int:
    return int(standing.counter.counts()["increments"]) - int(before["increments"])
