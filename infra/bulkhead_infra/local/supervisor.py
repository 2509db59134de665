"""The whole mesh on one machine: broker, Redis, offline model and every service, each a process with its own key.

In: a data directory and how many of what. Out: a running mesh; `async with LocalMesh(dir) as mesh` ends with nothing
left running. State in the directory survives everything; a second start goes on where the first ended.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from bulkhead.http_server.tcp_ports import PortInUse, free_port, free_port_again
from bulkhead_infra.composition import newest_logic
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.identity.config_folder import CONFIG_VARIABLE
from bulkhead_infra.local import starts
from bulkhead_infra.local.configuration import check_configuration, read_configuration, search_packages
from bulkhead_infra.local.environment import RunFacts, environ_of, names_provider, resolve_paths
from bulkhead_infra.local.external_services import ExternalServices
from bulkhead_infra.local.journal import JournalKeeper
from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit, MeshFile, RunDir
from bulkhead_infra.local.upkeep import purge_daily
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.provision import ProvisionError, provision
from bulkhead_infra.nats.purge import Retention
from bulkhead_infra.nats.server import STOP_TIMEOUT_S, Durability, NatsServer, disk_problem
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.processes.child import KILL_TIMEOUT_S, StartFailed
from bulkhead_infra.processes.redis import RedisServerProcess
from bulkhead_infra.processes.supervised import (
    Probe,
    Spawn,
    SupervisedUnit,
    UnitStatus,
    UnreadyRestartPolicy,
    wait_until_all_ready,
)
from bulkhead_infra.services import SERVICES, drain_groups

START_ORDER = tuple(SERVICES)
DRAIN_ORDER = drain_groups(SERVICES)
"""A service that takes work in ends first, one that answers others last; those of one group end together."""
READY_TIMEOUT_S = 60.0
INFRASTRUCTURE_TIMEOUT_S = 20.0
DRAIN_TIMEOUT_S = 10.0
KILL_MARGIN_S = 2.0
UNHEALTHY_S = 3.0
BROKER, REDIS, MODEL = "nats-server", "redis", "offline-model"
EXPECTED = (
    *(StartFailed, DirectoryInUse, DirectoryUnfit, PortInUse, ProvisionError),
    *(policy.IdentityPolicyError, keys.KeyFileError),
)
"""Errors of a start, each with a hint: a program that starts a mesh shows them without a traceback."""

OnLine = Callable[[str, str], None]
OnEvent = Callable[[str], None]


class LocalMesh:
    """See the module.

    scale: replicas per service (default 1; 0 leaves it out). durability: `power` (fsync before every ack) or
    `process`. offline_model False takes OPENAI_API_KEY or OPENAI_BASE_URL from the environment. extra_env: per
    service. http_port, doors_port: as `starts.http_ports` takes them, 0 a free one. modules: another module for a
    service (tests). on_line gets (process, line), on_event what people should know. retention: when ended tasks are
    purged. config: folder of files of one's own, else BULKHEAD_CONFIG_DIR. external: what it does not run itself.
    ready_timeout_s: after it the start goes on without late processes, if the gateway is ready. Raises EXPECTED.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        scale: Mapping[str, int] | None = None,
        durability: Durability = "power",
        offline_model: bool = True,
        offline_model_arguments: Sequence[str] = (),
        tenants: Path | None = None,
        config: Path | None = None,
        extra_env: Mapping[str, Mapping[str, str]] | None = None,
        shards: Mapping[str, int] | None = None,
        http_port: int = 0,
        doors_port: int | None = 0,
        services: Sequence[str] = START_ORDER,
        modules: Mapping[str, str] | None = None,
        on_line: OnLine | None = None,
        on_event: OnEvent | None = None,
        environ: Mapping[str, str] | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        external: ExternalServices = ExternalServices(),  # noqa: B008 - frozen
    ) -> None:
        unknown = (set(scale or ()) | set(extra_env or ()) | set(shards or ()) | set(services)) - set(START_ORDER)
        if unknown:
            raise StartFailed(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(START_ORDER)}")
        self.durability: Durability = durability
        self.units: dict[str, SupervisedUnit] = {}
        self._directory = Path(directory)
        self._scale = {name: (scale or {}).get(name, 1) for name in START_ORDER if name in services}
        self._offline, self._offline_arguments = offline_model, tuple(offline_model_arguments)
        self._tenants_file = (tenants or policy.TENANTS_FILE).resolve()
        self._shards, self._wanted_ports = dict(shards or {}), (http_port, doors_port)
        self._modules, self._extra = modules or {}, extra_env or {}
        self._on_line, self._on_event = on_line, on_event
        self._environ = resolve_paths(os.environ if environ is None else environ)
        named = config or self._environ.get(CONFIG_VARIABLE)
        self._config_dir = Path(named).resolve() if named else None
        self._ready_timeout_s, self._drain_timeout_s = ready_timeout_s, drain_timeout_s
        self._tenants: list[str] = []
        self._routes: list[dict[str, Any]] = []
        self._retention, self._external, self._store_gib = retention, external, external.store_gib
        external.check_options()
        self._late: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._journal: JournalKeeper | None = None
        self.up = False
        """Whether the start is over."""
        self.ended_at_once = False
        """Whether nothing was drained: see `end_at_once`."""
        self._ending = False

    async def __aenter__(self) -> Self:
        self._run = RunDir(self._directory)
        self._file = MeshFile(self._run, lambda: self.mesh_record, self._report_event)
        try:
            await self._start_everything()
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError) and (problem := self._run.describe_error(error)):
                raise DirectoryUnfit(problem) from error
            if isinstance(error, StartFailed | ProvisionError) and (problem := disk_problem(self._run.path)):
                # It had room when the start began; what was said last may name anything.
                raise type(error)(f"{error}\n{problem}") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What runs where

    @property
    def directory(self) -> Path:
        return self._run.path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._facts.http_ports[starts.FRONT_SERVICE]}"

    @property
    def doors_url(self) -> str:
        """The address that outside agents call."""
        return f"http://127.0.0.1:{self._facts.http_ports[starts.DOORS]}"

    @property
    def nats_url(self) -> str:
        return self._external.nats_url or self._broker.plan.url

    @property
    def monitor_url(self) -> str:
        """The broker's health and counts; "" for one that was given without it."""
        return self._external.nats_monitor_url if self._external.nats_url else self._broker.plan.monitor_url

    @property
    def redis_url(self) -> str:
        """With the password; for tests that look into the ledger."""
        return self._external.redis_url or self._redis.url

    @property
    def model_url(self) -> str:
        """Base URL of the offline model, with `/v1`; "" with a real provider."""
        return self._facts.offline_url

    @property
    def credentials(self) -> dict[str, str]:
        return self._run.read_credentials()

    def add_api_key(self, tenant: str, person: str, role: str) -> str:
        """A further API key; the gateway learns it within a request."""
        return self._run.add_api_key(tenant, person, role)

    def nkey_seed(self, identity: str) -> str:
        """The bus key of any identity (operator, pub_demo, a service in a test)."""
        return keys.nkey_seed(self._run.identity, identity)

    @property
    def mesh_record(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "durability": self.durability,
            "nats_url": self.nats_url,
            "nats_monitor_url": self.monitor_url,
            "http_url": self.url,
            "doors_url": self.doors_url,
            "model_url": self.model_url,
            "routes": self._routes,
            "redis_port": 0 if self._external.redis_url else self._redis.port,
            "own_broker": not self._external.nats_url,
            "replicas": self._external.replicas,
            "store_gib": self._store_gib,
            "shards": self._shards,
            "logic": newest_logic(),
            "scale": self._scale,
            "tenants": self._tenants,
            "tenants_file": str(self._tenants_file),
            "config_dir": str(self._config_dir or ""),
            "identity_dir": str(self._run.identity),
            "processes": {unit.name: unit.process_record() for unit in self.units.values() if unit.pid is not None},
            "given_up": [unit.name for unit in self.units.values() if unit.is_given_up],
        }

    def rows(self) -> list[UnitStatus]:
        """One row per process, in the order in which they were started."""
        return [unit.status_row() for unit in self.units.values()]

    def unit_of(self, service: str, instance: int = 0) -> SupervisedUnit:
        """The unit of one replica. Raises KeyError."""
        return self.units[f"{service}-{instance}"]

    # What tests and people do to it

    async def kill_replica(self, service: str, instance: int = 0, *, hold: bool = False) -> None:
        """kill -9 one replica. It comes back by itself, unless held: then `restart_replica` brings it back."""
        await self.unit_of(service, instance).kill_process(hold=hold)

    async def restart_replica(self, service: str, instance: int = 0) -> None:
        """Drain one replica (when it runs) and start it; returns when it is ready."""
        await self._restart_unit(self.unit_of(service, instance))

    async def start_replica(self, service: str) -> int:
        """One more replica; returns its instance when it is ready."""
        instances = (int(name.rpartition("-")[2]) for name in self.units if _service_of(name) == service)
        instance = 1 + max(instances, default=-1)
        unit = self._add_service(service, instance)
        unit.start()
        await unit.wait_until_ready(self._ready_timeout_s)
        return instance

    async def stop_replica(self, service: str) -> int:
        """One replica fewer, the youngest: drained and forgotten; returns its instance. Raises KeyError."""
        instance = max(int(name.rpartition("-")[2]) for name in self.units if _service_of(name) == service)
        await self.units.pop(f"{service}-{instance}").stop()
        return instance

    async def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when all that is not held is ready, asked now. Raises StartFailed."""
        units = [unit for unit in self.units.values() if unit.state != "held"]
        await asyncio.gather(*(unit.probe_now() for unit in units))
        await wait_until_all_ready(units, timeout_s)

    async def kill_broker(self) -> None:
        """kill -9 the broker; it stays away until `restart_broker`."""
        await self.units[BROKER].kill_process(hold=True)

    async def restart_broker(self) -> None:
        """Start the broker again, on the same port with the same store."""
        await self._restart_unit(self.units[BROKER])

    async def kill_redis(self, *, empty: bool = False) -> None:
        """kill -9 Redis and start it again, with nothing in it when `empty`."""
        await self.units[REDIS].kill_process(hold=True)
        if empty:
            self._redis.forget_data()
        self.units[REDIS].release_hold()
        await self.units[REDIS].wait_until_ready(INFRASTRUCTURE_TIMEOUT_S)

    def end_at_once(self) -> None:
        """kill -9 everything, now; nothing is started again. Whoever waits in `stop` comes back soon after."""
        self.ended_at_once = self._ending = True
        for unit in reversed(self.units.values()):  # The broker last: nobody is left to complain of it.
            unit.end_at_once()

    async def stop(self) -> None:
        """Drain everything in reverse order; nothing is left running, also when this is cut off."""
        self._ending = True
        for unit in self.units.values():
            unit.start_no_more()
        try:
            upkeep = [task for task in (self._late, self._upkeep) if task is not None]
            for task in upkeep:
                task.cancel()
            await asyncio.gather(*upkeep, return_exceptions=True)
            if self._journal is not None:
                await self._journal.stop()
            for group in (*DRAIN_ORDER, (MODEL,), (REDIS,), (BROKER,)):
                leaving = [unit for name, unit in self.units.items() if {name, _service_of(name)} & set(group)]
                await asyncio.gather(*(unit.stop() for unit in leaving))
        finally:
            # Before anything is awaited: who cuts this off may do so again.
            for unit in self.units.values():
                unit.end_at_once()
            try:
                ending = asyncio.gather(*(unit.stop() for unit in self.units.values()), return_exceptions=True)
                await asyncio.wait([ending], timeout=KILL_TIMEOUT_S)
            finally:
                self._file.write_if_changed()
                self._run.close()

    # How it is put together

    async def _start_everything(self) -> None:
        self._shards, before = self._run.last_shards() | self._shards, self._run.last_store_gib()
        # Streams are made smaller by a running broker, which must have room for them as they were.
        self._broker_gib, self._store_gib = max(before, self._store_gib), self._store_gib or before
        if problem := starts.newer_version_note(self._run):
            self._report_event(problem)
        self._config = read_configuration(self._run.path, self._config_dir, self._tenants_file, self._environ)
        rules, self._tenants = self._config.rules, sorted(self._config.tenants.tenants)
        for name in self._run.end_leftovers():
            self._report_event(f"{name} was left running by a run that was killed; it was ended")
        starts.hand_out_keys(self._run, rules, self._scale)
        accounts = render.render_accounts(rules, keys.public_nkeys(self._run.identity, rules), self._shards)
        self._plan_run(accounts)
        own_services = [name for name in self._scale if name not in self._modules]
        check_configuration(self._config, own_services, self._environ_of)
        with search_packages(self._config.environ):
            self._routes = starts.model_routes(own_services, self._environ_of)
        layout = await self._start_infrastructure()
        services = [self._add_service(name, number) for name, count in self._scale.items() for number in range(count)]
        for unit in services:
            unit.start()
        self._late = await starts.wait_until_serving(
            [*self.units.values()], services, self._ready_timeout_s, self._report_event
        )
        self.up = True
        self._upkeep = asyncio.create_task(
            purge_daily(self.nats_url, self.nkey_seed, self._retention, self._report_event, publishers=rules.publishers)
        )
        self._journal = JournalKeeper(
            self.nats_url, self.nkey_seed, layout, self._run.path / "lost", self._report_event
        )
        self._journal.start()

    def _plan_run(self, accounts: str) -> None:
        """Choose ports and addresses; nothing is started yet. Raises PortInUse, StartFailed."""
        path = self._run.path
        http_ports = starts.http_ports(*self._wanted_ports)
        plan = ServerPlan(
            path / "nats",
            free_port_again(self._run.last_broker_port()),
            free_port(),
            self.durability,
            store_gib=self._broker_gib,
        )
        self._broker = NatsServer(plan, accounts, self._environ, self._line_handler(BROKER))
        self._redis = RedisServerProcess(path / "redis", free_port(), self._environ, self._line_handler(REDIS))
        self._model_port = free_port() if self._offline else 0
        self._facts = RunFacts(
            nats_url=self.nats_url,
            redis_url=self.redis_url,
            http_ports=http_ports,
            offline_url=f"http://127.0.0.1:{self._model_port}/v1" if self._offline else "",
            tenants_file=self._config.tenants_file,
            drain_timeout_s=self._drain_timeout_s,
            shards=self._shards,
        )
        if not self._offline and not names_provider(self._environ):
            raise StartFailed("no provider: set the key of one, e.g. OPENAI_API_KEY, or run with the offline model")

    async def _start_infrastructure(self) -> Layout:
        unready_policy = UnreadyRestartPolicy(UNHEALTHY_S, lambda: disk_problem(self._run.path))
        if not self._external.nats_url:
            broker = self._broker
            self._add_unit(
                BROKER,
                broker.spawn,
                broker.find_problem,
                STOP_TIMEOUT_S,
                unready_policy=unready_policy,
                advise=broker.advice,
            )
        if not self._external.redis_url:
            self._add_unit(
                REDIS, self._redis.spawn, self._redis.find_problem, STOP_TIMEOUT_S, advise=self._redis.advice
            )
        if self._offline:
            arguments, line = self._offline_arguments, self._line_handler(MODEL)
            spawn, probe = starts.offline_model_process(
                MODEL, self._run, self._environ, self._model_port, arguments, line
            )
            self._add_unit(MODEL, spawn, probe, STOP_TIMEOUT_S)
        self._file.begins = True
        for unit in self.units.values():
            unit.start()
        if not self._external.nats_url:
            await self.units[BROKER].wait_until_ready(INFRASTRUCTURE_TIMEOUT_S)
        layout = Layout(self._shards, self._external.replicas, self._store_gib).with_outside(self._config.rules)
        report = await provision(self.nats_url, self.nkey_seed(policy.PROVISIONER), layout)
        for change in (*report.changed, *report.kept.values()):
            self._report_event(f"provisioned: {change}")
        return layout

    def _environ_of(self, service: str, instance: int = 0) -> Mapping[str, str]:
        extra = self._extra.get(service, {})
        return environ_of(service, instance, self._run, self._facts, self._config.environ, extra)

    def _add_service(self, service: str, instance: int) -> SupervisedUnit:
        name, module = f"{service}-{instance}", self._modules.get(service, f"bulkhead_services.{service}.app")
        environ = partial(self._environ_of, service, instance)
        spawn, probe = starts.service_process(name, module, self._run, environ, self._line_handler(name))
        return self._add_unit(name, spawn, probe, self._drain_timeout_s + KILL_MARGIN_S)

    def _add_unit(self, name: str, spawn: Spawn, probe: Probe, stop_timeout_s: float, **more: Any) -> SupervisedUnit:
        unit = SupervisedUnit(
            name,
            spawn,
            probe,
            self._report_event,
            stop_timeout_s=stop_timeout_s,
            on_change=self._on_unit_change,
            **more,
        )
        if self._ending:
            unit.start_no_more()
        self.units[name] = unit
        return unit

    async def _restart_unit(self, unit: SupervisedUnit) -> None:
        await unit.restart()
        await unit.wait_until_ready(self._ready_timeout_s)

    def _on_unit_change(self) -> None:
        if self._journal is not None and BROKER in self.units:
            self._journal.note_broker_state(self.units[BROKER].state)
        self._file.write_if_changed()

    def _report_event(self, text: str) -> None:
        if self._on_event is not None:
            self._on_event(text)

    def _line_handler(self, name: str) -> Callable[[str], None] | None:
        on_line = self._on_line
        if on_line is None:
            return None
        # A broker that is being stopped warns of streams that it closes itself; its log has that.
        return lambda line: None if name == BROKER and self.units[BROKER].stopping else on_line(name, line)


def _service_of(name: str) -> str:
    return name.rpartition("-")[0]
