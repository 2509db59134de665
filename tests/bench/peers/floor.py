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
from typing import Any

import nats

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.server import Durability, NatsServer
from bulkhead_infra.nats.streams import Layout, stream_configs
from tests.bench.figures import Book
from tests.bench.peers.floor_client import Work
from tests.paths import ROOT

STREAM = "INBOX_GATEWAY"
"""Its settings are the floor's, and so are its subjects."""
SUBJECT = "mesh.planner.gateway.0.demo"
CLIENT_TIMEOUT_S = 600.0


class FloorFailed(Exception):
    """The floor's client ended without figures; says what it said."""


@dataclass(slots=True)
class Floor:
    """A bare broker with one stream, and the client."""

    client: asyncio.subprocess.Process
    log: Path

    async def measure(self, **work: Any) -> dict[str, float]:
        """What the client finds doing this Work, by measure. Raises FloorFailed."""
        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write((Work(SUBJECT, **work).line() + "\n").encode())
        line = await asyncio.wait_for(self.client.stdout.readline(), CLIENT_TIMEOUT_S)
        if not line:
            raise FloorFailed(f"the floor's client ended: {self.log.read_text()[-1000:]}")
        found: dict[str, float] = json.loads(line)
        return found


@asynccontextmanager
async def floor(folder: Path, durability: Durability) -> AsyncIterator[Floor]:
    """Start the broker and the client and make the stream; stop both at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = ServerPlan(folder=folder / "floor", port=free_port(), monitor_port=free_port(), durability=durability)
    server = NatsServer(plan, "", dict(os.environ))
    await server.start()
    try:
        client = await nats.connect(plan.url)
        config = next(one for one in stream_configs(Layout()) if one["name"] == STREAM)
        await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode(), timeout=10)
        await client.jetstream().stream_info(STREAM)
        await client.close()
        assert server.child is not None
        async with _client(folder / "floor.log", plan.url, server.child.pid) as process:
            found = Floor(process, folder / "floor.log")
            await found.measure(single=50)  # Warm.
            yield found
    finally:
        await server.stop()


@asynccontextmanager
async def _client(log: Path, *words: object) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.peers.floor_client",
            *map(str, words),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def measure(book: Book, folder: Path, durability: Durability, scale: int) -> None:
    """All of the floor's figures, under the names of the mesh's: a step is one acked publish."""
    book.scope("floor", durability)
    async with floor(folder, durability) as bare:
        found = await bare.measure(single=300 * scale, tasks=20 * scale, loads=(50, 200), length=8 * scale)
    found["steps_per_s"] = max(found["steps_per_s_50"], found["steps_per_s_200"])
    found["cpu_per_step_ms"] = found["cpu_per_step_ms_200"]
    for measure_name, value in found.items():
        book.add(measure_name, value)
