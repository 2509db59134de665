"""The whole mesh in one process: real service code over the in-memory bus, without network or key files.

async with MemoryMesh({"planner": build_planner, ...}) as mesh:
    publisher = mesh.context("gateway").publisher
    await publisher.send("planner", TaskSubmitted(...), tenant="demo", task="t1", grant=...)
    ended = await mesh.wait_for_fact("mesh.planner.gateway.*.demo.t1.*", TaskEnded)
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.clock import Clock
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import StoredMessage
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.runtime.context import Context, ServiceIdentity, make_context, unix_ms
from bulkhead.runtime.process.service import Service
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.task import Progressed, TaskEnded, list_facts
from bulkhead_contracts.types import Body

B = TypeVar("B", bound=Body)
Build = Callable[[Context], Any]


@dataclass(slots=True)
class RunningReplica:
    """One replica of one service."""

    service: Service
    bus: MemoryBus
    task: asyncio.Task[None]


class MemoryMesh:
    """`builds`: for each service to run, a function from its context to its component. slots: of each replica."""

    def __init__(
        self,
        builds: Mapping[str, Build],
        *,
        clock: Clock | None = None,
        shards: int = 1,
        slots: int = 64,
        ack_wait_ms: int = 5_000,
        broker: type[MemoryBroker] = MemoryBroker,
    ) -> None:
        self._builds, self._slots = dict(builds), slots
        self.broker = broker.for_mesh(clock=clock, shards=shards, ack_wait_ms=ack_wait_ms)
        self._now = clock.now_ms if clock is not None else unix_ms
        seeds = {name: new_signing_seed() for name in catalog.SERVICES}
        public = {name: public_of(seed) for name, seed in seeds.items()}
        self._identities = {name: ServiceIdentity(f"seed-of-{name}", seed, public) for name, seed in seeds.items()}
        self.running: dict[tuple[str, str], RunningReplica] = {}
        self._contexts: dict[str, Context] = {}

    async def __aenter__(self) -> Self:
        for name in self._builds:
            await self.start(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, instance in list(self.running):
            self.kill_replica(name, instance)
        await asyncio.sleep(0)

    def context(self, service: str) -> Context:
        """A context to speak as `service` with, beside its replicas."""
        if service not in self._contexts:
            self._contexts[service] = self._new_context(service, "outside", self._new_bus(service))
        return self._contexts[service]

    async def start(self, name: str, instance: str = "0") -> RunningReplica:
        """Start a replica."""
        bus = self._new_bus(name)
        context = self._new_context(name, instance, bus)
        service = Service(context, self._builds[name](context), slots=self._slots)
        task = asyncio.create_task(service.run(), name=f"{name}-{instance}")
        running = RunningReplica(service, bus, task)
        self.running[(name, instance)] = running
        await asyncio.sleep(0)
        return running

    def kill_replica(self, name: str, instance: str = "0") -> None:
        """Kill a replica as by kill -9: nothing is handed back."""
        running = self.running.pop((name, instance))
        running.bus.cut_off()
        running.task.cancel()

    async def wait_for_fact(self, subject: str, kind: type[B], timeout_s: float = 20.0) -> B:
        """The first fact of this type on a subject filter, alone or told with others. Raises TimeoutError."""
        types = {kind.ce_type(), Progressed.ce_type(), TaskEnded.ce_type()}
        stream = subjects.inbox_stream(subject.split(".")[2])
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            for stored in await self.messages(stream, subject):
                for fact in (
                    list_facts(catalog.decode_body(stored.ce_type, stored.body)) if stored.ce_type in types else ()
                ):
                    if isinstance(fact, kind):
                        return fact
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"no {kind.__name__} on {subject} after {timeout_s} s")
            await asyncio.sleep(0.005)

    async def messages(self, stream: str, subject: str = ">") -> list[StoredMessage]:
        """Everything stored on a subject filter."""
        return [stored async for stored in stored_messages(self.context("gateway").bus, stream, subject)]

    def _new_bus(self, name: str) -> MemoryBus:
        """The bus of one more replica."""
        return MemoryBus(self.broker, name)

    def _new_context(self, name: str, instance: str, bus: MemoryBus) -> Context:
        return make_context(name, instance, bus, self._identities[name], clock=self._now)
