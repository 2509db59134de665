"""The worker of examples/, a process of its own: killed in the middle of a step, which the next one carries out."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.doors.agent import MODEL, log_stands, provider_counted
from tests.e2e.fixtures.world import World, until
from tests.paths import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")
PLAN = {
    "steps": [
        {"id": "a", "title": "Refund", "instruction": "Say what is refunded.", "acceptance": "it", "role": "refunds"}
    ]
}


async def start(world: World, log: Path, think_s: float, *, on_bus: bool = False) -> asyncio.subprocess.Process:
    """An instance of the example. on_bus: it takes its steps by NATS, and has no API key."""
    environ = os.environ | {"DOORS_URL": world.mesh.doors_url, "MODEL": MODEL, "THINK_S": str(think_s)}
    if on_bus:
        environ |= {"NATS_URL": world.mesh.nats_url, "KEYS": str(world.mesh.directory / "identity")}
    else:
        environ |= {"BULKHEAD_API_KEY": world.mesh.add_api_key("t1", "wrk_t1", "worker")}
    with log.open("wb") as out:
        script = ROOT / "examples" / "own_worker" / "worker.py"
        return await asyncio.create_subprocess_exec(sys.executable, str(script), env=environ, stdout=out, stderr=out)


async def test_a_killed_workers_step_goes_to_the_next_and_all_is_counted(agents: World, tmp_path: Path) -> None:
    since, logs = await log_stands(agents), [tmp_path / "first.log", tmp_path / "second.log"]
    first = await start(agents, logs[0], think_s=600)
    task = await agents.submit("t1", "What is refunded of 100.00?", plan=PLAN, check=False)

    async def works() -> bool:
        return f"a of {task.id}, taken 1 times" in logs[0].read_text()

    await until(works, f"the first instance is in the middle of its step; see {logs[0]}")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    second = await start(agents, logs[1], think_s=0)
    try:
        shown = await agents.finish(task)
    finally:
        second.terminate()
        await second.wait()
    assert shown["status"] == "succeeded" and shown["answer"].startswith("Refund: "), shown
    assert f"a of {task.id}, taken 2 times" in logs[1].read_text()
    calls, tokens = await provider_counted(agents, since)
    usage = shown["usage"]
    assert (calls, tokens) == (2, usage["input_tokens"] + usage["output_tokens"])
    operator = agents.mesh.add_api_key("t1", "t1-operator", "operator")
    code, out, error = await agents.command(
        "spend", "--by", "task", "--json", "--url", agents.mesh.url, "--api-key", operator
    )
    assert code == 0, error
    [row] = [one for one in json.loads(out)["rows"] if one["name"] == task.id]
    assert (row["spent"]["calls"], row["spent"]["tokens"]) == (calls, tokens)
    code, timeline, error = await agents.command("timeline", task.id, "--json")
    assert code == 0, error
    rows = [(row["from"], row["to"], row["type"]) for row in json.loads(timeline)["messages"]]
    assert rows.count(("doors", "doors", "mesh.step.taken.v1")) == 2
    assert ("worker", "doors", "mesh.step.delegation_requested.v1") in rows
    assert ("doors", "worker", "mesh.step.delegation_replied.v1") in rows
    code, why, error = await agents.command("why", task.id)
    assert code == 0 and "Refund" in why, (why, error)


async def test_a_worker_on_the_bus_takes_its_steps_under_its_own_identity(agents: World, tmp_path: Path) -> None:
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    first = await start(agents, logs[0], think_s=600, on_bus=True)
    task = await agents.submit("demo", "What is refunded of 50.00?", plan=PLAN, check=False)

    async def works() -> bool:
        return f"a of {task.id}, taken 1 times" in logs[0].read_text()

    await until(works, f"the first instance is in the middle of its step; see {logs[0]}")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    second = await start(agents, logs[1], think_s=0, on_bus=True)
    try:
        shown = await agents.finish(task)
    finally:
        second.terminate()
        await second.wait()
    assert shown["status"] == "succeeded" and shown["answer"].startswith("Refund: "), (shown, logs[1].read_text())
    assert f"a of {task.id}, taken 2 times" in logs[1].read_text()
