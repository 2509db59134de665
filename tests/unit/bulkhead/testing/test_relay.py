"""A wire: whole, cut, mended, long. And the faults that a test leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.client.loop_thread import LoopThread
from bulkhead.testing.faults import MeshFaults
from bulkhead.testing.mesh_backend import StageMissing, find_stage
from bulkhead.testing.relay import BrokerRelay

BIG = 3_000_000


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[BrokerRelay]:
    """To an echo."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    relay = BrokerRelay(lambda: ("127.0.0.1", port))
    await relay.open()
    yield relay
    await relay.close()
    server.close()


async def test_all_bytes_come_in_order(wire: BrokerRelay) -> None:
    data = bytes(range(250)) * (BIG // 250)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(data)
    assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
    writer.close()


async def test_a_cut_wire_drops_who_is_there_and_who_comes_and_mends(wire: BrokerRelay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    wire.cut_wire()
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()
    wire.mend_wire()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"again")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"again"
    writer.close()


async def test_a_long_wire_delays_each_way_and_keeps_the_order(wire: BrokerRelay) -> None:
    wire.delay_s = 0.05
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    began = asyncio.get_running_loop().time()
    for number in range(10):
        writer.write(b"%d" % number)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader.readexactly(10), 5) == b"0123456789"
    assert asyncio.get_running_loop().time() - began >= 0.1
    writer.close()


async def test_nobody_at_the_other_end_is_a_closed_connection() -> None:
    relay = BrokerRelay(lambda: ("127.0.0.1", 1))
    await relay.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    assert await asyncio.wait_for(reader.read(1), 5) == b""
    writer.close()
    await relay.close()


class Told:
    """A stage that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def take(*what: Any, **more: Any) -> None:
            self.told.append(" ".join([name, *map(str, what)]))

        return take


def test_what_a_test_leaves_broken_is_mended_the_last_first() -> None:
    stage = Told()
    with LoopThread() as loop:
        faults = MeshFaults(stage, loop)  # type: ignore[arg-type]
        faults.paused("worker")
        faults.disconnected("rag")
        with faults.slow_broker(5):
            assert stage.told[-1] == "slow_broker 5"
        assert stage.told[-1] == "slow_broker 0"
        with pytest.raises(ValueError, match="paused worker is so already"):
            faults.paused("worker")
        with pytest.raises(ValueError, match="no service 'wurker'; there are planner"):
            faults.kill("wurker")
        faults.undo_all()
        assert stage.told[-3:] == ["reconnect rag", "resume worker", "ready 60.0"]
        faults.undo_all()
        assert stage.told[-1] == "ready 60.0" and stage.told.count("ready 60.0") == 1


def test_an_unknown_stage_is_told_with_those_that_are_installed() -> None:
    with pytest.raises(StageMissing, match=r"no stage 'moon' is installed \(installed: "):
        find_stage("moon")
