"""Brokers for the contract tests: one nats-server per session, wiped for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.bus.server import NatsServer
from tests.contract.bus.worlds import JetStreamWorld, MemoryWorld, World, streams


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real broker with `sync_interval: always`, in one plain account."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def jetstream_world(nats_server: NatsServer) -> AsyncIterator[JetStreamWorld]:
    """The real broker, freshly provisioned."""
    world = JetStreamWorld(nats_server)
    await world.provision(streams())
    yield world
    await world.close()


@pytest.fixture
async def own_world(tmp_path: Path) -> AsyncIterator[JetStreamWorld]:
    """A broker that the test may kill."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    world = JetStreamWorld(server)
    await world.provision(streams())
    yield world
    await world.close()
    server.stop()


@pytest.fixture(params=["memory", "jetstream"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Each of the two brokers in turn."""
    if request.param == "memory":
        made: MemoryWorld | JetStreamWorld = MemoryWorld()
    else:
        made = JetStreamWorld(request.getfixturevalue("nats_server"))
        await made.provision(streams())
    yield made
    await made.close()
