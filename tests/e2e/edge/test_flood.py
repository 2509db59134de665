"""One tenant's flood on real processes: two gateways, one of them killed in the middle of it.

Judged by facts in the order in which the broker stored them, never by a clock: who ran at once, who began before whom.
"""

import asyncio
import json

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.task import PlacesGiven, TaskEnded, TaskQueued, TaskSubmitted
from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CROWD, CALM = "t23", "t24"
FLOOD, AT_ONCE, PLACES = 300, 16, 3
PLAN = {"steps": [{"id": "a", "title": "Note it", "instruction": "Note it.", "kind": "noop", "acceptance": "Noted."}]}


async def test_a_flood_waits_its_turn_and_everybody_else_goes_on(world: World):
    gateway = world.mesh
    read = _quotas_read(world)
    world.change_tenants(**{CROWD: {"quota": {"running": PLACES, "weight": 1}}})
    second = await gateway.start_replica("gateway")
    await until(lambda: _read_again(world, read), "the gateways have read the quota that was changed as they run")
    flood = asyncio.create_task(_flood(world))
    await until(lambda: _some_wait(world, 60), "the flood waits in line")
    calm = []
    for number in range(3):
        task = await world.submit(CALM, f"See to calm {number}.", plan=PLAN, check=False)
        assert (await world.finish(task))["status"] == "succeeded"
        calm.append(task.id)
        if number == 0:
            # Its supervisor starts it again; what it had not acknowledged comes to the other one.
            await gateway.kill_replica("gateway", second)
    tasks = await flood
    await until(lambda: _all_ended(world, tasks), "every task of the flood has ended", 120)
    facts = await _facts(world)
    # Each began once, by one decision, and no more than the quota ever ran.
    begun = [
        task
        for _, tenant, task, body in await _facts(world, "planner")
        if isinstance(body, TaskSubmitted) and tenant == CROWD
    ]
    assert sorted(begun) == sorted(tasks) and len(set(tasks)) == FLOOD
    assert _most_at_once(facts) <= PLACES
    ends = [task for _, _, task, body in facts if isinstance(body, TaskEnded)]
    # First come, first served would have let them wait for all that had come before.
    behind = [len([one for one in tasks if ends.index(one) > ends.index(task)]) for task in calm]
    assert min(behind) > 30, behind
    await gateway.units.pop(f"gateway-{second}").stop()


async def _flood(world: World) -> list[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with room:
            return (await world.submit(CROWD, f"See to crowd {number}.", plan=PLAN, check=False)).id

    return list(await asyncio.gather(*(one(number) for number in range(FLOOD))))


def _quotas_read(world: World) -> int:
    logs = (world.mesh.directory / "logs").glob("gateway*")
    return sum(one.read_text().count("quotas_read") for one in logs)


async def _read_again(world: World, before: int) -> bool:
    return _quotas_read(world) > before


async def _some_wait(world: World, count: int) -> bool:
    return sum(isinstance(body, TaskQueued) for *_, body in await _facts(world)) >= count


async def _all_ended(world: World, tasks: list[str]) -> bool:
    return set(tasks) <= {task for _, _, task, body in await _facts(world) if isinstance(body, TaskEnded)}


KINDS = {kind.ce_type(): kind for kind in (PlacesGiven, TaskEnded, TaskQueued, TaskSubmitted)}


async def _facts(world: World, inbox: str = "gateway") -> list[tuple[int, str, str, object]]:
    """What an inbox tells about places, in its order: sequence, tenant, task, body."""
    found, after = [], 0
    async with world.bus() as bus:
        while page := await bus.read(subjects.inbox_stream(inbox), f"mesh.*.{inbox}.>", after=after):
            for stored in page:
                kind = KINDS.get(stored.ce_type)
                # Other tests put bad input into this inbox.
                if kind is not None and stored.tenant in (CROWD, CALM, "places"):
                    tenant, task = stored.subject.split(".")[4:]
                    found.append((stored.sequence, tenant, task, kind.model_validate(json.loads(stored.body))))
            after = page[-1].sequence
    return found


def _most_at_once(facts: list[tuple[int, str, str, object]]) -> int:
    running: set[str] = set()
    most = 0
    for _, _, task, body in facts:
        if isinstance(body, PlacesGiven):
            running |= {one.task for one in body.given if one.tenant == CROWD}
            most = max(most, len(running))
        elif isinstance(body, TaskEnded):
            running.discard(task)
    return most
