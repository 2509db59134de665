"""`bulkhead up` itself: everything killed at once with a task in flight, started again in the same directory, drained.

What it says when it cannot start is here too: each says what happened and what to do, with exit code 1.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bulkhead.client import Mesh
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.gate import GatedCounter
from tests.e2e.fixtures.world import MEDIA, until, verdict

START_TIMEOUT_S = 60
RUNS_AT = re.compile(r"the mesh runs at (http://\S+)")


def _environ(**more: str) -> dict[str, str]:
    """Without a provider of the person who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")} | more


class Up:
    """A running `bulkhead up`."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path) -> None:
        self.process, self.data, self.said = process, data, ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said += line.decode()

    async def url(self) -> str:
        """Its address, once it runs."""

        async def found() -> str:
            assert self.process.returncode is None, self.said
            match = RUNS_AT.search(self.said)
            return match[1] if match else ""

        return await until(found, "bulkhead up runs", START_TIMEOUT_S)

    def pids(self) -> list[int]:
        """Every process of the mesh, the supervisor first."""
        facts = json.loads((self.data / "mesh.json").read_text())
        return [facts["pid"], *(one["pid"] for one in facts["processes"].values())]

    async def end(self) -> int:
        """Its exit code once it is over and all was read."""
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self._reading
        return code


@asynccontextmanager
async def up(data: Path, **environ: str) -> AsyncIterator[Up]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        "up",
        "--data",
        str(data),
        "--port",
        "0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environ(**environ),
        limit=2**20,
    )
    running = Up(process, data)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.end()


TOOLS = ["search_documents", "calculate", "date_difference", "date_add", "counter_increment"]
"""What writes is named."""


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


async def test_everything_killed_at_once_goes_on_where_it_was_and_ctrl_c_drains(tmp_path: Path) -> None:
    demo, data = generate_demo(11), tmp_path / "data"
    objective = f"Use counter_increment with name=all amount=1. {demo.objective}"
    with GatedCounter() as counter:
        async with counter.held() as arrived, up(data, BULKHEAD_COUNTER_URL=counter.url) as first:
            credentials = json.loads((data / "credentials.json").read_text()) if await first.url() else {}
            async with Mesh(await first.url(), credentials["submitter"]) as client:
                for document in demo.documents:
                    media = MEDIA[Path(document.name).suffix]
                    await client.add_document(document.text.encode(), document.name, media)
                task_id = (await client.submit(objective, tools=TOOLS)).id
            await arrived()
            pids = first.pids()
            assert len(_alive(pids)) == len(pids) == 15, pids
            for pid in pids:
                # The kernel ends the children of a killed supervisor: some may be gone before their turn.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await until(lambda: _none(_alive(pids)), "all processes are gone")
        async with up(data, BULKHEAD_COUNTER_URL=counter.url) as second:
            async with Mesh(await second.url(), credentials["submitter"]) as client:
                document = await client.task(task_id).wait_until_ended(60)
            found = verdict(demo, document)
            assert found.ok, (found.differences, document["answer"])
            assert counter.count("all") == 1
            second.process.send_signal(signal.SIGINT)
            assert await second.end() == 0, second.said
            assert "draining" in second.said and "Traceback" not in second.said
        assert json.loads((data / "mesh.json").read_text())["processes"] == {}


async def _none(found: list[int]) -> bool:
    return not found
