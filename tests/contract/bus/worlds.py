"""The two worlds in which the bus conformance suite runs: a real broker, and the one in memory.

Both are provisioned from the same stream configurations, the way the provisioner would.
"""

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Protocol

import nats
from nats.aio.client import Client

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.memory.broker import mesh_streams
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.streams import DurableConfig, StreamConfig
from bulkhead.bus.port import Bus
from tests.contract.bus.server import NatsServer

MAX_MESSAGE_BYTES = 5 * 1024 * 1024
CREATE_ATTEMPTS = 20
INBOX = "INBOX_WORKER"
WANTED = ("TIMERS_WORKER", INBOX, "INBOX_PLANNER", "BLOBS", "JOURNAL", "KV_CONTROL", "RECORDS_RAG")
FULL = StreamConfig("FULL", ("full.>",), max_messages=2)
SMALL = StreamConfig("SMALL", ("small.>",), max_messages=1, max_message_bytes=200)


def streams() -> list[StreamConfig]:
    """What the suite needs of the catalog's streams, one that is soon full, and one that takes short words only."""
    found = {config.name: config for config in mesh_streams()}
    journal = found["JOURNAL"]
    kept = tuple(source for source in journal.sources if source.stream in WANTED)
    found["JOURNAL"] = StreamConfig("JOURNAL", sources=kept)
    return [*(found[name] for name in WANTED), FULL, SMALL]


class World(Protocol):
    """What a test needs beside the bus itself."""

    name: str

    async def bus(self, service: str = "worker") -> Bus:
        """A client of its own."""
        ...

    async def durable(self, name: str, ack_wait_ms: int = 5_000) -> None:
        """Make a durable on INBOX_WORKER."""
        ...

    async def kill(self, bus: Bus) -> None:
        """End a client as a kill does: it says nothing more."""
        ...

    async def outstanding(self, name: str) -> int:
        """How many messages of the durable are handed out and not acked."""
        ...


class MemoryWorld:
    """The in-memory broker on the machine's clock."""

    name = "memory"

    def __init__(self) -> None:
        self.broker = MemoryBroker(streams(), max_message_bytes=MAX_MESSAGE_BYTES)
        self._buses: list[MemoryBus] = []

    async def bus(self, service: str = "worker") -> Bus:
        self._buses.append(MemoryBus(self.broker, service))
        return self._buses[-1]

    async def durable(self, name: str, ack_wait_ms: int = 5_000) -> None:
        self.broker.add_durable(DurableConfig(INBOX, name, ack_wait_ms=ack_wait_ms))

    async def kill(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)
        bus.cut_off()

    async def outstanding(self, name: str) -> int:
        return len(self.broker.get_durable(INBOX, name).pending)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()


class JetStreamWorld:
    """A nats-server, wiped and provisioned for each test."""

    name = "jetstream"

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self._buses: list[JetStreamBus] = []
        self._admin: Client | None = None

    async def provision(self, configs: Iterable[StreamConfig]) -> None:
        """Delete every stream and make these."""
        self._admin = await nats.connect(self.server.url, error_cb=_quiet)
        for name in (await self.api("STREAM.NAMES")).get("streams") or ():
            await self.api(f"STREAM.DELETE.{name}")
        for config in configs:
            await self._create(config)

    async def _create(self, config: StreamConfig) -> None:
        """Under load the broker may still be removing the folder of the stream that bore the name before."""
        for left in range(CREATE_ATTEMPTS, 0, -1):
            try:
                await self.api(f"STREAM.CREATE.{config.name}", as_jetstream(config))
                return
            except AssertionError as error:
                if left == 1 or "error creating store" not in str(error):
                    raise
                await asyncio.sleep(0.05)

    async def api(self, what: str, body: object = None) -> dict[str, Any]:
        """One call of the JetStream API."""
        assert self._admin is not None
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads((await self._admin.request(f"$JS.API.{what}", data, timeout=5)).data)
        assert "error" not in answer, f"{what}: {answer['error']}"
        return answer

    async def bus(self, service: str = "worker") -> Bus:
        self._buses.append(await JetStreamBus.connect(self.server.url, service=service, js_prefix="$JS.API"))
        return self._buses[-1]

    async def durable(self, name: str, ack_wait_ms: int = 5_000) -> None:
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": ack_wait_ms * 1_000_000,
            "max_deliver": -1,
        }
        await self.api(f"CONSUMER.CREATE.{INBOX}.{name}", {"stream_name": INBOX, "config": config})

    async def kill(self, bus: Bus) -> None:
        assert isinstance(bus, JetStreamBus)
        client = bus._connection.nc
        client.options["allow_reconnect"] = False
        client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        await asyncio.wait_for(bus.wait_closed(), 5)

    async def outstanding(self, name: str) -> int:
        return int((await self.api(f"CONSUMER.INFO.{INBOX}.{name}"))["num_ack_pending"])

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()
        if self._admin is not None:
            await self._admin.close()


async def _quiet(error: Exception) -> None:
    """The provisioner's own connection may break with the broker that a test stops."""


def as_jetstream(config: StreamConfig) -> dict[str, Any]:
    """A stream configuration in the broker's terms."""
    found: dict[str, Any] = {
        "name": config.name,
        "subjects": list(config.subjects),
        "discard": "new" if config.discard_new else "old",
        "allow_direct": True,
        "storage": "file",
        "num_replicas": 1,
        "duplicate_window": 120 * 10**9,
        "sources": [],
    }
    if config.max_messages:
        found["max_msgs"] = config.max_messages
    if config.max_message_bytes:
        found["max_msg_size"] = config.max_message_bytes
    if config.max_messages_per_subject:
        found["max_msgs_per_subject"] = config.max_messages_per_subject
        found["discard_new_per_subject"] = config.discard_new
    if config.schedules:
        found["allow_msg_schedules"] = True
    prefix, live = config.republish
    if live:
        found["republish"] = {"src": f"{prefix}>", "dest": f"{live}>"}
    for source in config.sources:
        one: dict[str, Any] = {"name": source.stream}
        if source.target:
            one["subject_transforms"] = [{"src": source.pattern, "dest": source.target}]
        found["sources"].append(one)
    return found
