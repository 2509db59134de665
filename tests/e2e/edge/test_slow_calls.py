"""One tenant's slow calls beside another tenant's quick ones, on real processes: whose calls are slow waits himself.

Judged by facts in the broker's order, never by a clock: who was answered before whom, and what still had no answer.
"""

from statistics import median
from typing import Any

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import subjects
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CROWD, CALM = "t25", "t26"
PLACES, TASKS, TURNS, PAUSE_MS = 2, 24, 4, 100
STEPS, CALLS = 9, 117
"""Of a task of the crowd, side by side; and its calls of slow tools in all: more than an executor ever runs at once."""


def chain(length: int, instruction: str, tools: tuple[str, ...] = ()) -> dict[str, Any]:
    """A plan of agent steps, one behind the other."""
    return {
        "steps": [
            {
                "id": f"s{n}",
                "title": "Do it",
                "instruction": instruction,
                "tools": list(tools),
                "inputs": [f"s{n - 1}"] if n else [],
                "acceptance": "It is done.",
            }
            for n in range(length)
        ]
    }


def beside(names: list[str]) -> dict[str, Any]:
    """A plan of steps side by side, each of which counts a name."""
    return {
        "steps": [
            {
                "id": f"s{n}",
                "title": "Count",
                "instruction": f"Use counter_increment name={name}.",
                "tools": ["counter_increment"],
                "inputs": [],
                "acceptance": "It is counted.",
            }
            for n, name in enumerate(names)
        ]
    }


async def test_a_tenant_whose_model_calls_are_slow_lets_the_next_place_to_who_has_none(world: World):
    async with world.differently("model_gateway", BULKHEAD_PROVIDER_CONCURRENCY=str(PLACES)):
        await world.arm("stall", "crowd of slow calls", times=10**6, delay_ms=PAUSE_MS, after_chunks=1)
        slow = chain(12, "Say something about the crowd of slow calls.")
        crowd = [await world.submit(CROWD, f"See to crowd {n}.", plan=slow, check=False) for n in range(TASKS)]
        await until(lambda: _open(world, "model_gateway", 3 * TASKS // 4), "the crowd stands in line", 60)
        task = await world.submit(CALM, "See to calm.", plan=chain(TURNS, "Say that all is calm."), check=False)
        assert (await world.finish(task))["status"] == "succeeded"
        await world.disarm()
        for one in crowd:
            await one.cancel()
    began, ended = await _asked(world, "model_gateway", CALM), await _answered(world, "model_gateway", CALM)
    came, went = await _asked(world, "model_gateway", CROWD), await _answered(world, "model_gateway", CROWD)
    assert len(began) == len(ended) == TURNS
    line = [sum(at < one for at in came.values()) - sum(at < one for at in went.values()) for one in began.values()]
    # Answers to the crowd between a call of the other tenant and its answer. First come, first served would let it wait
    # for all that stand before it.
    passed = [sum(began[call] < at < ended[call] for at in went.values()) for call in began]
    assert median(line) > TASKS / 2 and median(passed) <= 3 * PLACES, (line, passed)


async def test_a_tenant_whose_tools_are_slow_leaves_places_to_who_comes_after(world: World):
    names = [f"crowd{n}" for n in range(CALLS)]
    async with world.counter.held():
        before = world.counter.arrived
        crowd = [
            await world.submit(CROWD, f"Count {n}.", plan=beside(names[n : n + STEPS]), check=False)
            for n in range(0, CALLS, STEPS)
        ]
        await until(lambda: _open(world, "tool_executor", CALLS), "all calls of the crowd were made", 60)
        calm = chain(2, "Calculate 2 + 3.", ("calculate",))
        task = await world.submit(CALM, "See to calm.", plan=calm, check=False)
        assert (await world.finish(task))["status"] == "succeeded"
        over = await _answered(world, "tool_executor", CROWD)
        assert world.counter.arrived > before and not over, f"{len(over)} of the crowd's calls were over before"
    for one in crowd:
        assert (await world.finish(one))["status"] == "succeeded"
    assert [world.counter.count(name) for name in names] == [1] * CALLS


async def _open(world: World, doer: str, count: int) -> bool:
    """Whether so many of the crowd's calls wait for their answer."""
    answered = await _answered(world, doer, CROWD)
    return len((await _asked(world, doer, CROWD)).keys() - answered.keys()) >= count


async def _asked(world: World, doer: str, tenant: str) -> dict[str, int]:
    """When calls of a tenant came to a doer, by the broker's clock and the call's message."""
    return {one.ce_id: one.time_unix_ms for one in await _read(world, doer, f"mesh.*.{doer}.*.{tenant}.*")}


async def _answered(world: World, doer: str, tenant: str) -> dict[str, int]:
    """When they were answered, by the same."""
    found = await _read(world, "worker", f"mesh.{doer}.worker.*.{tenant}.*")
    return {one.cause: one.time_unix_ms for one in found if "call_replied" in one.ce_type}


async def _read(world: World, inbox: str, subject: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    async with world.bus() as bus:
        while page := await bus.read(subjects.inbox_stream(inbox), subject, after=found[-1].sequence if found else 0):
            found += page
    return found
