"""Steps of a role that a remote A2A agent carries out, on real processes: a program that knows the SDK and nothing of
us, and another mesh."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.client import Task
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_contracts import subjects
from tests import a2a_agent
from tests.e2e.fixtures.world import TOOLS, World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT, TOOL, MESH_TOOL = "t1", "agent_echo", "agent_mesh"
RULES = "".join(
    f"""
@id("{tool}")
permit (principal, action == Action::"{tool}", resource);
@id("told_{tool}")
permit (principal, action == Action::"flow", resource) when {{ context.tool == "{tool}" }};
"""
    for tool in (TOOL, MESH_TOOL)
)


REFUNDS = "Decides about the refund of an order."


class Far:
    """The agent as a process, on a port that stays."""

    def __init__(self, folder: Path) -> None:
        self.port, self.log = free_port(), folder / "far.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        words = ["--port", str(self.port), "--log", str(self.log)]
        self.process = subprocess.Popen([sys.executable, a2a_agent.__file__, *words])

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await until(listens, "the agent listens")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def wrote(self, word: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(word)]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    found = Far(Path(tmp_path_factory.mktemp("far")))
    yield found
    found.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, far: Far, agents: World) -> AsyncIterator[World]:
    folder = Path(tmp_path_factory.mktemp("remote"))
    file = folder / "agents.yaml"
    await far.start()
    token = folder / "token"
    token.write_text(f"Bearer {agents.mesh.add_api_key('t2', 'delegates', 'submitter')}")
    for url, name, *more in ((agents.mesh.doors_url, "mesh", "--header", f"authorization={token}"), (far.url, "echo")):
        words = ["agents", "add", url, "--name", name, "--private", "--tenant", TENANT, "--file", str(file), *more]
        subprocess.run([sys.executable, "-m", "bulkhead_cli.main", *words], check=True, timeout=60)
    file.write_text(file.read_text() + "    silence_ms: 4000\n    price_usd_micros: 1500\n    on_error: undone\n")
    env = {name: {"BULKHEAD_AGENTS_FILE": str(file)} for name in ("signer", "tool_executor")}
    found = World(folder, extra_env=env)
    policy = Path(found.env["tool_executor"]["BULKHEAD_POLICY_DIR"]) / "default.cedar"
    policy.write_text(policy.read_text() + RULES)
    roles = {"courier": {"to": "agent", "agent": "echo"}, "bureau": {"to": "agent", "agent": "mesh"}}
    roles["refunds"] = {"to": "worker", "identity": f"wrk_{TENANT}", "description": REFUNDS}
    found.change_tenants(**{TENANT: {"tools": [*TOOLS, TOOL, MESH_TOOL], "delegated_roles": roles}})
    async with found:
        yield found


async def delegates(world: World, says: str, role: str = "courier", **wishes: Any) -> Task:
    """A task of one step of a delegated role. says: the first words that the agent hears."""
    step: dict[str, object] = {"id": "s1", "title": says, "instruction": "as the title says", "role": role}
    step |= {"tools": [], "inputs": [], "acceptance": "It says something."}
    return await world.submit(TENANT, f"Let it be {says}.", plan={"steps": [step]}, check=False, **wishes)


async def began(far: Far, before: int) -> None:
    async def found() -> bool:
        return len(far.wrote("begun")) > before

    await until(found, "the agent began")


async def reply_of(world: World, task: Task) -> Callable[[str], Any]:
    """The reply to the one call, by field."""
    [entry] = [one for one in await world.history(task) if one.type.startswith("mesh.tool.call_replied")]
    return lambda name: getattr(entry.body, name)


async def test_a_step_is_carried_out_by_the_agent_and_its_words_are_untrusted(world: World, far: Far) -> None:
    task = await delegates(world, "hello there")
    document = await world.finish(task)
    assert document["status"] == "succeeded", document["failure"]
    assert "you said: hello there" in document["answer"]
    reply = await reply_of(world, task)
    [label] = reply("provenance")
    assert (label.kind, label.source, label.trust) == ("tool_result", TOOL, "untrusted")
    assert document["usage"]["cost_usd_micros"] >= 1_500 and reply("usage").tool_calls == 1
    assert (await world.replay(task)).divergences == []


async def test_a_step_is_carried_out_by_another_mesh(world: World, agents: World) -> None:
    document = await world.finish(await delegates(world, "What is 19 * 29?", "bureau"))
    assert document["status"] == "succeeded" and "551" in document["answer"], document["failure"]
    [there] = [one for one in await agents.client("t2").tasks() if "19 * 29" in one["objective"]]
    assert there["status"] == "succeeded"


async def test_a_killed_executor_makes_no_second_task(world: World, far: Far) -> None:
    before = len(far.wrote("begun"))
    task = await delegates(world, "slow 5")
    await began(far, before)

    async def named() -> bool:
        async with world.bus("tool_executor") as bus:
            return b'"agent":"echo"' in await records(bus, task)

    await until(named, "its task is on record")
    await world.mesh.kill_replica("tool_executor")
    document = await world.finish(task)
    assert document["status"] == "succeeded" and "done: 5" in document["answer"], document["failure"]
    assert len(far.wrote("begun")) == before + 1 and (await world.replay(task)).divergences == []


async def records(bus: Any, task: Task) -> bytes:
    subject = f"record.tool_executor.{TENANT}.{task.id}.>"
    page = await bus.read(subjects.records_stream("tool_executor"), subject, after=0)
    return b"".join(one.body for one in page if b'"task":""' not in one.body)
