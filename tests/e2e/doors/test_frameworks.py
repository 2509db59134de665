"""The agents of examples/agents as processes of their own: unmodified frameworks that are given a URL and a key."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.doors.agent import MODEL, Agent, log_stands, provider_counted
from tests.e2e.fixtures.world import World, until

pytestmark = [pytest.mark.nightly, pytest.mark.asyncio(loop_scope="session")]

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"
NAMES = sorted(one.stem.removeprefix("with_") for one in EXAMPLES.glob("with_*.py"))
TENANTS = dict(zip(NAMES, ("t10", "t11", "t12", "t13", "t14", "t15"), strict=True))
TIMEOUT_S = 180


class Program:
    """One agent that was started."""

    def __init__(self, world: World, name: str) -> None:
        self.name, self.agent = name, Agent(world, TENANTS[name], "")

    async def run(self, *questions: str) -> tuple[int, str]:
        """Exit code, and all that it wrote."""
        doors, key = self.agent.world.mesh.doors_url, self.agent.key
        env = {"OPENAI_BASE_URL": f"{doors}/openai/v1", "OPENAI_API_KEY": key, "MODEL": MODEL}
        env |= {"ANTHROPIC_BASE_URL": f"{doors}/anthropic", "ANTHROPIC_API_KEY": key}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / f"with_{self.name}.py"),
            *questions,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def task(self) -> str:
        """The id of its newest run."""
        [newest, *_] = (await self.agent.said("tasks"))["tasks"]
        return str(newest["task_id"])

    async def end(self) -> None:
        """Its runs are over; those of another person's key have ended before."""
        going = [row["task_id"] for row in (await self.agent.said("tasks"))["tasks"] if row["status"] == "running"]
        for self.agent.task in going:
            await self.agent.end()

        async def ended() -> bool:
            return not [row for row in (await self.agent.said("tasks"))["tasks"] if row["status"] == "running"]

        await until(ended, "its runs are over")


@pytest.fixture
def programs(agents: World) -> list[Program]:
    """One of each framework."""
    return [Program(agents, name) for name in NAMES]


@pytest.mark.timeout(400)
async def test_each_framework_uses_its_tool_and_is_told_as_a_task(agents: World, programs: list[Program]) -> None:
    since = await log_stands(agents)
    ended = await asyncio.gather(*(one.run("What is 17 * 23?", "What is 40 + 2?") for one in programs))
    for program, (code, said) in zip(programs, ended, strict=True):
        assert code == 0 and "391" in said and "42" in said, (program.name, said)
    counted = [0, 0]
    for program in programs:
        program.agent.task = await program.task()
        calls, tokens = await program.agent.spent()
        assert calls == 4, f"{program.name}: two questions, a tool call for each"
        counted = [counted[0] + calls, counted[1] + tokens]
        await program.end()
        shown = await program.agent.shown()
        assert (shown["status"], shown["usage"]["model_calls"]) == ("succeeded", 4) and "42" in shown["answer"]
    assert tuple(counted) == await provider_counted(agents, since)
