"""The mesh as processes on this machine: a LocalMesh with a wire of its own between each service and the broker.

In: wishes. Out: a Stage. Needs no Docker; a full disk needs root (a disk image is mounted).
"""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

from bulkhead.bus.port import Bus
from bulkhead.testing.mesh_backend import CannotDo, StageOptions
from bulkhead.testing.relay import BrokerRelay
from bulkhead_infra.local.environment import PROVIDER
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.processes.child import StartFailed
from bulkhead_infra.services import SERVICES
from bulkhead_infra.stages import knob_variables, operator_bus, pack_home, write_policy, write_tenants
from bulkhead_infra.stages.disk import Disk
from bulkhead_infra.stages.relay_faults import RelayFaults

MESH = "mesh"


class Processes(RelayFaults):
    """A mesh of this mode. See the module, and Stage."""

    mode = "processes"

    def __init__(self, options: StageOptions) -> None:
        self._options, self._folder = options, options.folder
        self._disk: Disk | None = None
        self._wires: dict[str, BrokerRelay] = {}
        self._paused: dict[str, int] = {}
        self._said: list[str] = []
        self.url = self.doors_url = self.model_url = ""
        self.logs = self._folder / MESH / "logs"

    async def open(self) -> None:
        if self._options.disk_mib:
            self._disk = Disk(self._folder / "disk.img", self._folder / MESH, self._options.disk_mib)
            await asyncio.to_thread(self._disk.open)
        for name in SERVICES:
            self._wires[name] = BrokerRelay(self._broker)
            await self._wires[name].open()
        extra = {name: {"BULKHEAD_NATS_URL": f"nats://127.0.0.1:{wire.port}"} for name, wire in self._wires.items()}
        self._mesh = LocalMesh(
            self._folder / MESH,
            tenants=write_tenants(self._folder / "tenants.yaml", self._options.packs),
            offline_model_arguments=("--admin", "--token-delay-ms", "0"),
            extra_env=extra,
            on_event=self._said.append,
            environ={"BULKHEAD_POLICY_DIR": str(write_policy(self._folder / "policy")), **_environ(self._options)},
        )
        try:
            await self._mesh.__aenter__()
        except BaseException:
            await self._close_own()
            raise
        self.url, self.doors_url = self._mesh.url, self._mesh.doors_url
        self.model_url = self._mesh.model_url.removesuffix("/v1")

    async def close(self) -> None:
        for service in list(self._paused):
            await self.resume(service)
        await self._mesh.stop()
        await self._close_own()

    async def ready(self, timeout_s: float) -> None:
        try:
            await self._mesh.wait_until_ready(timeout_s)
        except StartFailed as error:
            raise TimeoutError(f"{error}; see {self.logs}") from error

    def new_key(self, tenant: str, person: str, role: str) -> str:
        return self._mesh.add_api_key(tenant, person, role)

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        """See Stage. The operator has no wire that could be cut."""
        return operator_bus(self._mesh.nats_url, self._mesh.nkey_seed("operator"))

    async def collect_logs(self) -> None:
        """They are there; what the supervisor said comes beside them."""
        (self.logs / "supervisor.log").write_text("".join(f"{line}\n" for line in self._said))

    async def kill(self, service: str, *, hold: bool) -> None:
        await self._mesh.kill_replica(service, hold=hold)

    async def restart(self, service: str) -> None:
        await self._mesh.restart_replica(service)

    async def pause(self, service: str) -> None:
        pid = self._mesh.unit_of(service).pid
        assert pid is not None, f"{service} does not run"
        self._paused[service] = pid
        os.kill(pid, signal.SIGSTOP)

    async def resume(self, service: str) -> None:
        pid = self._paused.pop(service, None)
        if pid is not None and pid == self._mesh.unit_of(service).pid:
            os.kill(pid, signal.SIGCONT)

    async def fill_disk(self) -> None:
        if self._disk is None:
            instead = (
                "give it one of its own with `bulkhead_disk_mib = 640` in pytest's ini file (root and loop devices)"
            )
            raise CannotDo(self.mode, "fill the disk", "it shares yours", f"{instead}, or use mesh")
        await asyncio.to_thread(self._disk.fill)

    async def free_disk(self) -> None:
        if self._disk is not None:
            await asyncio.to_thread(self._disk.free)

    async def empty_redis(self) -> None:
        await self._mesh.kill_redis(empty=True)

    def _broker(self) -> tuple[str, int]:
        parts = urlsplit(self._mesh.nats_url)
        assert parts.hostname is not None and parts.port is not None
        return parts.hostname, parts.port

    async def _close_own(self) -> None:
        for wire in self._wires.values():
            await wire.close()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.close)


def _environ(options: StageOptions) -> dict[str, str]:
    """The environment of this process without its model provider, with the knobs and the folders of the packs."""
    own = {name: value for name, value in os.environ.items() if name not in PROVIDER}
    own |= knob_variables(options.knobs, options.knobs)
    # A pack that pytest put on the path of this process alone must be found by the services too.
    if folders := [str(pack_home(name)) for name in options.packs]:
        own["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [own.get("PYTHONPATH"), *folders])))
    return own
