"""The whole mesh, every service a process with its own key, over a provider that answers at once.

In: a folder and a durability. Out: what a user waits for beside the model: a task of one agent, the first token, an
admission; and a runner of full steps (full_steps.py). Settings are those of `bulkhead up`.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.client import Mesh, Task
from bulkhead.runtime.context import ServiceIdentity, make_context
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.result import Usage
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats.server import Durability
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.processes.child import ChildProcess
from tests.bench.figures import Book, quantile, say
from tests.bench.measures.stepping import LOADS, stored_messages
from tests.bench.peers.agent_step import ACCEPTANCE, INSTRUCTION
from tests.bench.rig import ASSIGNED, stamps
from tests.paths import ROOT

TENANT = "demo"
FACT_TIMEOUT_S = 60.0
CLIENTS = 8
"""People who ask, each with a key: one may have 100 event streams open, and each task is watched."""
PLENTY = {"cost_usd_micros": 10**9, "tokens": 10**9}


@dataclass(slots=True)
class Whole:
    """A running mesh and who asks it."""

    mesh: LocalMesh
    provider_url: str
    clients: list[Mesh] = field(default_factory=list)
    submitted: int = 0
    chained: list[Task] = field(default_factory=list)

    async def submit(self, plan: dict[str, Any] | None, *, check: bool) -> Task:
        """One task; the clients take turns."""
        self.submitted += 1
        client = self.clients[self.submitted % len(self.clients)]
        return await client.submit("Say that it is done.", plan=plan, check=check, deadline_s=600)

    async def run(self, plan: dict[str, Any] | None, *, check: bool) -> float:
        """One task from the request to the end on the event stream; milliseconds."""
        began = time.perf_counter()
        await ended(await self.submit(plan, check=check))
        return (time.perf_counter() - began) * 1000

    async def run_chains(self, chains: int, steps: int) -> None:
        """Chains of full steps, one after the other."""
        for _ in range(chains):
            self.chained.append(await self.submit(full_step_plan(steps), check=True))
            await ended(self.chained[-1])

    async def step_gaps_ms(self) -> list[float]:
        """Of the chains so far: from each hand-out of a step to the next one's, by the broker's clock."""
        gaps_ms: list[float] = []
        async with self.reader() as bus:
            for task in self.chained:
                starts = [at for at, kind in await stamps(bus, "worker", task.id) if kind == ASSIGNED]
                steps = (await task.show())["steps_total"]
                assert len(starts) == steps, f"{task.id}: {len(starts)} hand-outs of {steps} steps"
                gaps_ms += [later - earlier for earlier, later in itertools.pairwise(starts)]
        return gaps_ms

    async def run_together(self, chains: int, steps: int) -> float:
        """Chains of full steps at the same time; seconds."""
        began = time.perf_counter()
        await asyncio.gather(*(self.run(full_step_plan(steps), check=True) for _ in range(chains)))
        return time.perf_counter() - began

    async def writes(self) -> Mapping[str, int]:
        """Stored messages, by stream."""
        return await stored_messages(self.mesh.monitor_url)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[JetStreamBus]:
        """A connection that may read every inbox."""
        seed = self.mesh.nkey_seed("operator")
        bus = await JetStreamBus.connect(self.mesh.nats_url, service="operator", nkey_seed=seed)
        try:
            yield bus
        finally:
            await bus.close()

    def pids(self) -> Mapping[str, Sequence[int]]:
        """Process ids by service, broker and Redis."""
        return {name.removesuffix("-0"): (unit.pid,) for name, unit in self.mesh.units.items() if unit.pid is not None}


def agents(count: int, *, tools: tuple[str, ...] = (), text: str = INSTRUCTION) -> dict[str, Any]:
    """A plan: a chain of agent steps."""
    return {
        "steps": [
            {
                "id": f"s{n}",
                "title": "Do it",
                "instruction": text,
                "tools": list(tools),
                "kind": "agent",
                "inputs": [f"s{n - 1}"] if n else [],
                "acceptance": ACCEPTANCE,
            }
            for n in range(count)
        ]
    }


def full_step_plan(count: int) -> dict[str, Any]:
    """A plan: a chain of steps of two model calls and a tool call, to be judged."""
    return agents(count, tools=("calculate",))


async def ended(task: Task) -> None:
    """Watch it to its end. Raises AssertionError when that is no success: such a figure would mean nothing."""
    async with asyncio.timeout(FACT_TIMEOUT_S * 5):
        async for event in task.events():
            if event.name in ("task.ended", "task.rejected"):
                assert event.data.get("status") == "succeeded", (event.name, event.data)
                return
    raise AssertionError(f"the event stream of {task.id} ended, and did not say how the task did: {await task.show()}")


@asynccontextmanager
async def instant_provider(folder: Path) -> AsyncIterator[str]:
    """Start a provider; its address."""
    first_line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    provider = await ChildProcess.start(
        "instant",
        [sys.executable, "-m", "tests.bench.instant"],
        log=folder / "instant.log",
        environ={"PATH": os.environ["PATH"]},
        cwd=ROOT,
        on_line=lambda line: None if first_line.done() else first_line.set_result(line),
    )
    try:
        yield f"http://127.0.0.1:{await asyncio.wait_for(first_line, FACT_TIMEOUT_S)}/v1"
    finally:
        await provider.kill_and_wait()


@asynccontextmanager
async def whole(folder: Path, durability: Durability, quotas: Mapping[str, Any] | None = None) -> AsyncIterator[Whole]:
    """Start provider and mesh, stop both. quotas: of further tenants."""
    folder.mkdir(parents=True, exist_ok=True)
    async with instant_provider(folder) as url:
        tenants = folder / "tenants.yaml"
        rights = {"tools": ["calculate"], "document_scopes": ["default"], "day": PLENTY}
        rights |= {"task": PLENTY | {"deadline_ms": 600_000}}
        more = {name: rights | {"quota": quota} for name, quota in (quotas or {}).items()}
        tenants.write_text(yaml.safe_dump({"tenants": {TENANT: rights, **more}}))
        environ = dict(os.environ) | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "instant"}
        extra = {"model_gateway": {"BULKHEAD_MODEL": MODEL_NAME}}
        async with LocalMesh(
            folder / "mesh",
            durability=durability,
            offline_model=False,
            tenants=tenants,
            environ=environ,
            extra_env=extra,
            on_event=say,
        ) as mesh:
            names = [f"bench{number}" for number in range(CLIENTS)]
            found = Whole(mesh, url, [Mesh(mesh.url, mesh.add_api_key(TENANT, name, "submitter")) for name in names])
            try:
                await found.run_together(CLIENTS, 1)
                yield found
            finally:
                await asyncio.gather(*(one.close() for one in found.clients))


async def one_agent(mesh: Whole, book: Book, scale: int) -> None:
    """A task of one agent step and one model call, as a client sees it; and one that is planned and judged as well."""
    count = 10 * scale
    book.add("one_agent_task_p50_ms", quantile([await mesh.run(agents(1), check=False) for _ in range(count)], 0.5))
    planned = [await mesh.run(None, check=True) for _ in range(count)]
    book.add("planned_judged_task_p50_ms", quantile(planned, 0.5))


async def first_token(mesh: Whole, book: Book, scale: int) -> None:
    """From the provider's socket to the watcher's: each first token tells when it left."""
    late_ms: list[float] = []
    for _ in range(10 * scale):
        task = await mesh.submit(agents(1, text="STAMP"), check=False)
        listening = False
        async with asyncio.timeout(FACT_TIMEOUT_S):
            async for event in task.events():
                arrived_unix_ns = time.time_ns()
                if event.name == "text":
                    # Who came after the token had left measures its own connection.
                    late_ms += [(arrived_unix_ns - int(event.data["text"])) / 1e6] if listening else []
                    break
                listening = listening or event.name == "step.started"
        await ended(task)
    assert len(late_ms) >= 5 * scale, f"only {len(late_ms)} watchers were there before their token"
    book.add("first_token_overhead_p50_ms", quantile(late_ms, 0.5))


async def admission(mesh: Whole, book: Book, scale: int) -> None:
    """Reserve, as a doer asks for it: Redis in all scopes, the fact in the journal, the answer. The bench speaks as
    one more model gateway, under the grant of a task that has run; each reservation is settled with nothing used."""
    task = await mesh.submit(agents(1), check=False)
    await ended(task)
    identity = ServiceIdentity.load(mesh.mesh.directory / "identity", "model_gateway")
    bus = await JetStreamBus.connect(mesh.mesh.nats_url, service="model_gateway", nkey_seed=identity.nkey_seed)
    publisher = make_context("model_gateway", "bench", bus, identity).publisher
    try:
        async with mesh.reader() as reader:
            [request] = await reader.read("INBOX_MODEL_GATEWAY", f"mesh.worker.model_gateway.*.{TENANT}.{task.id}.*")
        grant, actor = request.headers["bulkhead-grant"], request.actor
        times = []
        for n in range(50 * scale):
            ask = ReserveRequested(
                reservation_id=f"bench-{n}",
                call_id=f"bench-{n}",
                purpose="model",
                resource=MODEL_NAME,
                worst_case=Amount(tokens=1, cost_usd_micros=1, model_calls=1),
            )
            began = time.perf_counter()
            answer = await publisher.request(
                "budget", ask, tenant=TENANT, task=task.id, grant=grant, actor=actor, cause="bench", index=n
            )
            times.append((time.perf_counter() - began) * 1000)
            assert isinstance(answer, ReserveReplied) and answer.decision == "reserved", answer
            settled = Settled(reservation_id=f"bench-{n}", call_id=f"bench-{n}", usage=Usage())
            await publisher.send("budget", settled, tenant=TENANT, task=task.id, cause=f"bench-{n}", index="settled")
    finally:
        await bus.close()
    book.add("admission_p50_ms", quantile(times, 0.5))


async def judged(mesh: Whole, book: Book, scale: int) -> None:
    """Steps with checks on: agent step (one model call), plain checks, judge."""
    alone = [await mesh.run(agents(4), check=True) - await mesh.run(agents(1), check=True) for _ in range(3 * scale)]
    book.add("step_p50_ms_judged", quantile(alone, 0.5) / 3)
    for in_flight in LOADS:
        began, length = time.perf_counter(), max(1, 100 * scale // in_flight)
        await asyncio.gather(*(mesh.run(agents(length), check=True) for _ in range(in_flight)))
        book.add(f"steps_per_s_{in_flight}_judged", in_flight * length / (time.perf_counter() - began))
