"""The bench's rig: a real broker with the rendered accounts, planner and worker as processes.

The bench itself speaks with the gateway's identity: it submits tasks and listens to the gateway's inbox.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.bus import wire
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead.runtime.context import Context, ServiceIdentity, make_context, unix_ms
from bulkhead_contracts import subjects
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskEnded, TaskLimits, TaskSubmitted, list_facts
from bulkhead_infra.composition import newest_logic
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.server import Durability, NatsServer
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.processes.child import ChildProcess
from bulkhead_infra.processes.http import get_url
from tests.bench import accounting
from tests.bench.measures.filling import fill
from tests.paths import ROOT

OBJECTIVE = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
TASK_TIMEOUT_S = 120.0
SLOTS = 256
INSTRUCTION = "x" * 64
"""What a no-op step returns: 64 bytes."""
STARTED, STEP_ENDED, ENDED = (one.ce_type() for one in (StepStarted, StepEnded, TaskEnded))
ASSIGNED, FINISHED = StepAssigned.ce_type(), StepFinished.ce_type()


class RigFailed(Exception):
    """A task did not end, or nobody listens any more; says what the services said."""


@dataclass(slots=True)
class Seen:
    """What the gateway was told of a task, and when its submission began (seconds)."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: float = 0.0
    _heard: deque[tuple[float, str, bytes]] = field(default_factory=deque)
    _at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def hear(self, kind: str, body: bytes) -> None:
        """Note it: it is read when somebody looks, since who measures should not use the cores that are measured."""
        self._heard.append((time.perf_counter(), kind, body))
        if kind == ENDED:
            self.ended.set()

    @property
    def at(self) -> Mapping[str, list[float]]:
        """Arrival times (seconds), by type. Progress is told a few milliseconds late, of several steps at once."""
        while self._heard:
            now, kind, body = self._heard.popleft()
            for told in _kinds(kind, body):
                self._at[told].append(now)
        return self._at

    @property
    def ended_at(self) -> float:
        """When the end was heard."""
        return self.at[ENDED][0]


@dataclass(slots=True)
class Rig:
    """A running bench mesh. listening: ends only with the rig, or by a failure."""

    folder: Path
    server: NatsServer
    context: Context
    children: dict[str, ChildProcess] = field(default_factory=dict)
    tasks: dict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))
    environ: Mapping[str, str] = field(default_factory=dict)
    listening: asyncio.Task[None] | None = None
    logic: int = field(default_factory=newest_logic)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def submit(self, steps: int, *, check: bool = False) -> str:
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
            check=check,
            plan=Plan(steps=chain),
        )
        self.tasks[task].submitted = time.perf_counter()
        await self.context.publisher.send(
            "planner", body, tenant="demo", task=task, cause=task, index=0, first=True, logic=self.logic
        )
        return task

    async def handed_out_ms(self, task: str) -> list[float]:
        """When each step of a task was recorded as handed out: the broker's clock, in the worker's inbox."""
        async with self.reader() as bus:
            return [at for at, kind in await stamps(bus, "worker", task) if kind == ASSIGNED]

    async def chain_ms(self, steps: int) -> list[float]:
        """Run one task alone; when its steps were handed out."""
        name = await self.submit(steps)
        await self.wait([name])
        del self.tasks[name]
        found = await self.handed_out_ms(name)
        assert len(found) == steps, f"{name}: {len(found)} hand-outs of {steps} steps"
        return found

    async def run(self, steps: int, *, check: bool = False) -> Seen:
        """Submit one task and wait for its end."""
        name = await self.submit(steps, check=check)
        await self.wait([name])
        return self.tasks.pop(name)

    async def run_many(self, count: int, steps: int, *, check: bool = False) -> float:
        """So many tasks at the same time; seconds from the first submission to the last end."""
        began = time.perf_counter()
        names = await asyncio.gather(*(self.submit(steps, check=check) for _ in range(count)))
        await self.wait(names)
        seconds = time.perf_counter() - began
        for name in names:
            del self.tasks[name]
        return seconds

    async def wait(self, names: Sequence[str]) -> None:
        """Until all of these have ended. Raises RigFailed with what the services said."""
        ended = asyncio.gather(*(self.tasks[name].ended.wait() for name in names))
        assert self.listening is not None
        ends: set[asyncio.Future[Any]] = {ended, self.listening}
        try:
            await asyncio.wait(ends, timeout=TASK_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return
        finally:
            ended.cancel()
        if self.listening.done():
            raise RigFailed("the bench hears the gateway's inbox no more") from self.listening.exception()
        open_tasks = [name for name in names if not self.tasks[name].ended.is_set()]
        heard = {name: {kind: len(at) for kind, at in self.tasks[name].at.items()} for name in open_tasks[:3]}
        said = "\n".join(child.describe_end() for child in self.children.values())
        raise RigFailed(
            f"{len(open_tasks)} of {len(names)} tasks have not ended within {TASK_TIMEOUT_S:g} s; heard of the first: "
            f"{heard}; look at the broker's store and logs in {self.folder}\n{said}"
        )

    async def listen(self) -> None:
        """Take everything out of the gateway's inbox."""
        consumer = await self.context.bus.open_consumer("INBOX_GATEWAY", subjects.durable_name("gateway", 0))
        while True:
            for delivery in await consumer.fetch(256):
                stored = delivery.stored
                self.tasks[stored.task].hear(stored.ce_type, stored.body)
                await delivery.ack()

    def by_name(self) -> dict[str, int]:
        """Process ids of broker and services."""
        assert self.server.child is not None
        running = {name: child.pid for name, child in self.children.items() if child.is_running}
        return {"broker": self.server.child.pid, **running}

    def pids(self) -> list[int]:
        """Broker and services."""
        return list(self.by_name().values())

    def cpu_by_name(self) -> dict[str, float]:
        """CPU seconds used so far by broker and services; the bench's own are not counted."""
        return {name: accounting.cpu_s([pid]) for name, pid in self.by_name().items()}

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[JetStreamBus]:
        """A connection that may read every inbox."""
        seed = keys.nkey_seed(self.folder / "identity", "operator")
        bus = await JetStreamBus.connect(self.server.plan.url, service="operator", nkey_seed=seed)
        try:
            yield bus
        finally:
            await bus.close()

    @asynccontextmanager
    async def speaking_as(self, service: str) -> AsyncIterator[Context]:
        """Another service's identity, while that service does not run."""
        identity = ServiceIdentity.load(self.folder / "identity", service)
        bus = await JetStreamBus.connect(self.server.plan.url, service=service, nkey_seed=identity.nkey_seed)
        try:
            yield make_context(service, "bench", bus, identity)
        finally:
            await bus.close()

    async def jsz(self, query: str = "streams=true&accounts=true") -> dict[str, Any]:
        """The broker's own counts."""
        _, body = await get_url(f"{self.server.plan.monitor_url}/jsz?{query}", timeout_s=5)
        found: dict[str, Any] = json.loads(body)
        return found

    async def start_service(self, name: str) -> None:
        """Start (again) a service process and wait until it is ready. Raises TimeoutError with its last lines."""
        health = self.folder / f"{name}.health"
        health.unlink(missing_ok=True)
        environ = {
            # With PYTHONPATH: what is measured is this tree, also where another one is installed.
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "BULKHEAD_NATS_URL": self.server.plan.url,
            "BULKHEAD_IDENTITY_DIR": str(self.folder / "identity"),
            "BULKHEAD_DATA_DIR": str(self.folder / "data"),
            "BULKHEAD_HEALTH_FILE": str(health),
            "BULKHEAD_TRACE": "false",
            "BULKHEAD_LOG_LEVEL": "warning",
            "BULKHEAD_SLOTS": str(SLOTS),
            **self.environ,
        }
        log = self.folder / "logs" / f"{name}.log"
        child = self.children[name] = await ChildProcess.start(
            name, [sys.executable, "-m", f"bulkhead_services.{name}.app"], log=log, environ=environ, cwd=ROOT
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and child.is_running:
            if health.is_file() and await _ready(health):
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{name} was not ready within {READY_TIMEOUT_S:g} s\n{child.describe_end()}")

    async def stop_service(self, name: str, *, kill: bool = False) -> None:
        """End a service: in order, or by kill -9."""
        child = self.children.pop(name)
        await (child.kill_and_wait() if kill else child.stop(STOP_TIMEOUT_S))


async def stamps(bus: JetStreamBus, receiver: str, task: str) -> list[tuple[float, str]]:
    """Of each message of a task in an inbox: when the broker stored it (Unix milliseconds, with all that it tells of
    them) and its type. One at a time: a page has them by the millisecond."""
    found: list[tuple[float, str]] = []
    wanted = {"seq": 1, "next_by_subj": subjects.task_filter(receiver, "demo", task)}
    ask = f"JSMESH.API.DIRECT.GET.{subjects.inbox_stream(receiver)}"
    while True:
        headers = (await bus.request(ask, json.dumps(wanted).encode())).headers
        if "Nats-Time-Stamp" not in headers:
            return found
        stamp = headers["Nats-Time-Stamp"]
        below_ms = (stamp.removesuffix("Z").partition(".")[2] + "0" * 9)[3:9]
        found.append((wire.time_of(stamp) + int(below_ms) / 1e6, headers.get("ce-type", "")))
        wanted["seq"] = int(headers[wire.SEQUENCE]) + 1


def _kinds(kind: str, body: bytes) -> list[str]:
    """The types of what a message tells."""
    told = {one.ce_type(): one for one in (Progressed, TaskEnded)}.get(kind)
    return [kind] if told is None else [fact.ce_type() for fact in list_facts(told.model_validate_json(body))]


async def _ready(health: Path) -> bool:
    try:
        code, _ = await get_url(f"http://127.0.0.1:{json.loads(health.read_text())['port']}/readyz", timeout_s=2)
    except (OSError, ValueError, KeyError):
        return False
    return code == 200


@asynccontextmanager
async def rig(
    folder: Path,
    durability: Durability,
    *,
    filled: Mapping[str, int] | None = None,
    services: Sequence[str] = ("planner", "worker"),
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """Start everything, stop everything. filled: messages that each inbox holds before it begins."""
    rules = policy.load_policy()
    keys.ensure_keys(folder / "identity", rules)
    nkeys = keys.public_nkeys(folder / "identity", rules)
    plan = ServerPlan(folder / "nats", free_port(), free_port(), durability)
    if filled:
        await fill(plan, filled)
    server = NatsServer(plan, render.render_accounts(rules, nkeys), dict(os.environ))
    await server.start()
    made: Rig | None = None
    try:
        if not filled:
            await provision(plan.url, keys.nkey_seed(folder / "identity", "provisioner"), Layout())
        identity = ServiceIdentity.load(folder / "identity", "gateway")
        bus = await JetStreamBus.connect(plan.url, service="gateway", nkey_seed=identity.nkey_seed)
        made = Rig(folder, server, make_context("gateway", "bench", bus, identity), environ=environ or {})
        for name in services:
            await made.start_service(name)
        made.listening = asyncio.create_task(made.listen())
        try:
            yield made
        finally:
            made.listening.cancel()
            await asyncio.gather(made.listening, return_exceptions=True)
            await bus.close()
    finally:
        if made is not None:
            await asyncio.gather(*(made.stop_service(name) for name in list(made.children)))
        await server.stop()
