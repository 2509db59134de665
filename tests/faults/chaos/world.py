"""The mesh that is struck, with what stands beside it: an MCP server, a worker over HTTP and one on the bus.

In: a folder, how patient its services are. Out: a `ChaosWorld` whose every process can be killed and stopped.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from bulkhead.http_server.tcp_ports import free_port
from bulkhead.tools.mcp_file import pins_path, read_mcp_file
from bulkhead_infra.local.supervisor import REDIS
from bulkhead_infra.processes.supervised import SupervisedUnit
from bulkhead_services.tool_executor.mcp.pinning import read_server
from tests.e2e.doors.agent import MODEL
from tests.e2e.fixtures.world import TOOLS, WAITS, World, until
from tests.faults.chaos.schedule import BUS_WORKER, EMPTIED, EVERYTHING, MCP_SERVER, WORKER, Blow
from tests.faults.fixtures.errand import TENANT as PLANNED
from tests.faults.fixtures.errand import ingest
from tests.paths import ROOT

ASKING, WORKING, AGENTS, CALLING, PUBLISHING, TOOLING = "t1", "t2", "t3", "t4", "demo", "t5"
"""Tenants: whose writes a person approves; with a worker over HTTP; of model clients; of A2A clients; of the publisher
on the bus, who has a worker there; of MCP clients."""
TENANTS = (PLANNED, ASKING, WORKING, AGENTS, CALLING, PUBLISHING, TOOLING)
SERVERS = ("desk", "shelf")
"""MCP servers of the same tools: over HTTP, and as a process of the executor."""
MCP_TOOLS = [f"{server}_{tool}" for server in SERVERS for tool in ("append", "append_once")]
ASK_FOR_WRITES = '@id("all") @effect("ask") forbid (principal, action in Action::"writes", resource);'
PERMIT = '@id("all") permit (principal, action, resource);'
PROGRAM = ROOT / "tests" / "unit" / "services" / "tool_executor" / "mcp" / "mcp_server.py"
OUTSIDE_BACK_S = 0.5
MEND_TIMEOUT_S = 120.0


class OutsideProcess:
    """A program beside the mesh, which its owner starts again whenever it is gone."""

    def __init__(self, words: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        self._words, self._log, self._environ = words, log, dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def ensure_running(self) -> None:
        """Start it where it does not run."""
        if self.pid is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._words, stdout=log, stderr=log, env=os.environ | self._environ)

    def kill(self) -> None:
        """kill -9; it stays away until it is started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


class ChaosWorld(World):
    """wait_s: the longest wait of a door's call, after which an idle run ends, too; half as long again is the lease of
    a reservation."""

    def __init__(self, directory: Path, wait_s: float) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.mcp_log, self._mcp_port = directory / "mcp.log", free_port()
        mcp_file = directory / "mcp.yaml"
        files = {"BULKHEAD_MCP_FILE": str(mcp_file)}
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        super().__init__(
            directory,
            extra_env={
                "signer": files,
                "tool_executor": files,
                "doors": {
                    "BULKHEAD_CALL_TIMEOUT_S": f"{wait_s:g}",
                    "BULKHEAD_IDLE_S": f"{wait_s:g}",
                    "BULKHEAD_HOLD_S": "2",
                    "BULKHEAD_STEP_SILENT_S": "4",
                },
                "budget": {"BULKHEAD_LEASE_MS": str(round(1500 * wait_s)), "BULKHEAD_BREAKER_OPEN_S": "3"},
            },
            environ=os.environ | {"TMPDIR": str(self.temporary)},
        )
        self.wait_s = wait_s
        self.outside: dict[str, OutsideProcess] = {}
        self._mcp_file, self._folder = mcp_file, directory
        self._write_rules()

    def _write_rules(self) -> None:
        policy = Path(self.env["tool_executor"]["BULKHEAD_POLICY_DIR"])
        (policy / f"{TOOLING}.cedar").write_text(PERMIT)
        (policy / f"{ASKING}.cedar").write_text(ASK_FOR_WRITES)
        writes = [tool for tool in (*TOOLS, *MCP_TOOLS) if tool.startswith(("counter", *SERVERS))]
        refunds = {tenant: {"refunds": {"to": "worker", "identity": f"wrk_{tenant}"}} for tenant in ("t2", "demo")}
        self.change_tenants(
            **{PLANNED: {"tools": [*TOOLS, *WAITS]}},
            **{TOOLING: {"tools": [*TOOLS, *MCP_TOOLS], "default_writes": writes}},
            **{tenant: {"delegated_roles": roles} for tenant, roles in refunds.items()},
        )

    async def __aenter__(self) -> Self:
        words = [sys.executable, str(PROGRAM), "--log", str(self.mcp_log)]
        server = [*words, "--name", "desk", "--port", str(self._mcp_port)]
        self._add_outside(MCP_SERVER, server, {})
        try:
            await self._pin_servers([*words, "--name", "shelf"])
            await super().__aenter__()
            doors = {"DOORS_URL": self.mesh.doors_url, "MODEL": MODEL}
            worker = [sys.executable, str(ROOT / "examples" / "own_worker" / "worker.py")]
            key = self.mesh.add_api_key(WORKING, f"wrk_{WORKING}", "worker")
            self._add_outside(WORKER, worker, doors | {"BULKHEAD_API_KEY": key})
            on_bus = {"NATS_URL": self.mesh.nats_url, "KEYS": str(self.mesh.directory / "identity")}
            self._add_outside(BUS_WORKER, worker, doors | on_bus)
            await ingest(self)
        except BaseException:
            self._end_outside()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        self._end_outside()

    def _add_outside(self, name: str, words: Sequence[str], environ: Mapping[str, str]) -> None:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        self.outside[name] = OutsideProcess(words, log, environ)
        self.outside[name].ensure_running()

    def _end_outside(self) -> None:
        for process in self.outside.values():
            process.kill()

    async def _pin_servers(self, command: list[str]) -> None:
        """The file of MCP servers, and its pins."""
        terms: dict[str, Any] = {"append": {"effect": "write"}, "append_once": {"effect": "write", "idempotent": True}}
        rows = {
            "desk": {"urls": [f"http://127.0.0.1:{self._mcp_port}/mcp"], "tools": terms},
            "shelf": {"command": command, "tools": terms},
        }
        self._mcp_file.write_text(yaml.safe_dump({"servers": rows}))

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._mcp_port)
            except OSError:
                return False
            writer.close()
            return True

        await until(listens, "the MCP server listens", 60)
        servers = read_mcp_file(self._mcp_file).servers
        pins = {name: (await read_server(name, server)).pinned.model_dump() for name, server in servers.items()}
        pins_path(self._mcp_file).write_text(json.dumps(pins))

    # Blows

    async def strike(self, blow: Blow) -> None:
        """Deal a blow, and return when the victim may go on; it comes back by itself."""
        victims = self._pids_of(blow.victim)
        if blow.deed == "freeze":
            _send_signal(victims, signal.SIGSTOP)
            try:
                await asyncio.sleep(blow.for_s)
            finally:
                _send_signal(victims, signal.SIGCONT)
            return
        if blow.victim == EMPTIED:
            await self.mesh.kill_redis(empty=True)
        else:
            _send_signal(victims, signal.SIGKILL)
        await asyncio.sleep(OUTSIDE_BACK_S)
        for process in self.outside.values():
            process.ensure_running()

    def _pids_of(self, victim: str) -> list[psutil.Process]:
        units: Sequence[SupervisedUnit | OutsideProcess]
        if victim == EVERYTHING:
            # Without the provider, whose log is the witness.
            mesh_units = [unit for unit in self.mesh.units.values() if unit.name != "offline-model"]
            units = [*mesh_units, *self.outside.values()]
        elif victim in self.outside:
            units = [self.outside[victim]]
        else:
            name = REDIS if victim == EMPTIED else victim
            units = [unit for unit in self.mesh.units.values() if unit.name in (name, f"{name}-0")]
        processes = []
        for unit in units:
            with contextlib.suppress(psutil.Error):
                processes += [psutil.Process(unit.pid)] if unit.pid is not None else []
        return processes

    async def mend(self) -> None:
        """Wait until everything is ready. Raises StartFailed."""
        for process in self.outside.values():
            process.ensure_running()
        await self.mesh.wait_until_ready(MEND_TIMEOUT_S)


def _send_signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):  # Some died of an earlier blow, or with their parent.
            process.send_signal(number)


async def follow_schedule(
    world: ChaosWorld, blows: Sequence[Blow], clock: Callable[[], float], progress: Callable[[str], None]
) -> None:
    """Deal all blows at their times; a freeze goes on beside the next blows."""
    async with asyncio.TaskGroup() as group:
        for blow in blows:
            await asyncio.sleep(max(0.0, blow.at_s - clock()))
            progress(str(blow))
            group.create_task(world.strike(blow))


class CpuLoad:
    """`with CpuLoad(20)`: so many processes that compute without end, a step below this one's priority."""

    def __init__(self, processes: int) -> None:
        self._count = processes
        self._spinning: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        spin = "import os; os.nice(1)\nwhile True: pass"
        self._spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._spinning:
            process.kill()
            process.wait(10)


def draws_of(seed: int, *names: object) -> random.Random:
    """Draws of one client, which no other client's change."""
    return random.Random(" ".join(map(str, ("chaos", seed, *names))))
