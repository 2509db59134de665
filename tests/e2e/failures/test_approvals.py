"""kill -9 of every service while a call waits for a person for longer than its task's deadline: the word still counts,
and the write is made once."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.client import Mesh, Unreachable
from bulkhead_services.tool_executor.settings import POLICY_DIR
from tests.e2e.fixtures.world import World
from tests.eventually import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
PLAN = {
    "steps": [
        {
            "id": "s1",
            "title": "Count",
            "instruction": "Use counter_increment with name=asked amount=1.",
            "tools": ["counter_increment"],
            "inputs": [],
            "acceptance": "It is counted.",
        }
    ]
}
DEADLINE_S = 10
"""Of the task: less than its people take."""
KILLED = ("tool_executor", "gateway", "worker", "planner", "signer", "budget", "model_gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh under the shipped default, which asks about every write."""
    folder = tmp_path_factory.mktemp("asking")
    (folder / "rules").mkdir()
    shutil.copy(POLICY_DIR / "default.cedar", folder / "rules")
    rules = {"tool_executor": {"BULKHEAD_POLICY_DIR": str(folder / "rules")}}
    async with World(folder, extra_env=rules) as world:
        yield world


async def waiting(mesh: Mesh, task: str) -> dict[str, Any]:
    async def one() -> Any:
        return (await mesh.approvals("waiting", task))["approvals"]

    [row] = await until(one, "the call waits", timeout_s=60)
    return dict(row)


async def test_every_service_is_killed_while_a_call_waits_and_it_is_made_once(asking: World) -> None:
    task = await asking.submit("demo", "Count it.", plan=PLAN, check=False, deadline_s=DEADLINE_S)
    bob = asking.client(role="approver")
    row = await waiting(bob, task.id)
    over = asyncio.get_running_loop().time() + DEADLINE_S
    assert asking.counter.count("asked") == 0
    for name in KILLED:
        await asking.mesh.kill_replica(name)
    await asking.mesh.wait_until_ready(60)
    again = await until(lambda: _listed(bob, row["approval_id"]), "it is listed still", timeout_s=60)
    assert again["request"] == row["request"]
    await asyncio.sleep(max(0.0, over - asyncio.get_running_loop().time()))
    await bob.decide(row["approval_id"], row["request"]["arguments_sha256"], "granted", "it is right")
    await asking.finish(task, 120)
    assert asking.counter.count("asked") == 1
    [ended] = (await bob.approvals("granted", task.id))["approvals"]
    assert ended["end"]["role"] == "approver"


async def _listed(mesh: Mesh, approval: str) -> Any:
    try:
        return await mesh.get(f"/v1/approvals/{approval}")
    except Unreachable:  # The gateway is being started.
        return None


async def test_a_call_of_a_task_that_ended_waits_for_nobody(asking: World) -> None:
    plan = {"steps": [{**PLAN["steps"][0], "instruction": "Use counter_increment with name=gone amount=1."}]}
    task = await asking.submit("demo", "Count it.", plan=plan, check=False, deadline_s=300)
    bob = asking.client(role="approver")
    row = await waiting(bob, task.id)
    await task.cancel("not wanted")
    await asyncio.wait_for(task.result(60), 60)
    [over] = (await bob.approvals("abandoned", task.id))["approvals"]
    assert over["approval_id"] == row["approval_id"] and not (await bob.approvals("waiting", task.id))["approvals"]
    assert asking.counter.count("gone") == 0
