"""The HTTP server, in the event loop of the service; the runtime handles the signals.

In: an ASGI application. Out: it listens; `stop` finishes what runs and closes.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.http_server.connections import MAX_HEADER_BYTES, ConnectionBounds, bounded_protocol, connections_bound
from bulkhead.telemetry.log import Log

log = Log("http.server")
BACKLOG = 2_048
KEEP_ALIVE_S = 75
DATE_EVERY_S = 1.0
NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class ServerSettings(Protocol):
    """Settings of a service that listens. http_port 0 takes a free port, written to http_file."""

    @property
    def http_host(self) -> str: ...
    @property
    def http_port(self) -> int: ...
    @property
    def http_file(self) -> Path | None: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def head_timeout_s(self) -> float: ...
    @property
    def write_timeout_s(self) -> float: ...
    @property
    def drain_timeout_s(self) -> float: ...


def _guard_answers(app: ASGIApp) -> ASGIApp:
    """Has no browser guess at the type of an answer, and closes a connection after a request with two lengths, whatever
    its answer is (RFC 9112, 6.3): a proxy may have believed the other one, and what follows may be a request that it
    has not seen."""
    lengths = {b"content-length", b"transfer-encoding"}

    async def serve_request(scope: Scope, receive: Receive, send: Send) -> None:
        guards = [NO_SNIFFING]
        if lengths <= {name for name, _ in scope["headers"]}:
            guards.append((b"connection", b"close"))
        guarded = {name for name, _ in guards}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [row for row in message["headers"] if row[0].lower() not in guarded]
                message = {**message, "headers": [*headers, *guards]}
            await send(message)

        await app(scope, receive, send_guarded)

    return serve_request


class _UvicornServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        """Run until `ending`; uvicorn's own looks ten times a second. Each second the date in headers is set anew."""
        while not self.ending.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_EVERY_S):
                    await self.ending.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The runtime handles signals: it drains the inbox too."""
        yield


class HttpServer:
    """One listening socket and the server behind it. owner: the service, for the words of an error. port_setting: the
    variable that names the port."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, owner: str, port_setting: str = "BULKHEAD_HTTP_PORT"
    ) -> None:
        self._owner, self._port_setting = owner, port_setting
        self._host, self._wanted_port, self._file = settings.http_host, settings.http_port, settings.http_file
        max_connections = connections_bound(settings.max_connections)
        sockets = ConnectionBounds(settings.head_timeout_s, settings.write_timeout_s, max_connections)
        config = uvicorn.Config(
            _guard_answers(app),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(settings.drain_timeout_s)),
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            http=bounded_protocol(sockets),
            ws="none",
        )
        self._server = _UvicornServer(config)
        self._running: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError that says what to do when the port is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._wanted_port))
        except OSError as error:
            listener.close()
            raise OSError(
                error.errno,
                f"{self._owner} cannot listen on {self._host}:{self._wanted_port}: {error.strerror}; end the process "
                f"that holds the port or choose another ({self._port_setting}, 0 takes a free one)",
            ) from error
        self.port = listener.getsockname()[1]
        self._running = asyncio.create_task(self._server.serve(sockets=[listener]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            listening.cancel()
            self._running.result()
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps({"host": self._host, "port": self.port}))
            fresh.replace(self._file)
        log.info("listening", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Take no more connections, finish what runs, close."""
        if self._running is not None:
            self._server.ending.set()
            await asyncio.gather(self._running, return_exceptions=True)
