"""The peers of the full agent step: LangGraph, pydantic-ai on DBOS, pydantic-ai on Restate.

In: a durability and a provider. Out: a running peer of two worker processes, each pinned to a core, that the measure
drives as it drives the mesh. `power` is fsync before a commit is acknowledged, `process` is without.
"""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.nats.server import Durability
from bulkhead_infra.processes.child import ChildProcess, StartFailed
from tests.bench.peers.postgres import postgres
from tests.bench.peers.worker_process import VENV, NoPeer, Worker

WORKERS = 2
READY_TIMEOUT_S = 60.0
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


@dataclass(slots=True)
class AgentPeer:
    """A running peer: its worker processes and what they store in."""

    workers: list[Worker]
    server_pids: Callable[[], list[int]]
    count_writes: Callable[[], Awaitable[int]]
    gaps_ms: list[float] = field(default_factory=list)

    async def run_chains(self, chains: int, steps: int) -> None:
        """Chains one after the other, in one process."""
        self.gaps_ms += (await self.workers[0].order(chains=chains, steps=steps, together=False))["gaps_ms"]

    async def step_gaps_ms(self) -> list[float]:
        """Of the chains so far: from each step's beginning to the next one's."""
        return self.gaps_ms

    async def run_together(self, chains: int, steps: int) -> float:
        """Chains at the same time, shared out to the processes; seconds from the first to the last."""
        share = chains // len(self.workers)
        orders = [worker.order(chains=share, steps=steps, together=True) for worker in self.workers]
        done = await asyncio.gather(*orders)
        return float(max(row["ended"] for row in done) - min(row["began"] for row in done))

    async def writes(self) -> Mapping[str, int]:
        """Durable writes so far."""
        return {"server": await self.count_writes()}

    def pids(self) -> Mapping[str, Sequence[int]]:
        """The server's processes and the workers."""
        return {"server": self.server_pids(), "workers": [worker.process.pid for worker in self.workers]}


@asynccontextmanager
async def _on_postgres(
    script: str, folder: Path, durability: Durability, provider_url: str
) -> AsyncIterator[AgentPeer]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres(fsync=durability == "power"))
        peer = AgentPeer([], database.pids, database.writes)
        for number in range(WORKERS):
            environ = _environ(provider_url, database.url) | {"BENCH_EXECUTOR": f"executor-{number}"}
            # One after the other: the first makes the tables.
            await _add_worker(peer, stack, script, folder, **environ)
        yield peer


@asynccontextmanager
async def _restate(folder: Path, durability: Durability, provider_url: str) -> AsyncIterator[AgentPeer]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=READY_TIMEOUT_S))
        ingress, admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        child = await _start_restate_server(folder, ingress, admin, durability)
        stack.push_async_callback(child.kill_and_wait)
        await _until_healthy(http, (f"{admin}/health", f"{ingress}/restate/health"), child)

        async def count_entries() -> int:
            ask = {"query": "select sum(journal_size) as entries from sys_invocation"}
            answer = await http.post(f"{admin}/query", json=ask, headers={"Accept": "application/json"})
            return int(answer.raise_for_status().json()["rows"][0]["entries"] or 0)

        peer = AgentPeer([], lambda: [child.pid], count_entries)
        for number in range(WORKERS):
            port = free_port()
            environ = {"BENCH_SERVICE": f"Steps{number}", "BENCH_PORT": str(port)}
            await _add_worker(peer, stack, "restate_worker.py", folder, **_environ(provider_url, ingress), **environ)
            (await http.post(f"{admin}/deployments", json={"uri": f"http://127.0.0.1:{port}"})).raise_for_status()
        yield peer


AGENT_PEERS: Mapping[str, Callable[[Path, Durability, str], AbstractAsyncContextManager[AgentPeer]]] = {
    "dbos": partial(_on_postgres, "dbos_agent_worker.py"),
    "langgraph": partial(_on_postgres, "langgraph_worker.py"),
    "restate": _restate,
}
"""Raise NoPeer, NoPostgres, StartFailed, WorkerFailed."""


async def _start_restate_server(folder: Path, ingress: str, admin: str, durability: Durability) -> ChildProcess:
    package = f"restate-server-linux-{ARCHITECTURES.get(platform.machine(), platform.machine())}"
    program = VENV / "node_modules" / "@restatedev" / package / "bin" / "restate-server"
    if not program.is_file():
        raise NoPeer(f"there is no {program.name} in {VENV.name}: `make bench` installs it where there is npm")
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "RESTATE_BASE_DIR": str(folder / "restate"),
        "RESTATE_BIND_IP": "127.0.0.1",
        "RESTATE_BIND_PORT": str(free_port()),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_INGRESS__BIND_PORT": ingress.rpartition(":")[2],
        "RESTATE_ADMIN__BIND_PORT": admin.rpartition(":")[2],
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "warn",
        "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": str(durability != "power").lower(),
    }
    return await ChildProcess.start(
        "restate", [str(program), "--no-logo"], log=folder / "restate.log", environ=environ, cwd=folder
    )


async def _until_healthy(http: httpx.AsyncClient, urls: tuple[str, ...], child: ChildProcess) -> None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            for url in urls:
                while child.is_running and not await _is_healthy(http, url):
                    await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    else:
        if child.is_running:
            return
    raise StartFailed(f"Restate was not ready within {READY_TIMEOUT_S:g} s\n{child.describe_end()}")


async def _is_healthy(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


def _environ(provider_url: str, store_url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": provider_url, "OPENAI_API_KEY": "instant", "BENCH_URL": store_url}


async def _add_worker(peer: AgentPeer, stack: AsyncExitStack, script: str, folder: Path, **environ: str) -> None:
    number = len(peer.workers)
    worker = await Worker.start(script, folder / f"{script}-{number}.log", number, **environ)
    stack.push_async_callback(worker.stop)
    peer.workers.append(worker)
    await worker.answer()
