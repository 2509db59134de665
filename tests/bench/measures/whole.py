"""The whole mesh, every service a process with its own key, over a provider that answers at once.

In: a folder and a durability. Out: what a user waits for beside the model: a task of one agent, the first token, an
admission; and what a full step costs in durable writes and CPU, by service. Settings are those of `bulkhead up`.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
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
from tests.bench import accounting
from tests.bench.figures import Book, quantile, say
from tests.bench.measures.stepping import LOADS, stored_messages
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

    def pids(self) -> dict[str, int]:
        """Process ids by service, broker and Redis."""
        return {name.removesuffix("-0"): unit.pid for name, unit in self.mesh.units.items() if unit.pid is not None}


def agents(count: int, *, tools: tuple[str, ...] = (), text: str = "Say that it is done.") -> dict[str, Any]:
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
                "acceptance": "Says that it is done.",
            }
            for n in range(count)
        ]
    }


async def ended(task: Task) -> None:
    """Watch it to its end. Raises AssertionError when that is no success: such a figure would mean nothing."""
    async with asyncio.timeout(FACT_TIMEOUT_S * 5):
        async for event in task.events():
            if event.name in ("task.ended", "task.rejected"):
                assert event.data.get("status") == "succeeded", (event.name, event.data)
                return
    raise AssertionError(f"the event stream of {task.id} ended, and did not say how the task did: {await task.show()}")


@asynccontextmanager
async def whole(folder: Path, durability: Durability, quotas: Mapping[str, Any] | None = None) -> AsyncIterator[Whole]:
    """Start provider and mesh, stop both. quotas: of further tenants."""
    folder.mkdir(parents=True, exist_ok=True)
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    provider = await ChildProcess.start(
        "instant",
        [sys.executable, "-m", "tests.bench.instant"],
        log=folder / "instant.log",
        environ={"PATH": os.environ["PATH"]},
        cwd=ROOT,
        on_line=lambda line: None if heard.done() else heard.set_result(int(line)),
    )
    try:
        port = await asyncio.wait_for(heard, FACT_TIMEOUT_S)
        tenants = folder / "tenants.yaml"
        rights = {"tools": ["calculate"], "document_scopes": ["default"], "day": PLENTY}
        rights |= {"task": PLENTY | {"deadline_ms": 600_000}}
        more = {name: rights | {"quota": quota} for name, quota in (quotas or {}).items()}
        tenants.write_text(yaml.safe_dump({"tenants": {TENANT: rights, **more}}))
        url = f"http://127.0.0.1:{port}/v1"
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
                await asyncio.gather(*(found.run(agents(1, tools=("calculate",)), check=True) for _ in range(8)))
                yield found
            finally:
                await asyncio.gather(*(one.close() for one in found.clients))
    finally:
        await provider.kill_and_wait()


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
    seed = mesh.mesh.nkey_seed("operator")
    reader = await JetStreamBus.connect(mesh.mesh.nats_url, service="operator", nkey_seed=seed)
    bus = await JetStreamBus.connect(mesh.mesh.nats_url, service="model_gateway", nkey_seed=identity.nkey_seed)
    publisher = make_context("model_gateway", "bench", bus, identity).publisher
    try:
        [request] = await reader.read("INBOX_MODEL_GATEWAY", f"mesh.worker.model_gateway.*.{TENANT}.{task.id}")
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
        await reader.close()
    book.add("admission_p50_ms", quantile(times, 0.5))


async def judged(mesh: Whole, book: Book, scale: int) -> None:
    """Steps with checks on: agent step (one model call), plain checks, judge."""
    alone = [await mesh.run(agents(4), check=True) - await mesh.run(agents(1), check=True) for _ in range(3 * scale)]
    book.add("step_p50_ms_judged", quantile(alone, 0.5) / 3)
    for in_flight in LOADS:
        began, length = time.perf_counter(), max(1, 100 * scale // in_flight)
        await asyncio.gather(*(mesh.run(agents(length), check=True) for _ in range(in_flight)))
        book.add(f"steps_per_s_{in_flight}_judged", in_flight * length / (time.perf_counter() - began))


async def full_step(mesh: Whole, book: Book, scale: int) -> None:
    """Two model calls, one tool call, a judge: durable writes and CPU by service, as the difference between tasks of
    nine such steps and tasks of one, so that what a task costs by itself does not count."""
    tasks, extra = 2 * scale, 8
    short_writes, short_cpu = await _cost(mesh, tasks, 1)
    long_writes, long_cpu = await _cost(mesh, tasks, 1 + extra)
    steps = tasks * extra
    by_stream = {name: (long_writes[name] - short_writes.get(name, 0)) / steps for name in long_writes}
    # A step that is rejected is made again, and its cost would be that of two.
    assert by_stream["INBOX_MODEL_GATEWAY"] == 3, f"a full step is three model calls: {by_stream}"
    book.add("full_step_durable_writes", sum(by_stream.values()))
    for name, count in sorted(by_stream.items(), key=lambda row: -row[1]):
        if count:
            book.add(f"full_step_durable_writes_{name.lower()}", count)
    by_service = {name: (long_cpu[name] - short_cpu[name]) / steps * 1000 for name in long_cpu}
    book.add("full_step_cpu_ms", sum(by_service.values()))
    for name, used_ms in by_service.items():
        book.add(f"full_step_cpu_ms_{name}", used_ms)
    book.add("pss_whole_mesh_mb", accounting.pss_mb(mesh.pids().values()))


async def _cost(mesh: Whole, tasks: int, steps: int) -> tuple[dict[str, int], dict[str, float]]:
    """Messages by stream and CPU seconds by process of so many tasks, one after the other."""
    pids, url = mesh.pids(), mesh.mesh.monitor_url
    stored, used = await stored_messages(url), {name: accounting.cpu_s([pid]) for name, pid in pids.items()}
    for _ in range(tasks):
        await mesh.run(agents(steps, tools=("calculate",)), check=True)
    more = await stored_messages(url)
    cpu = {name: accounting.cpu_s([pid]) - used[name] for name, pid in pids.items()}
    return {name: count - stored.get(name, 0) for name, count in more.items()}, cpu
