"""A tool that is down, on real processes: its breaker opens for its tenant, keeps calls from going out, lets trials
through and closes; or a person closes it, and nobody whose calls opened it or whom it holds back. Webhooks are told."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bulkhead.bus.port import BusError
from bulkhead.client import Task
from bulkhead.client.errors import Refused
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.control import Breaker
from bulkhead_contracts.tool import ToolCallReplied
from tests.e2e.fixtures.world import World, until
from tests.e2e.test_watcher import why
from tests.unit.tool_executor.test_webhooks import SECRET, Receiver, receiver, verified

__all__ = ("receiver",)

TOOL = "counter_increment"
OPEN_S = 2
FAILING = DEFAULT.breakers.min_calls


def increment(mark: str) -> dict[str, Any]:
    """A plan of one step that writes once."""
    return {"steps": [{"id": "s1", "title": "Count", "instruction": f"Use {TOOL} name={mark}.", "tools": [TOOL],
                       "inputs": [], "acceptance": "It is counted."}]}  # fmt: skip


async def count(world: World, tenant: str, mark: str, role: str = "submitter") -> Task:
    """A task that is over, however it ended."""
    task = await world.client(tenant, role).submit(f"Count {mark}.", plan=increment(mark), check=False)
    await world.finish(task)
    return task


async def run_down(world: World, tenant: str, role: str) -> list[Task]:
    """As many failing writes as open the breaker: each ends its task, for nobody knows what became of it."""
    return await asyncio.gather(*(count(world, tenant, f"{tenant}down{number}", role) for number in range(FAILING)))


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
    return [one.body.failure.message for one in await world.history(task) if isinstance(one.body, ToolCallReplied)
            and one.body.failure is not None and one.body.failure.code == "breaker_open"]  # fmt: skip


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


@pytest.mark.slow
async def test_a_tool_that_is_down_is_held_back_tried_and_let_go_on_or_a_person_does(
    tmp_path: Path, receiver: Receiver
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    hook = {"url": f"http://{receiver.host}/", "secret_file": str(tmp_path / "secret")}
    env = {"budget": {"BULKHEAD_BREAKER_OPEN_S": str(OPEN_S)}, "tool_executor": {
        "BULKHEAD_RETRY_BACKOFF_S": "0.01", "BULKHEAD_WEBHOOKS": json.dumps({"demo": hook, "t2": hook}),
        "BULKHEAD_WEBHOOK_PRIVATE_HOSTS": json.dumps([receiver.host])}}  # fmt: skip
    async with World(tmp_path, extra_env=env) as world:
        world.counter.misbehave("error_before", 1_000)
        failing, _ = await asyncio.gather(run_down(world, "demo", "submitter"), run_down(world, "t2", "operator"))
        found, other = await in_phase(world, "demo", "open"), await in_phase(world, "t2", "open")
        assert found["openings"] == 1 and f"{FAILING} of {FAILING} calls failed" in found["reason"]

        async def told() -> list[tuple[Task, Tripped]]:
            return [(task, one.body) for task in failing for one in await world.history(task)
                    if isinstance(one.body, Tripped) and one.body.detector == "breaker.tool"]

        ((task, trip),) = await until(told, "the trip is told")
        assert list(trip.evidence) == found["evidence"] and len(set(trip.evidence)) == FAILING and not trip.halted
        said = next(one for one in await why(world, task.id) if one["kind"] == "tripped")
        assert TOOL in str(said["what"]) and said["evidence"] == found["evidence"] and said["todo"]

        await held_back(world, "demo")
        await nobody_lets_himself_go_on(world, "t2", "operator")
        assert other["actors"] == ["t2-operator"] and (await breaker(world, "t2")())["phase"] != "closed"
        world.counter.mend()
        healthy = await count(world, "t1", "t1healthy")
        assert world.counter.count("t1healthy") == 1 and not await refused(world, healthy), "others are let go on"

        code, out, _ = await world.command("breakers", "reset", f"tool:{TOOL}", "--tenant", "t2", "--json")
        assert code == 0 and json.loads(out)["by"].startswith("operator:"), out
        await until(lambda: _counts(world, "t2"), "the tool executor knows of the reset")
        assert (await breaker(world, "t2")())["by"].startswith("operator:")

        await mended(world, "demo")
        closed = await breaker(world, "demo")()
        assert not closed["by"] and "trials succeeded" in closed["reason"], closed
        assert (await count(world, "demo", "last")) and world.counter.count("last") == 1
        await until(lambda: _posted(receiver), "the tenants' webhooks are told")


async def _posted(receiver: Receiver) -> bool:
    """Opened, closed by trials, and by a person; signed."""
    assert all(verified(SECRET, headers, body) for _, headers, body in receiver.came)
    told = {(found["tenant"], found["type"]) for *_, body in receiver.came for found in [json.loads(body)]}
    return told >= {("demo", "mesh.breaker_opened"), ("demo", "mesh.breaker_closed"), ("t2", "mesh.breaker_opened"),
                    ("t2", "mesh.breaker_reset")}  # fmt: skip


async def _counts(world: World, tenant: str) -> bool:
    task = await count(world, tenant, f"{tenant}{world.counter.arrived}")
    return not await refused(world, task)
