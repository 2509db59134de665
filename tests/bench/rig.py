"""The bench's rig: a real broker with the rendered accounts, planner and worker as processes.

The bench itself speaks with the gateway's identity: it submits tasks and listens to the gateway's inbox.
"""

import asyncio
import itertools
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.bus.jetstream import JetStreamBus
from bulkhead.runtime.context import Context, Identity, make_context, unix_ms
from bulkhead_contracts import subjects
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from infra.identity import keys, policy, render
from infra.local.ports import free_port
from infra.nats.provision import provision
from infra.nats.server import NatsServer, ServerPlan

ROOT = Path(__file__).resolve().parents[2]
OBJECTIVE = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
FLAG_READY_S = 30.0
INSTRUCTION = "x" * 64
"""What a no-op step returns: 64 bytes."""


@dataclass(slots=True)
class Seen:
    """Arrival times (seconds) of a task's messages at the gateway, by type."""

    at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Rig:
    """A running bench mesh."""

    folder: Path
    server: NatsServer
    context: Context
    processes: dict[str, asyncio.subprocess.Process]
    tasks: dict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))
    _numbers: itertools.count = field(default_factory=itertools.count)

    async def submit(self, steps: int) -> str:
        """Submit a chain of no-op steps; returns the task id."""
        task = f"bench{os.getpid()}-{next(self._numbers)}"
        chain = tuple(
            PlanStep(id=f"s{n}", title="", instruction=INSTRUCTION, kind="noop", inputs=(f"s{n - 1}",) if n else ())
            for n in range(steps)
        )
        body = TaskSubmitted(
            objective=OBJECTIVE,
            limits=TaskLimits(deadline_ms=600_000),
            submitted_unix_ms=unix_ms(),
            check=False,
            plan=Plan(steps=chain),
        )
        await self.context.publisher.send("planner", body, tenant="demo", task=task, cause=task, index=0)
        return task

    async def run(self, steps: int) -> Seen:
        """Submit one task and wait for its end."""
        seen = self.tasks[await self.submit(steps)]
        await asyncio.wait_for(seen.ended.wait(), 120)
        return seen

    async def listen(self) -> None:
        """Take everything out of the gateway's inbox."""
        consumer = await self.context.bus.consumer("INBOX_GATEWAY", subjects.durable("gateway", 0))
        while True:
            for delivery in await consumer.fetch(256):
                now = time.perf_counter()
                kind = delivery.stored.headers.get("ce-type", "")
                seen = self.tasks[delivery.stored.subject.rpartition(".")[2]]
                seen.at[kind].append(now)
                if kind.startswith("mesh.task.ended"):
                    seen.ended.set()
                await delivery.ack()

    def cpu_s(self) -> float:
        """CPU seconds used so far by broker and services."""
        import psutil

        total = 0.0
        for pid in self.pids():
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
        return total

    def pids(self) -> list[int]:
        """Broker and services."""
        assert self.server.child is not None
        return [self.server.child.pid, *(process.pid for process in self.processes.values())]

    def pss_mb(self) -> float:
        """Proportional set size of broker and services."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

    async def start_service(self, name: str) -> None:
        """Start (again) a service process and wait until it is ready."""
        health = self.folder / f"{name}.health"
        health.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "BULKHEAD_NATS_URL": self.server.plan.url,
            "BULKHEAD_IDENTITY_DIR": str(self.folder / "identity"),
            "BULKHEAD_DATA_DIR": str(self.folder / "data"),
            "BULKHEAD_HEALTH_FILE": str(health),
            "BULKHEAD_TRACE": "false",
            "BULKHEAD_LOG_LEVEL": "warning",
            "BULKHEAD_SLOTS": "256",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"services.{name}", cwd=ROOT, env=environment, stderr=log
            )
        deadline = time.monotonic() + FLAG_READY_S
        while time.monotonic() < deadline:
            if health.is_file() and await _ready(health):
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{name} was not ready: {(self.folder / f'{name}.log').read_text()[-2000:]}")


async def _ready(health: Path) -> bool:
    import json

    port = json.loads(health.read_text())["port"]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in line


@asynccontextmanager
async def rig(folder: Path, durability: str) -> AsyncIterator[Rig]:
    """Start everything, stop everything."""
    rules = policy.load()
    keys.ensure(folder / "identity", rules)
    nkeys = keys.public_nkeys(folder / "identity", rules)
    port, monitor = free_port(), free_port()
    plan = ServerPlan(folder=folder / "nats", port=port, monitor_port=monitor, durability=durability)  # type: ignore[arg-type]
    server = NatsServer(plan, render.accounts(rules, nkeys), dict(os.environ))
    await server.start()
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        await provision(plan.url, keys.nkey_seed(folder / "identity", "provisioner"))
        identity = Identity.load(folder / "identity", "gateway")
        bus = await JetStreamBus.connect(plan.url, service="gateway", nkey_seed=identity.nkey_seed)
        made = Rig(folder, server, make_context("gateway", "bench", bus, identity), processes)
        for name in ("planner", "worker"):
            await made.start_service(name)
        listening = asyncio.create_task(made.listen())
        yield made
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await bus.close()
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.terminate()
                await process.wait()
        await server.stop()
