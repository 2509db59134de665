"""The mesh in containers, of the images that run in production: a container, a volume of keys and a wire to the broker
for each service, one network, TLS. docker-compose.yml has the networks of production; here the wires are what is cut.

In: wishes; BULKHEAD_IMAGES and BULKHEAD_TAG say whose images. Out: a Stage. Needs testcontainers and Linux's own
Docker: the wires are relays in the test's process, which the containers reach at their network's gateway.
"""

import asyncio
import io
import json
import re
import secrets
import tarfile
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from bulkhead.bus.port import Bus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead.testing.mesh_backend import CannotDo, StageOptions
from bulkhead.testing.relay import BrokerRelay
from bulkhead_infra.composition import ContainerPaths, container_variables, settings_of
from bulkhead_infra.docker.image_contents import KEY_OWNERS
from bulkhead_infra.docker.images import tag_of
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.services import SERVICES, Setting
from bulkhead_infra.stages import KeyFile, knob_variables, operator_bus, pack_home, write_policy, write_tenants
from bulkhead_infra.stages.relay_faults import RelayFaults
from bulkhead_infra.stages.testcontainers_stack import USER, ContainerError, ContainerNetwork, StartedContainer

BROKER, REDIS, MODEL, KEEPER = "nats", "redis", "offline_model", "keeper"
IDENTITY, TEST, PACKS, DATA = "/bulkhead/identity", "/bulkhead/test", "/bulkhead/packs", "/bulkhead/data"
PATHS = ContainerPaths(IDENTITY, f"{TEST}/api_keys.json", f"{TEST}/tenants.yaml", f"{TEST}/policy")
MODEL_COMMAND = ("--host", "0.0.0.0", "--port", "8000", "--admin", "--token-delay-ms", "0")  # noqa: S104
DISK_MIB = 192
READY_S = 90.0
POLL_S = 0.5
ONE_SHOT_S = 60
RETRIES = 5
"""As under a supervisor: a service whose broker does not answer at the start ends, and comes again."""
PROBES = {BROKER: "http://127.0.0.1:8222/healthz", MODEL: "http://127.0.0.1:8000/livez"}
HERE = re.compile(r"(?<=://)(?:127\.0\.0\.1|localhost):(\d+)")
"""In settings: a server of the test's own."""
FILL = """
for size in (1 << 20, 4096):
    with open(f"/bulkhead/data/ballast-{size}", "wb", buffering=0) as file:
        try:
            while file.write(bytes(size)) == size: pass
        except OSError: pass
"""
FREE = "import pathlib\nfor path in pathlib.Path('/bulkhead/data').glob('ballast-*'): path.unlink()"
STARTED = b" started\n"
KEEP = "import signal; signal.pause()"


class Containers(RelayFaults):
    """A mesh of this mode. See the module, and Stage."""

    mode = "containers"

    def __init__(self, options: StageOptions) -> None:
        self._options, self._folder = options, options.folder
        self.logs = self._folder / "logs"
        self.url = self.model_url = ""
        self._network = ContainerNetwork(f"bulkhead-test-{secrets.token_hex(3)}")
        self._containers: dict[str, StartedContainer] = {}
        self._wires: dict[str, BrokerRelay] = {}
        self._relays: list[BrokerRelay] = []

    async def open(self) -> None:
        self.logs.mkdir(parents=True)
        (self._folder / "test").mkdir()
        self._keys = KeyFile(self._folder / "test" / "api_keys.json")
        write_tenants(self._folder / "test" / "tenants.yaml", self._options.packs)
        write_policy(self._folder / "test" / "policy")
        (self._folder / "test").chmod(0o755)
        try:
            await self._network.open()
            await self._open()
        except BaseException:
            with suppress(ContainerError):
                await self.collect_logs()
            await self.close()
            raise

    async def _open(self) -> None:
        gateway = self._network.gateway
        await self._make_keys()
        broker_port, model_port = free_port(), free_port()
        http_ports = {name: free_port() for name, row in SERVICES.items() if row.port}
        self._broker_port = broker_port
        self.url, self.doors_url, self.model_url = (
            f"http://127.0.0.1:{port}" for port in (http_ports["gateway"], http_ports["doors"], model_port)
        )
        await self._start(KEEPER, image="provisioner", entrypoint=["python3", "-c", KEEP], volumes={"data_nats": DATA})
        in_memory = {DATA: f"size=64m,uid={USER},mode=0700"}
        await asyncio.gather(
            self._start(BROKER, volumes={"keys_nats": f"{IDENTITY}:ro", "data_nats": DATA}, ports={4222: broker_port}),
            self._start(REDIS, volumes={"keys_redis": f"{IDENTITY}:ro"}, tmpfs=in_memory),
            self._start(MODEL, command=MODEL_COMMAND, ports={8000: model_port}),
        )
        await self._until_ready([BROKER, REDIS, MODEL], READY_S)
        keys, settings = {"keys_provisioner": f"{IDENTITY}:ro"}, self._bus_settings(4222)
        await self._network.run("provisioner", ["streams"], ONE_SHOT_S, volumes=keys, environment=settings)
        for name in SERVICES:
            self._wires[name] = await self._open_relay(gateway, broker_port)
        knobs = await self._reachable(self._options.knobs, gateway)
        await asyncio.gather(*(self._start_service(name, knobs, gateway, http_ports.get(name, 0)) for name in SERVICES))
        await self.ready(READY_S)

    async def _make_keys(self) -> None:
        """One volume for each who has secrets; the operator's are read here, for the test is the operator."""
        volumes = {f"keys_{name}": f"/bulkhead/keys/{name}" for name in ("all", *KEY_OWNERS)}
        done = await self._network.run("provisioner", ["keys"], ONE_SHOT_S, volumes=volumes, keep=True, network=False)
        files = _files(await done.archive("/bulkhead/keys/operator"))
        self._operator_seed = files["operator.nkey"].strip()
        self._ca_file = self._folder / "ca.pem"
        self._ca_file.write_text(files["ca.pem"])

    async def _start_service(self, name: str, knobs: Mapping[str, Any], gateway: str, http_port: int) -> None:
        row = SERVICES[name]
        environment = self._bus_settings(self._wires[name].port)
        for setting in row.environment:
            environment |= container_variables(setting, row.port, PATHS)
            if setting is Setting.PROVIDER:
                environment |= {"OPENAI_BASE_URL": "http://offline_model:8000/v1", "BULKHEAD_MODEL": MODEL_NAME}
        environment |= knob_variables(knobs, settings_of(name).model_fields)
        volumes = {f"keys_{name}": f"{IDENTITY}:ro"}
        if ReachablePlace.DOCUMENTS in policy.load_policy().services[name].reaches:
            volumes["documents"] = DATA
        if {Setting.CALLERS, Setting.TENANTS, Setting.POLICY} & set(row.environment):
            volumes[str(self._folder / "test")] = f"{TEST}:ro"
        if "packs" in settings_of(name).model_fields:
            for pack in self._options.packs:
                top = pack.partition(".")[0]
                volumes[str(pack_home(pack) / top)] = f"{PACKS}/{top}:ro"
        # The broker's name, as its certificate has it, leads to this service's own wire.
        hosts, ports = {"nats": gateway}, {row.port: http_port} if row.port else {}
        await self._start(name, environment=environment, volumes=volumes, hosts=hosts, ports=ports, retries=RETRIES)

    async def close(self) -> None:
        for wire in (*self._wires.values(), *self._relays):
            await wire.close()
        await self._network.close()

    async def ready(self, timeout_s: float) -> None:
        up = [name for name, container in self._containers.items() if not container.held and name != KEEPER]
        await self._until_ready(up, timeout_s)

    def new_key(self, tenant: str, person: str, role: str) -> str:
        return self._keys.add(tenant, person, role)

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        return operator_bus(f"tls://127.0.0.1:{self._broker_port}", self._operator_seed, self._ca_file)

    async def collect_logs(self) -> None:
        for name, container in self._containers.items():
            (self.logs / f"{name}.log").write_bytes(await container.logs())

    async def kill(self, service: str, *, hold: bool) -> None:
        await self._containers[service].kill(hold=hold)

    async def restart(self, service: str) -> None:
        await self._containers[service].restart()
        await self._until_ready([service], READY_S)

    async def pause(self, service: str) -> None:
        await self._containers[service].pause()

    async def resume(self, service: str) -> None:
        await self._containers[service].resume()

    async def fill_disk(self) -> None:
        """The broker's volume has no byte left."""
        await self._containers[KEEPER].python(FILL)

    async def free_disk(self) -> None:
        """The broker does not recover from a full disk by itself: it is restarted, as an operator would."""
        await self._containers[KEEPER].python(FREE)
        await self._containers[BROKER].restart()
        await self._until_ready([BROKER], READY_S)

    async def empty_redis(self) -> None:
        """Its content lies in memory and dies with it."""
        await self._containers[REDIS].kill(hold=False)
        await self._until_ready([REDIS], READY_S)

    async def _start(
        self, name: str, *, image: str = "", volumes: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        # The store is bounded, so that it can be full; as long as the keeper holds it, it outlives the broker.
        sized = {"data_nats": self._options.disk_mib or DISK_MIB}
        self._containers[name] = await self._network.start(name, tag_of(image or name), volumes or {}, sized, **more)

    async def _until_ready(self, names: list[str], timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        waiting = names
        while waiting:
            said = await asyncio.gather(*(self._readiness_problem(name) for name in waiting))
            waiting = [name for name, why in zip(waiting, said, strict=True) if why]
            for name in waiting:
                if last := await self._containers[name].ended():
                    raise ContainerError(f"{name} has ended by itself; it said:\n{last}")
            if waiting and asyncio.get_running_loop().time() > deadline:
                await self.collect_logs()
                late = f"{', '.join(waiting)} ({next(filter(None, said))}); see {self.logs}"
                last = f"{waiting[0]} said:\n{await self._containers[waiting[0]].last_words()}"
                raise TimeoutError(f"not ready within {timeout_s:g} s: {late}; {last}")
            if waiting:
                await asyncio.sleep(POLL_S)

    async def _readiness_problem(self, name: str) -> str:
        # To ask is a process in the container: not before it can say yes.
        if name in SERVICES and STARTED not in await self._containers[name].logs():
            return "it has not started"
        words = ["bulkhead.runtime.process.container_probe", *filter(None, [PROBES.get(name)])]
        if name == REDIS:
            words = ["bulkhead_infra.docker.probes", name]
        return await self._containers[name].fails("python3", "-S", "-P", "-m", *words)

    async def _open_relay(self, host: str, port: int) -> BrokerRelay:
        """From the containers to a port of this machine."""
        relay = BrokerRelay(lambda: ("127.0.0.1", port), host)
        try:
            await relay.open()
        except OSError as error:
            reason = f"nothing can listen at their gateway {host}: {error.strerror}"
            instead = "this needs Linux's own Docker on the machine of the tests; use mesh_processes"
            raise CannotDo(self.mode, "reach the test", reason, instead) from error
        return relay

    async def _reachable(self, knobs: Mapping[str, Any], gateway: str) -> dict[str, Any]:
        """Settings in which servers of the test have the addresses at which containers find them."""
        text = json.dumps(knobs)
        for port in sorted(set(HERE.findall(text))):
            relay = await self._open_relay(gateway, int(port))
            self._relays.append(relay)
            text = re.sub(rf"(?<=://)(?:127\.0\.0\.1|localhost):{port}\b", f"{gateway}:{relay.port}", text)
        moved: dict[str, Any] = json.loads(text)
        return moved

    def _bus_settings(self, port: int) -> dict[str, str]:
        return {
            "BULKHEAD_NATS_URL": f"tls://nats:{port}",
            "BULKHEAD_NATS_CA_FILE": f"{IDENTITY}/ca.pem",
            "BULKHEAD_LOG_LEVEL": "info",
        }


def _files(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        texts = {Path(member.name).name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read().decode() for name, file in texts.items() if file is not None}
