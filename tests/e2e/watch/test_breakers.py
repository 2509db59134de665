"""A tool that is down, slow or flooded, on real processes: its breaker opens for its tenant, keeps calls from going
out, lets trials through and closes; or a person closes it, and nobody whose calls opened it or whom it holds back.

Webhooks are told of that, of halts and of a task that stalls: each event once, however often its receiver fails.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bulkhead.bus.port import BusError
from bulkhead.client import Task
from bulkhead.client.errors import Refused
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.control import Breaker
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied
from tests.e2e.fixtures.world import World, until
from tests.e2e.watch.test_watcher import why
from tests.unit.services.tool_executor.test_webhooks import SECRET, Receiver, receiver, verified

pytestmark = pytest.mark.nightly

__all__ = ("receiver",)

TOOL = "counter_increment"
OPEN_S, WINDOW_S, SLOW_S, STALL_S = 2, 6, 2, 1
FAILING = DEFAULT.breakers.min_calls
FLOOD, SPIKE = 14, 10
"""Calls at once, of which the tool executor has room for sixteen; and how few may be a spike."""
NUMBERS = itertools.count()


def increment(mark: str) -> dict[str, Any]:
    """A plan of one step that writes once."""
    return {
        "steps": [
            {
                "id": "s1",
                "title": "Count",
                "instruction": f"Use {TOOL} name={mark}.",
                "tools": [TOOL],
                "inputs": [],
                "acceptance": "It is counted.",
            }
        ]
    }


async def count(world: World, tenant: str, mark: str, role: str = "submitter") -> Task:
    """A task that is over, however it ended."""
    task = await world.client(tenant, role).submit(f"Count {mark}.", plan=increment(mark), check=False)
    await world.finish(task)
    return task


async def at_once(world: World, tenant: str, role: str, calls: int, held_s: float = 0.0) -> list[Task]:
    """Tasks whose writes all end at the same moment, however slow the machine, and not before `held_s` seconds."""
    async with world.counter.held():
        before = world.counter.arrived
        tasks = [asyncio.create_task(count(world, tenant, f"{tenant}{next(NUMBERS)}", role)) for _ in range(calls)]
        await until(lambda: _true(world.counter.arrived - before >= calls), "all calls stand at the gate", 60)
        await asyncio.sleep(held_s)
    return await asyncio.gather(*tasks)


async def _true(value: bool) -> bool:
    return value


def breaker(world: World, tenant: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """How it stands for a tenant, as its people see it; {} before it ever opened."""

    async def stands() -> dict[str, Any]:
        found = (await world.client(tenant).get("/v1/breakers"))["breakers"]
        return next((one for one in found if (one["scope"], one["name"]) == ("tool", TOOL)), {})

    return stands


async def in_phase(world: World, tenant: str, phase: str) -> dict[str, Any]:
    async def there() -> dict[str, Any]:
        found = await breaker(world, tenant)()
        return found if found.get("phase") == phase else {}

    found: dict[str, Any] = await until(there, f"the breaker of {tenant} is {phase}")
    return found


async def refused(world: World, task: Task) -> list[str]:
    """What its calls were told instead of being made."""
    return [
        one.body.failure.message
        for one in await world.history(task)
        if isinstance(one.body, ToolCallReplied)
        and one.body.failure is not None
        and one.body.failure.code == "breaker_open"
    ]


async def held_back(world: World, tenant: str) -> Task:
    """A task whose call met the open breaker. On a machine so slow that it came after the breaker's time it was a trial
    instead, which failed, and the breaker is open for twice as long."""
    number = 0
    while True:
        number += 1
        arrived = world.counter.arrived
        task = await count(world, tenant, f"{tenant}held{number}")
        if said := await refused(world, task):
            assert world.counter.arrived == arrived, "nothing of it has reached the tool"
            assert TOOL in said[0] and "calls failed within" in said[0] and "Tried again in" in said[0]
            return task
        assert number < 8, f"{number} calls went out one after another though the tool is down"


async def nobody_lets_himself_go_on(world: World, tenant: str, person: str) -> None:
    """Neither whose calls opened it, nor a service that it holds back."""
    with pytest.raises(Refused) as told:
        await world.client(tenant, person).reset_breaker("tool", TOOL, "I say so")
    assert told.value.code == "tripped_it"
    own = Breaker(scope="tool", tenant=tenant, name=TOOL, phase="closed", by="me").model_dump_json().encode()
    for identity in ("tool_executor", "worker"):
        async with world.bus(identity) as bus:
            with pytest.raises(BusError):
                await bus.publish(subjects.breaker_key("tool", tenant, TOOL), own, {}, f"own/{identity}")


async def mended(world: World, tenant: str) -> None:
    """Calls of tasks as they come are the trials; nobody does anything else."""
    number = 0

    async def closed() -> bool:
        nonlocal number
        number += 1
        await count(world, tenant, f"{tenant}again{number}")
        return (await breaker(world, tenant)())["phase"] == "closed"

    await until(closed, "trials close it", timeout_s=60)


async def finding_of(world: World, tasks: list[Task], found: dict[str, Any]) -> tuple[Task, Tripped]:
    """The one fact that tells of it, with the calls that opened it; and what `bulkhead why` says of its task."""

    async def told() -> list[tuple[Task, Tripped]]:
        return [
            (task, one.body)
            for task in tasks
            for one in await world.history(task)
            if isinstance(one.body, Tripped) and one.body.detector == "breaker.tool"
        ]

    ((task, trip),) = await until(told, "the trip is told")
    assert list(trip.evidence) == found["evidence"] and len(set(trip.evidence)) == len(trip.evidence)
    assert not trip.halted
    said = [one for one in await why(world, task.id) if one["kind"] == "tripped"]
    (mine,) = [one for one in said if one["evidence"] == found["evidence"]]
    assert TOOL in str(mine["what"]) and str(found["reason"]) in str(mine["what"]) and mine["todo"]
    return task, trip


async def stalls(world: World, tenant: str) -> Task:
    """A planner that adopts a plan and does nothing of it, as if by a bug: the real one is away, and is heard later."""
    await world.mesh.kill_replica("planner", hold=True)
    task = await world.client(tenant).submit("Count nothing.", check=False)

    async def begun() -> bool:
        return any(isinstance(one.body, TaskSubmitted) for one in await world.history(task))

    await until(begun, "the task is the planner's")
    plan = PlanAdopted(plan=Plan(steps=(PlanStep(id="s1", title="Count", instruction="Count."),)))
    async with world.bus("planner") as bus:
        publisher = Publisher("planner", bus, b"of this test alone", lambda: int(time.time() * 1000))
        await publisher.send("gateway", plan, tenant=tenant, task=task.id, index=f"stalls/{task.id}")
    return task


@pytest.mark.slow
async def test_a_tool_that_is_down_slow_or_flooded_is_held_back_tried_and_let_go_on_or_a_person_does(
    tmp_path: Path, receiver: Receiver
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    hook = {"url": f"http://{receiver.host}/", "secret_file": str(tmp_path / "secret")}
    budget = {
        "BREAKER_OPEN_S": OPEN_S,
        "BREAKER_WINDOW_S": WINDOW_S,
        "BREAKER_SLOW_S": SLOW_S,
        "BREAKER_SPIKE_CALLS": SPIKE,
        "STALL_AFTER_S": STALL_S,
    }
    env = {
        "budget": {f"BULKHEAD_{name}": str(value) for name, value in budget.items()},
        "tool_executor": {
            "BULKHEAD_RETRY_BACKOFF_S": "0.01",
            "BULKHEAD_WEBHOOKS": json.dumps(dict.fromkeys(("demo", "t1", "t2"), hook)),
            "BULKHEAD_WEBHOOK_PRIVATE_HOSTS": json.dumps([receiver.host]),
        },
    }
    async with World(tmp_path, extra_env=env) as world:
        await count(world, "t1", "t1usual")
        usual = time.monotonic()
        world.counter.misbehave("error_before", 1_000)
        failing = await at_once(world, "demo", "submitter", FAILING)
        found = await in_phase(world, "demo", "open")
        assert found["openings"] == 1 and f"{FAILING} of {FAILING} calls failed" in found["reason"]
        assert len(found["evidence"]) == FAILING
        await finding_of(world, failing, found)
        await held_back(world, "demo")
        world.counter.clear_faults()

        slow = await at_once(world, "t2", "operator", FAILING, held_s=SLOW_S)
        other = await in_phase(world, "t2", "open")
        assert f"{FAILING} of {FAILING} calls took {SLOW_S} s or more" in other["reason"]
        assert other["actors"] == ["t2-operator"] and len(other["evidence"]) == FAILING
        stalled = await stalls(world, "t2")  # Nothing else needs a planner until it is told.
        await finding_of(world, slow, other)
        await nobody_lets_himself_go_on(world, "t2", "operator")
        assert (await breaker(world, "t2")())["phase"] != "closed"
        code, out, _ = await world.command("breakers", "reset", f"tool:{TOOL}", "--tenant", "t2", "--json")
        assert code == 0 and json.loads(out)["by"].startswith("operator:"), out
        halt = await world.client("t2", "operator").halt("agent", "worker.step", "it counts too much")
        assert halt["by"] == "t2/t2-operator"
        await world.client("t2", "operator").resume("agent", "worker.step", "it counts well")
        await until(lambda: _posted(receiver, {("t2", "mesh.stalled")}), "the stall is told")
        assert [one["kind"] for one in await why(world, stalled.id) if one["kind"] == "tripped"] == ["tripped"]
        await world.mesh.restart_replica("planner")

        healthy = await count(world, "t3", "t3healthy")
        assert world.counter.count("t3healthy") == 1 and not await refused(world, healthy), "others are let go on"
        await until(lambda: _counts(world, "t2"), "the tool executor knows of the reset")
        assert (await breaker(world, "t2")())["by"].startswith("operator:")

        # What is usual is known when a window was whole.
        await asyncio.sleep(max(0.0, usual + WINDOW_S * 1.1 - time.monotonic()))
        flood = await at_once(world, "t1", "submitter", FLOOD)
        found = await in_phase(world, "t1", "open")
        assert f"calls within {WINDOW_S} s, where" in found["reason"] and len(found["evidence"]) >= SPIKE
        await finding_of(world, flood, found)

        await asyncio.gather(mended(world, "demo"), mended(world, "t1"))
        for tenant in ("demo", "t1"):
            closed = await breaker(world, tenant)()
            assert not closed["by"] and "trials succeeded" in closed["reason"], closed
            assert (await count(world, tenant, f"{tenant}last")) and world.counter.count(f"{tenant}last") == 1
        opened, closed = "mesh.breaker_opened", "mesh.breaker_closed"
        expected = {
            ("demo", opened),
            ("demo", closed),
            ("t1", opened),
            ("t1", closed),
            ("t2", opened),
            ("t2", "mesh.breaker_reset"),
            ("t2", "mesh.halted"),
            ("t2", "mesh.resumed"),
        }
        await until(lambda: _posted(receiver, expected), "the tenants' webhooks are told")
        each_event_once(receiver)


async def _posted(receiver: Receiver, expected: set[tuple[str, str]]) -> bool:
    """Whether these were taken; all that came is signed."""
    assert all(verified(SECRET, headers, body) for _, headers, body in list(receiver.came))
    posts = [json.loads(body) for *_, body in list(receiver.came)]
    return {(one["tenant"], one["type"]) for one in posts if one["id"] in receiver.taken} >= expected


def each_event_once(receiver: Receiver) -> None:
    """One id for one event, refused once, tried again with the same words and another time stamp, and taken once."""
    tries: dict[str, list[bytes]] = {}
    for *_, body in receiver.came:
        tries.setdefault(json.loads(body)["id"], []).append(body)
    assert all(len(set(bodies)) == 1 for bodies in tries.values())
    events = [
        tuple(json.loads(bodies[0])[name] for name in ("tenant", "type", "account", "told_unix_ms"))
        for bodies in tries.values()
    ]
    assert len(set(events)) == len(events), events
    assert len(receiver.taken) == len(set(receiver.taken)), "again only if its doer dies"
    assert all(len(tries[name]) >= 2 for name in receiver.taken), "each was refused at first"


async def _counts(world: World, tenant: str) -> bool:
    task = await count(world, tenant, f"{tenant}{world.counter.arrived}")
    return not await refused(world, task)
