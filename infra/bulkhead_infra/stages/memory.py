"""The mesh in one process: every service's real code over the in-memory bus; the offline model and the gateway's HTTP
on loopback. It starts in milliseconds, and each test has one of its own.

In: wishes. Out: a Stage. It has no processes, so that `kill` forgets what a replica held in memory and nothing harder;
it has neither Redis nor a disk of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import uvicorn

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import Bus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead.testing.mesh import Build, MemoryMesh
from bulkhead.testing.mesh_backend import CannotDo, StageOptions
from bulkhead_infra.composition import composition_root, newest_logic
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.offline_model.http.server import build_app
from bulkhead_infra.offline_model.settings import Settings as ModelSettings
from bulkhead_infra.services import SERVICES, Setting, drain_groups
from bulkhead_infra.stages import KeyFile, write_policy, write_tenants
from bulkhead_infra.stages.memory_faults import WiredBroker, WiredService, Wires
from bulkhead_infra.stages.tool_trial import ToolTrial

ACK_WAIT_MS = 1_000
KEYS_FILE = "api_keys.json"
READY_S = 20.0
POLL_S = 0.002
PLACE = "use mesh_processes or mesh"


class Memory:
    """A mesh of this mode. See the module, and Stage."""

    mode = "memory"
    tool_trial = ToolTrial

    def __init__(self, options: StageOptions) -> None:
        self._options, self._folder = options, options.folder
        self.logs = self._folder / "logs"
        self.url = self.doors_url = self.model_url = ""
        self._started = 0
        self._wires = Wires()
        self._held: set[str] = set()

    async def open(self) -> None:
        self.logs.mkdir(parents=True)
        self._log = _LogFile(self.logs / "mesh.log")
        self._model = _OfflineModel()
        self.model_url = await self._model.open()
        port, doors_port = free_port(), free_port()
        self.url, self.doors_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{doors_port}"
        self._keys = KeyFile(self._folder / KEYS_FILE)
        self._mesh = _WiredMesh(self._builds(port, doors_port), self._wires, ack_wait_ms=ACK_WAIT_MS)
        try:
            for name in SERVICES:
                await self._start(name)
            await self.ready(READY_S)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        for name in self._held:
            self._wires.resume(name)
        for group in drain_groups(SERVICES):
            for name in group:
                await self._end(name)
        await self._model.close()
        self._log.close()

    async def ready(self, timeout_s: float) -> None:
        """See Stage. A service that ended by itself says why."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            missing = []
            for (name, _), running in self._mesh.running.items():
                if running.task.done():
                    running.task.result()
                if not running.service.is_ready():
                    missing.append(name)
            if not missing:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"not ready within {timeout_s:g} s: {', '.join(missing)}; see {self.logs}")
            await asyncio.sleep(POLL_S)

    def new_key(self, tenant: str, person: str, role: str) -> str:
        return self._keys.add(tenant, person, role)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """See Stage. The operator's wire is never cut."""
        yield self._mesh.operator

    async def collect_logs(self) -> None:
        """They are there."""

    async def kill(self, service: str, *, hold: bool) -> None:
        """The replica's memory is gone. Half-written data cannot be seen: see the module."""
        await self._end(service)
        if not hold:
            await self._start(service)

    async def restart(self, service: str) -> None:
        await self._end(service)
        await self._start(service)
        await self.ready(READY_S)

    async def pause(self, service: str) -> None:
        """It hears nothing, and what it says is not heard before it goes on."""
        self._held.add(service)
        self._wires.pause(service)

    async def resume(self, service: str) -> None:
        self._held.discard(service)
        self._wires.resume(service)

    async def disconnect(self, service: str) -> None:
        self._wires.cut(service)

    async def reconnect(self, service: str) -> None:
        self._wires.mend(service)

    async def slow_broker(self, delay_ms: float) -> None:
        self._wires.delay_s = delay_ms / 1000

    async def fill_disk(self) -> None:
        raise CannotDo(self.mode, "fill the disk", "nothing of it lies on one", PLACE)

    async def free_disk(self) -> None:
        """Nothing to mend."""

    async def empty_redis(self) -> None:
        """It cannot: restarting budget, whose ledger lies in memory here, is what comes next to it."""
        instead = f"{PLACE}, or faults.kill('budget'), after which the ledger is rebuilt too"
        raise CannotDo(self.mode, "empty Redis", "it has none, budget holds its ledger in memory", instead)

    async def _start(self, name: str) -> None:
        self._started += 1
        await self._mesh.start(name, f"{self._started}")

    async def _end(self, name: str) -> None:
        for service, instance in [key for key in self._mesh.running if key[0] == name]:
            task = self._mesh.running[service, instance].task
            self._mesh.kill_replica(service, instance)
            await asyncio.gather(task, return_exceptions=True)

    def _builds(self, port: int, doors_port: int) -> dict[str, Build]:
        tenants_file = write_tenants(self._folder / "tenants.yaml", self._options.packs)
        url = f"{self.model_url}/v1"
        given: dict[Setting, dict[str, Any]] = {
            Setting.HTTP: {"drain_timeout_s": 1.0},
            Setting.CALLERS: {"api_keys_file": self._folder / KEYS_FILE},
            Setting.TENANTS: {"tenants_file": tenants_file},
            Setting.POLICY: {"policy_dir": write_policy(self._folder / "policy")},
            Setting.REDIS: {"redis_url": "memory://"},
            Setting.GATEWAY: {"gateway_url": f"http://127.0.0.1:{port}"},
            Setting.PROVIDER: {"openai_base_url": url, "openai_api_key": "offline", "model": MODEL_NAME},
            Setting.LOGIC: {"logic": newest_logic()},
        }
        ports = {"gateway": {"http_port": port}, "doors": {"http_port": doors_port}}
        return {
            name: self._build(name, [ports.get(name, {}), *(given[setting] for setting in row.environment)])
            for name, row in SERVICES.items()
        }

    def _build(self, name: str, given: Sequence[Mapping[str, Any]]) -> Build:
        found = composition_root(name)
        own = {field: value for part in given for field, value in part.items()}
        wished = {knob: value for knob, value in self._options.knobs.items() if knob in found.settings.model_fields}
        settings = found.settings(**{"data_dir": self._folder, "trace": False, **own, **wished})
        return lambda context: found.build(context, settings)


class _WiredMesh(MemoryMesh):
    """A MemoryMesh whose services each have a wire to the broker."""

    def __init__(self, builds: Mapping[str, Build], wires: Wires, *, ack_wait_ms: int) -> None:
        super().__init__(builds, broker=WiredBroker, ack_wait_ms=ack_wait_ms)
        assert isinstance(self.broker, WiredBroker)
        self.broker.wires = wires
        self.operator = MemoryBus(self.broker, "operator")

    def _new_bus(self, name: str) -> MemoryBus:
        assert isinstance(self.broker, WiredBroker)
        return MemoryBus(cast(MemoryBroker, WiredService(self.broker, name)), name)


class _OfflineModel:
    """The offline model on a port of this process."""

    async def open(self) -> str:
        """Its address, without `/v1`."""
        app = build_app(ModelSettings(token_delay_ms=0, admin=True))
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off"}
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, timeout_graceful_shutdown=1, **quiet))
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(POLL_S)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        await asyncio.gather(self._task, return_exceptions=True)


class _LogFile:
    """All lines of the services go to one file; pytest's own capturing sees them too."""

    def __init__(self, path: Path) -> None:
        self._handler = logging.FileHandler(path)
        self._handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s %(values)s", defaults={"values": {}})
        )
        self._logger = logging.getLogger("bulkhead")
        self._level = self._logger.level
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)

    def close(self) -> None:
        """Restore the state before."""
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
        self._handler.close()
