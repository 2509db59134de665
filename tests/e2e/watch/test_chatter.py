"""Agents that only talk, in rings of three, on real processes: they are told, then their tasks are stopped, then the
agent is held back in all tasks of the tenant until somebody lets it go on; and everybody reads why."""

import asyncio
import json
from typing import Any

import pytest

from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.budget import Tripped
from bulkhead_contracts.control import CallDeferred
from tests.e2e.fixtures.world import TALKING, World, until
from tests.e2e.watch.test_watcher import calculation, why

pytestmark = pytest.mark.nightly

RING = (("ada", "bob", " Begin."), ("bob", "cyd", " Begin."), ("cyd", "ada", ""))
TALK = ["ask_steps", "answer_step"]


def talkers() -> dict[str, Any]:
    """A plan of three steps that ask each other, and of nothing that one could get done with."""
    return {
        "steps": [
            {
                "id": name,
                "title": f"Talk as {name}",
                "instruction": f"You are {name}. Talk with {other}.{begins}",
                "tools": TALK,
                "inputs": [],
                "acceptance": "All points are settled.",
            }
            for name, other, begins in RING
        ]
    }


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_triangles_that_only_talk_are_warned_then_stopped_then_their_agent_is_held_back(world: World) -> None:
    await world.arm("chatter", pattern=r"You are \w+\. Talk with", times=1_000)
    tasks = [
        await world.submit(TALKING, f"Settle all points {number}.", plan=talkers(), check=False)
        for number in range(DEFAULT.breakers.chatter_tasks)
    ]
    for document in await asyncio.gather(*(world.finish(one) for one in tasks)):
        assert (document["status"], document["failure"]["code"]) == ("halted", "chatter_stopped"), document
    task = tasks[0]
    bodies = [one.body for one in await world.history(task)]
    trips = [one for one in bodies if isinstance(one, Tripped) and one.detector == "chatter.group"]
    assert [one.level for one in trips] == ["warn", "stop"] and trips[1].halted and not trips[0].halted
    assert {one.partition("/")[0] for one in trips[1].agents} == {"ada", "bob", "cyd"}
    warned = {one.step_id for one in bodies if isinstance(one, AgentWarned) and one.trip == trips[0].trip}
    assert warned == {"ada", "bob", "cyd"}, "first they are told"
    reasons = await why(world, task.id)
    stop = next(one for one in reasons if one["kind"] == "tripped" and one["level"] == "stop")
    assert "messages between" in str(stop["what"]) and stop["todo"] and len(stop["evidence"]) > 20

    async def whole() -> dict[str, Any]:
        shown = await task.show()
        return shown if shown["charged"] else {}

    # The calls that were cut have settled: what it cost is no longer "at least".
    shown = await until(whole, "the whole cost is told")
    assert not shown["spent_more"] and shown["charged"]["model_calls"] >= len(RING)
    await held_back_until_reset(world, [one.id for one in tasks])


async def held_back_until_reset(world: World, talked: list[str]) -> None:
    """The agent of those tasks, `worker.step`, calls nothing in any task of the tenant until an operator resets it."""

    async def opened() -> dict[str, Any]:
        found = (await world.client(TALKING).get("/v1/breakers"))["breakers"]
        return next((one for one in found if (one["scope"], one["phase"]) == ("agent", "open")), {})

    found = await until(opened, "the agent's breaker is open")
    assert all(one in found["reason"] for one in talked) and found["name"] == "worker-step" and found["evidence"]
    await world.disarm()
    question = "What is 17 * 23?"
    task = await world.submit(TALKING, question, plan=calculation(question), check=False)

    async def put_off() -> list[CallDeferred]:
        return [one.body for one in await world.history(task) if isinstance(one.body, CallDeferred)]

    told = (await until(put_off, "its call is put off"))[0]
    assert told.paused and told.code == "breaker_open" and "only talked" in told.reason and talked[0] in told.reason
    assert any("only talked" in str(one["what"]) for one in await why(world, task.id))
    other = await world.submit("t1", question, plan=calculation(question), check=False)
    assert (await world.finish(other))["status"] == "succeeded", "another tenant's agent goes on"
    code, said, _ = await world.command("breakers", "reset", "agent:worker.step", "--tenant", TALKING, "--json")
    assert code == 0 and json.loads(said)["by"].startswith("operator:"), said
    assert "391" in (await world.finish(task, timeout_s=120))["answer"]
