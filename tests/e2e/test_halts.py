"""A tenant halted by hand on real processes while a model answers it: its stream is cut, it waits, goes on, repeats
nothing; another tenant does not notice."""

import json
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client.errors import Refused
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.tool import ToolCallReplied
from tests.e2e.fixtures.world import World, until
from tests.e2e.test_watcher import calculation, why

WHY = "its agents run wild"
STALLED_MS = 120_000


async def begun_and_silent(world: World) -> list[dict[str, Any]]:
    """Requests whose answer has begun and does not go on."""
    return [one for one in await world.model_requests() if one["fault"] == "stall" and one["chunks_sent"]]


async def told(world: World, task: Any, kind: type) -> list[Any]:
    return [one for one in await world.history(task) if isinstance(one.body, kind)]


@pytest.mark.slow
async def test_a_halted_tenant_waits_and_goes_on_and_the_other_one_is_unharmed(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.arm("stall", "wildly", times=1, delay_ms=STALLED_MS)
        question = "What is 17 * 23? Work it out wildly."
        task = await world.submit("demo", question, plan=calculation(question), check=False)
        await until(lambda: begun_and_silent(world), "the model has begun to answer")

        code, said, _ = await world.command("halt", "--tenant", "demo", "--reason", WHY, "--json")
        halt = json.loads(said)
        assert code == 0 and halt["by"].startswith("operator:")

        async def cut() -> bool:
            return bool((await begun_and_silent(world))[0]["client_cut"])

        await until(cut, "the stream in flight is cut")
        (put_off,) = (await until(lambda: told(world, task, CallDeferred), "the call is put off"))[:1]
        assert put_off.body.paused and WHY in put_off.body.reason
        print(f"cut {put_off.at_unix_ms - halt['at_unix_ms']} ms after the halt")  # noqa: T201 - for benchmarks
        reasons = await why(world, task.id)
        assert any(WHY in str(one["what"]) and "bulkhead resume" in str(one["todo"]) for one in reasons), reasons

        healthy = await world.submit("t1", "What is 12 * 12?", plan=calculation("What is 12 * 12?"), check=False)
        assert (await world.finish(healthy))["status"] == "succeeded"
        with pytest.raises(Refused) as refused:
            await world.client("demo", "operator").resume("tenant", "demo", "I say so")
        assert refused.value.code == "not_yours", "nobody releases himself"
        assert await told(world, task, ToolCallReplied) == []

        code, said, _ = await world.command("resume", "--tenant", "demo", "--reason", "they are tame again")
        assert code == 0, said
        document = await world.finish(task)
        assert document["status"] == "succeeded" and "391" in document["answer"], document
        assert len(await told(world, task, ToolCallReplied)) == 1
        answered = [one.body.call_id for one in await told(world, task, ModelCallReplied)]
        assert len(answered) == len(set(answered)) == 2, "each call was answered once"
        code, said, _ = await world.command("halts", "--json")
        assert (code, json.loads(said)) == (0, [])
