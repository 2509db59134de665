"""Connections to providers, on asyncio's loop and on the one that services run on, plain and under TLS."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import uvloop

from bulkhead_infra.identity import tls
from bulkhead_services.model_gateway.effects import Network, make_transport
from bulkhead_services.model_gateway.providers.sockets import MAX_UNREAD_BYTES, DirectTransport

PIECE = b"x" * 50_000
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    def run_to_end(work: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run_to_end


class Server:
    """Answers each request alike. connections: how many were made."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.connections = answer, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                await self._answer(writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _whole(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await writer.drain()


async def _ask(transport: httpx.AsyncBaseTransport, url: str, read_s: float = 10.0, pause_s: float = 0.0) -> bytes:
    timeouts = {"connect": 10.0, "read": read_s, "write": 10.0, "pool": 10.0}
    request = httpx.Request("POST", url, content=b"{}", extensions={"timeout": timeouts})
    response = await transport.handle_async_request(request)
    await asyncio.sleep(pause_s)
    body = b""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        body += chunk
    await response.aclose()
    return body


async def _with_server(
    answer: Answer, asking: Callable[[str, Server], Awaitable[Any]], context: ssl.SSLContext | None = None
) -> Any:
    server = Server(answer)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        return await asking(f"{'https' if context else 'http'}://localhost:{port}/v1", server)


def test_a_connection_is_kept_for_the_next_call_and_made_anew_when_the_peer_has_ended_it(run):
    async def asking(url: str, server: Server) -> None:
        transport = DirectTransport(verify=False)
        assert [await _ask(transport, url), await _ask(transport, url)] == [b"ok", b"ok"]
        assert server.connections == 1
        await transport.aclose()

    async def asking_after_its_end(url: str, server: Server) -> None:
        transport = DirectTransport(verify=False)
        assert await _ask(transport, url) == b"ok"
        await asyncio.sleep(0.05)
        assert await _ask(transport, url) == b"ok"
        assert server.connections == 2
        await transport.aclose()

    async def answer_and_end(writer: asyncio.StreamWriter) -> None:
        await _whole(writer)
        writer.close()

    run(_with_server(_whole, asking))
    run(_with_server(answer_and_end, asking_after_its_end))


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_ended_while_the_loop_was_busy_is_not_used_again(run, secure: bool, tmp_path: Path):
    """The provider may charge a request that it has read, and answers none on a connection that it closes."""
    tls.ensure_certificates(tmp_path, ("localhost", "127.0.0.1"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / tls.BROKER_FILE, tmp_path / tls.BROKER_KEY_FILE)
    port, may_end, has_ended, requests = Queue[int](), Event(), Event(), list[bytes]()

    def serve() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(10)
            port.put(listening.getsockname()[1])
            for number in range(2):
                accepted, _ = listening.accept()
                with context.wrap_socket(accepted, server_side=True) if secure else accepted as peer:
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n{}"):
                        asked += peer.recv(65_536)
                    requests.append(asked)
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    if not number:
                        may_end.wait(10)
                        peer.shutdown(socket.SHUT_WR)
                        has_ended.set()
                        peer.settimeout(2)
                        requests.append(peer.recv(65_536))

    async def ask_twice(url: str) -> None:
        transport = make_transport(2, Network(ca_file=tmp_path / tls.CA_FILE))
        assert await _ask(transport, url) == b"ok"
        may_end.set()
        assert has_ended.wait(10), "the loop stands still meanwhile"
        assert await _ask(transport, url) == b"ok"
        await transport.aclose()

    thread = Thread(target=serve)
    thread.start()
    run(ask_twice(f"{'https' if secure else 'http'}://localhost:{port.get(timeout=10)}/v1"))
    thread.join(10)
    assert len(requests) == 3 and not requests[1], "nothing came on the first one any more"


def test_under_tls_the_authority_that_is_named_is_trusted_and_no_other(run, tmp_path: Path):
    tls.ensure_certificates(tmp_path, ("localhost", "127.0.0.1"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / tls.BROKER_FILE, tmp_path / tls.BROKER_KEY_FILE)

    async def asking(url: str, server: Server) -> None:
        trusting = make_transport(2, Network(ca_file=tmp_path / tls.CA_FILE))
        assert [await _ask(trusting, url), await _ask(trusting, url)] == [b"ok", b"ok"]
        await trusting.aclose()
        wary = make_transport(2, Network())
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await _ask(wary, url)
        await wary.aclose()

    run(_with_server(_whole, asking, context))


def test_a_body_that_comes_faster_than_it_is_read_is_held_back_and_comes_whole(run):
    count = 8 * MAX_UNREAD_BYTES // len(PIECE)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {count * len(PIECE)}\r\n\r\n".encode())
        for _ in range(count):
            writer.write(PIECE)
            await writer.drain()

    async def asking(url: str, server: Server) -> None:
        transport = DirectTransport(verify=False)
        assert await _ask(transport, url, pause_s=0.1) == count * PIECE
        await transport.aclose()

    run(_with_server(answer, asking))


def test_silence_a_broken_connection_and_nobody_there_are_told_apart(run):
    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await writer.drain()
        writer.transport.abort()

    def failing(error: type[Exception], read_s: float) -> Callable[[str, Server], Awaitable[None]]:
        async def asking(url: str, server: Server) -> None:
            transport = DirectTransport(verify=False)
            with pytest.raises(error):
                await _ask(transport, url, read_s=read_s)
            await transport.aclose()

        return asking

    async def asking_nobody() -> None:
        transport = DirectTransport(verify=False)
        with pytest.raises(httpx.ConnectError):
            await _ask(transport, "http://localhost:9/v1")
        await transport.aclose()

    run(_with_server(say_nothing, failing(httpx.ReadTimeout, 0.1)))
    run(_with_server(break_off, failing(httpx.RemoteProtocolError, 10.0)))
    run(asking_nobody())
