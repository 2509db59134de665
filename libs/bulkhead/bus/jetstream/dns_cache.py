"""A cache of the broker's addresses, which resolves each host name once at a time.

In: a host and a port. Out: addresses, or HostUnknown with the question and the answer. Why: nats-py resolves names in
the event loop's thread pool and gives up after its connect timeout; without a name server the lookup goes on, fails
unnoticed ("Future exception was never retrieved"), and keeps the process from ending. Here it runs in a daemon thread,
and a second caller gets the result of the lookup that is under way.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

Addresses = list[str]
ResolveHost = Callable[[str, int], Addresses]


CLOSE_S = 2.0
MAX_LOOKUPS = 64
"""At a time; each has a thread."""


class HostUnknown(OSError):
    """A host name that is unknown, or for which no name server answers."""


def addresses_of(host: str, port: int) -> Addresses:
    """Addresses as the system says them. Blocks. Raises OSError."""
    return [str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class HostLookup:
    """Lookups of one event loop. resolve: blocks in a thread of its own."""

    def __init__(self, resolve: ResolveHost = addresses_of) -> None:
        self._resolve = resolve
        self._asked: dict[tuple[str, int], asyncio.Future[Addresses]] = {}

    async def resolve_host(self, host: str, port: int, timeout_s: float) -> Addresses:
        """All addresses of a host, at least one. Raises HostUnknown."""
        if _is_address(host):
            return [host]
        lookup = self._asked.get((host, port))
        if lookup is None:
            if len(self._asked) >= MAX_LOOKUPS:
                raise HostUnknown(
                    f"{MAX_LOOKUPS} names are being looked up, and no name server answers: try again later"
                )
            lookup = self._start_lookup(host, port)
        await asyncio.wait({lookup}, timeout=timeout_s)
        if not lookup.done():
            raise HostUnknown(f"no name server answers when it is asked for {host}")
        error = lookup.exception()
        if error is not None:
            raise HostUnknown(f"the name {host} is not known: {getattr(error, 'strerror', None) or error}") from error
        return lookup.result()

    def _start_lookup(self, host: str, port: int) -> "asyncio.Future[Addresses]":
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[Addresses] = loop.create_future()
        self._asked[host, port] = lookup
        # Retrieved, so that asyncio does not complain when the caller has gone.
        lookup.add_done_callback(lambda done: (self._asked.pop((host, port), None), done.exception()))

        def settle_lookup(found: Addresses | OSError) -> None:
            if isinstance(found, OSError):
                lookup.set_exception(found)
            else:
                lookup.set_result(found)

        def resolve_in_thread() -> None:
            result: Addresses | OSError
            try:
                result = self._resolve(host, port)
            except (OSError, UnicodeError) as error:  # A label too long for DNS fails to be encoded.
                result = error if isinstance(error, OSError) else OSError(str(error))
            with suppress(RuntimeError):  # The loop may be closed by now.
                loop.call_soon_threadsafe(settle_lookup, result)

        threading.Thread(target=resolve_in_thread, name=f"lookup-{host}", daemon=True).start()
        return lookup


PING, PONG = b"PING", b"PONG\r\n"


class NamedTransport(TcpTransport):
    """nats-py's TCP, with names looked up here. A name may stand for several addresses: one after the other."""

    def __init__(self, lookup: HostLookup) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lookup = lookup

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect as nats-py does. Raises OSError, TimeoutError."""
        assert uri.hostname is not None and uri.port is not None, uri
        # Of an attempt that failed: the broker would keep it until its own time is up.
        self.close()  # type: ignore[no-untyped-call]
        addresses = await self._lookup.resolve_host(uri.hostname, uri.port, connect_timeout)
        async with asyncio.timeout(connect_timeout):
            for place, address in enumerate(addresses):
                try:
                    reader, writer = await asyncio.open_connection(address, uri.port, limit=buffer_size)
                except OSError:
                    if place == len(addresses) - 1:
                        raise
                else:
                    self._bare_io_reader = self._io_reader = reader
                    self._bare_io_writer = self._io_writer = writer
                    return

    async def readline(self) -> bytes:
        """Read a line as nats-py does, which reads the handshake with it and takes anything but an error for the end
        of it. While the identity service is asked about the token the broker may ping before that.
        """
        while (line := bytes(await super().readline())).startswith(PING):  # type: ignore[no-untyped-call]
            self.write(PONG)  # type: ignore[no-untyped-call]
        return line

    async def wait_closed(self) -> None:
        """Wait as nats-py does, but not for ever: a TLS stream waits for a goodbye that a frozen peer does not say."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await super().wait_closed()  # type: ignore[no-untyped-call]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
