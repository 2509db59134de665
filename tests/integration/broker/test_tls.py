"""A real broker with a certificate of the mesh's own CA: who trusts the CA is in, at once; who does not is told."""

import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable
from bulkhead_infra.identity import keys, tls
from bulkhead_infra.nats.provision import ProvisionError, provision
from bulkhead_infra.nats.server import NatsServer
from tests.integration.broker.bare_broker import bare_broker

AT_ONCE_S = 10.0
SLOW_S = 0.5


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A broker that speaks TLS alone."""
    tls.ensure_certificates(tmp_path / "tls", ("localhost", "127.0.0.1"))
    tls.ensure_certificates(tmp_path / "other", ("localhost", "127.0.0.1"))
    files = tmp_path / "tls" / tls.BROKER_FILE, tmp_path / "tls" / tls.BROKER_KEY_FILE
    async with bare_broker(tmp_path, tls=files) as made:
        yield made


def _seed(tmp_path: Path, identity: str) -> str:
    return keys.nkey_seed(tmp_path / "identity", identity)


async def test_who_trusts_the_ca_works_as_ever(server: NatsServer, tmp_path: Path) -> None:
    assert server.plan.url.startswith("tls://")
    ca = tmp_path / "tls" / tls.CA_FILE
    report = await provision(server.plan.url, _seed(tmp_path, "provisioner"), ca_file=ca)
    assert report.made
    bus = await JetStreamBus.connect(server.plan.url, service="worker", nkey_seed=_seed(tmp_path, "worker"), ca_file=ca)
    assert await bus.is_ready()
    await bus.close()


@pytest.mark.parametrize(
    "ca, says",
    [("other/ca.pem", "has no certificate of the CA that this service trusts"), ("missing.pem", "cannot be used")],
)
async def test_who_does_not_is_told_at_once(server: NatsServer, tmp_path: Path, ca: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(BusUnavailable, match=says):
        await JetStreamBus.connect(
            server.plan.url, service="worker", nkey_seed=_seed(tmp_path, "worker"), ca_file=tmp_path / ca
        )
    assert time.monotonic() - began < AT_ONCE_S


async def test_a_slow_client_hears_nothing_in_the_clear_and_still_gets_in(server: NatsServer, tmp_path: Path) -> None:
    """On a busy machine hello takes longer than the 50 ms after which `auto` begins to speak."""
    trusting = ssl.create_default_context(cafile=str(tmp_path / "tls" / tls.CA_FILE))
    with socket.create_connection(("127.0.0.1", server.plan.port)) as connection:
        connection.settimeout(SLOW_S)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(AT_ONCE_S)
        with trusting.wrap_socket(connection, server_hostname="localhost") as safe:
            assert safe.recv(4) == b"INFO"


async def test_the_provisioner_is_told_too(server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="of a CA that is not trusted here"):
        await provision(server.plan.url, _seed(tmp_path, "provisioner"), ca_file=tmp_path / "other" / tls.CA_FILE)
