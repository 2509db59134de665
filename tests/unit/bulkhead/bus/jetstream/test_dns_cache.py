"""A broker's name that nobody knows, or that no name server answers for: said, bounded, and nothing goes on unheard."""

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

import pytest

from bulkhead.bus.jetstream import connection as jetstream_connection
from bulkhead.bus.jetstream.connection import Connection
from bulkhead.bus.jetstream.dns_cache import MAX_LOOKUPS, HostLookup, HostUnknown, NamedTransport
from bulkhead.bus.port import BusUnavailable
from tests.eventually import until

NAME, PORT = "nats-typo", 4222


def unknown() -> socket.gaierror:
    """A new one each time: one that is kept would keep, by its traceback, what must be forgotten here."""
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Silent:
    """A name server that answers nobody until it is let; then it says no."""

    def __init__(self) -> None:
        self.asked = 0
        self._answers = threading.Event()

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        self._answers.wait(30)
        raise unknown()

    def answer(self) -> None:
        """Now."""
        self._answers.set()


@pytest.fixture
def silent() -> Iterator[Silent]:
    found = Silent()
    yield found
    found.answer()


def _nobody(host: str, port: int) -> list[str]:
    raise unknown()


async def test_an_unknown_name_is_said_at_once() -> None:
    with pytest.raises(HostUnknown, match="the name nats-typo is not known: Name or service not known"):
        await HostLookup(_nobody).resolve_host(NAME, PORT, timeout_s=30)


async def test_an_address_is_no_name() -> None:
    for address in ("127.0.0.1", "::1"):
        assert await HostLookup(_nobody).resolve_host(address, PORT, timeout_s=30) == [address]


async def test_who_asks_again_meanwhile_asks_nobody_anew_and_the_late_answer_is_no_complaint(silent: Silent) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lookup = HostLookup(silent)
    for _ in range(3):
        with pytest.raises(HostUnknown, match="no name server answers when it is asked for nats-typo"):
            await lookup.resolve_host(NAME, PORT, timeout_s=0.01)
    assert silent.asked == 1
    silent.answer()
    await until(lambda: not lookup._asked)
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    # What was answered is not kept: the name may be known by now.
    with pytest.raises(HostUnknown, match="not known"):
        await lookup.resolve_host(NAME, PORT, timeout_s=20)
    assert silent.asked == 2


async def test_of_several_addresses_the_one_where_somebody_listens_is_taken() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = NamedTransport(HostLookup(lambda host, port: ["127.0.0.2", "127.0.0.1"]))
    try:
        await transport.connect(urlparse(f"nats://broker:{port}"), 1024, 5)
        assert transport
    finally:
        transport.close()
        server.close()


@pytest.mark.parametrize("answers", [True, False], ids=["the name is not known", "no name server answers"])
async def test_a_start_gives_up_with_words(monkeypatch: pytest.MonkeyPatch, silent: Silent, answers: bool) -> None:
    monkeypatch.setattr(jetstream_connection, "UNKNOWN_HOST_S", 0.05)
    connection = Connection(f"nats://{NAME}:{PORT}")
    connection.nc.lookup = HostLookup(_nobody if answers else silent)
    with pytest.raises(BusUnavailable, match=r"no broker is found at nats://nats-typo.*BULKHEAD_NATS_URL, or mend DNS"):
        await connection.open(nkey_seed=None, inbox_prefix="_INBOX_x", name="x", timeout_s=600)


async def test_an_unknown_name_among_others_that_are_known_is_no_reason_to_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a cluster whose brokers are down: that is waited for as long as for one of one name."""
    monkeypatch.setattr(jetstream_connection, "UNKNOWN_HOST_S", 0.05)
    monkeypatch.setattr("nats.aio.client.shuffle", lambda servers: None)
    connection = Connection(f"nats://127.0.0.1:1,nats://{NAME}:{PORT}")
    connection.nc.lookup = HostLookup(_nobody)
    with pytest.raises(BusUnavailable, match="no broker answers"):
        await connection.open(nkey_seed=None, inbox_prefix="_INBOX_x", name="x", timeout_s=1)


async def test_names_that_nobody_answers_for_have_a_bound_and_hold_up_no_other() -> None:
    goes_on = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host.startswith("slow"):
            goes_on.wait(20)
        return ["192.0.2.1"]

    lookup = HostLookup(resolve)
    slow = [asyncio.create_task(lookup.resolve_host(f"slow{n}", PORT, 20)) for n in range(MAX_LOOKUPS - 1)]
    await asyncio.sleep(0)
    assert await lookup.resolve_host("quick", PORT, 20) == ["192.0.2.1"]
    slow.append(asyncio.create_task(lookup.resolve_host("slow", PORT, 20)))
    await asyncio.sleep(0)
    with pytest.raises(HostUnknown, match="try again later"):
        await lookup.resolve_host("one.more", PORT, 20)
    goes_on.set()
    assert await asyncio.gather(*slow) == [["192.0.2.1"]] * MAX_LOOKUPS
