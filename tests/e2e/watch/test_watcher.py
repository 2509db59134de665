"""A model that runs away, on real processes: the watcher stops its task, whoever of budget's replicas was killed."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.fixtures.world import World, until

pytestmark = pytest.mark.nightly

LEADS = "watch_leads"
TAKEN_OVER_S = 15.0
"""Its lease is for three seconds; starved of the machine, the other replica takes longer to look."""


def calculation(question: str) -> dict[str, object]:
    """A plan of one step."""
    step = {
        "id": "s1",
        "title": "Calculate",
        "instruction": question,
        "tools": ["calculate"],
        "inputs": [],
        "acceptance": "The product is a number.",
    }
    return {"steps": [step]}


async def why(world: World, task: str) -> list[dict[str, object]]:
    """What `bulkhead why` says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        "why",
        task,
        "--data",
        str(world.mesh.directory),
        "--json",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(said)["reasons"]
    assert isinstance(found, list)
    return found


def leaders(world: World) -> list[str]:
    """Replicas that have said that they lead."""
    logs = world.mesh.directory / "logs"
    return [name for name in ("budget-0", "budget-1") if LEADS in (logs / f"{name}.log").read_text()]


async def leading(world: World, others: int) -> list[str]:
    async def there() -> list[str]:
        found = leaders(world)
        return found if len(found) > others else []

    found = await until(there, "a replica of budget watches")
    assert isinstance(found, list)
    return found


async def run_away(world: World, mark: str) -> None:
    """Submit, and look at how it ends and what is said about it."""
    question = f"What is 17 * 23? It runsaway {mark}."
    task = await world.submit("demo", question, plan=calculation(question), check=False)
    document = await world.finish(task)
    assert (document["status"], document["failure"]["code"]) == ("halted", "loop_stopped"), document
    reasons = await why(world, task.id)
    assert {one["kind"] for one in reasons} == {"ended", "halted", "tripped"}, reasons
    stop = next(one for one in reasons if one["kind"] == "tripped" and one["level"] == "stop")
    evidence = stop["evidence"]
    assert "calculate with the same arguments" in str(stop["what"])
    assert isinstance(evidence, list) and len(set(evidence)) == 4


@pytest.mark.slow
async def test_a_runaway_is_halted_also_after_the_leader_was_killed(tmp_path: Path) -> None:
    async with World(tmp_path, scale={"budget": 2}) as world:
        await world.arm("runaway", "runsaway", times=1_000)
        (leader,) = await leading(world, 0)
        await run_away(world, "first")
        killed = time.monotonic()
        await world.mesh.units[leader].kill_process(hold=True)
        assert len(await leading(world, 1)) == 2
        assert time.monotonic() - killed < TAKEN_OVER_S
        await run_away(world, "second")
        question = "What is 12 * 12?"
        healthy = await world.submit("t1", question, plan=calculation(question), check=False)
        document = await world.finish(healthy)
        assert document["status"] == "succeeded", document
