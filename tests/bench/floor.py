"""The floor: bare JetStream, one stream with an inbox's settings, publish and wait for the ack. Nothing can be faster.

In: a folder and a durability. Out: the figures of floor_client.py, from a broker of its own with the settings of the
mesh's broker, without accounts.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats

from infra.local.ports import free_port
from infra.nats.server import Durability, NatsServer, ServerPlan
from infra.nats.streams import Layout, streams
from tests.bench.figures import Book
from tests.bench.floor_client import Work
from tests.bench.rig import ROOT

STREAM = "INBOX_GATEWAY"
"""Its settings are the floor's, and so are its subjects."""
SUBJECT = "mesh.planner.gateway.0.demo"
CLIENT_TIMEOUT_S = 600.0


class FloorFailed(Exception):
    """The floor's client ended without figures; says what it said."""


@dataclass(slots=True)
class Floor:
    """A bare broker with one stream."""

    server: NatsServer

    async def measure(self, *, single: int, tasks: int = 0, loads: tuple[int, ...] = (), length: int = 0) -> dict:
        """One run of the client: its figures by measure. Raises FloorFailed."""
        assert self.server.child is not None
        work = Work(self.server.plan.url, self.server.child.pid, SUBJECT, single, tasks, loads, length)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.floor_client", work.line(), cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), CLIENT_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise FloorFailed(f"the floor's client ended with {process.returncode}: {err.decode()[-1000:]}")
        found: dict[str, float] = json.loads(out)
        return found


@asynccontextmanager
async def floor(folder: Path, durability: Durability) -> AsyncIterator[Floor]:
    """Start the broker and make the stream; stop it at the end."""
    plan = ServerPlan(folder=folder / "floor", port=free_port(), monitor_port=free_port(), durability=durability)
    server = NatsServer(plan, "", dict(os.environ))
    await server.start()
    try:
        client = await nats.connect(plan.url)
        config = next(one for one in streams(Layout()) if one["name"] == STREAM)
        await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode(), timeout=10)
        await client.jetstream().stream_info(STREAM)
        await client.close()
        yield Floor(server)
    finally:
        await server.stop()


async def measure(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """All of the floor's figures, under the names of the mesh's: a step is one acked publish."""
    book.scope("floor", durability)
    async with floor(folder, durability) as bare:
        found = await bare.measure(single=300 * scale, tasks=20 * scale, loads=(50, 200), length=8 * scale)
    found["steps_per_s"] = max(found["steps_per_s_50"], found["steps_per_s_200"])
    found["cpu_per_step_ms"] = found["cpu_per_step_ms_200"]
    for measure_name, value in found.items():
        book.add(measure_name, value)
