"""Connections to providers on the event loop's own transports: httpx's usual ones cost several times as much a call.

In: an address. Out: bytes as they come, or httpcore's errors. A proxy is spoken to by httpx's own connections.
"""

import asyncio
import select
import socket
import ssl
from asyncio.staggered import staggered_race
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import httpcore
import httpx

NEXT_ADDRESS_S = 0.25
"""A name's next address is tried after so long (RFC 8305), or when the one before fails."""
MAX_UNREAD_BYTES = 256 * 1024


class DirectTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over these connections."""

    def __init__(self, verify: ssl.SSLContext | bool, limits: httpx.Limits | None = None) -> None:
        super().__init__(verify=verify, trust_env=False, limits=limits or httpx.Limits())
        self._pool._network_backend = _LoopBackend()


class _LoopBackend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                # One after the other, each at its number: uvloop does not race addresses itself.
                rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                tries = [
                    partial(loop.create_connection, _LoopStream, *address[:2], family=family, proto=protocol)
                    for family, _, protocol, _, address in rows
                ]
                connected, _, errors = await staggered_race(tries, NEXT_ADDRESS_S)
                if connected is None:
                    raise next(error for error in errors if error is not None)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        stream: _LoopStream = connected[1]
        return stream


class _LoopStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._ended, self._writable = False, True
        self._error: Exception | None = None
        self._change: asyncio.Future[None] | None = None

    # The loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class.
        self._descriptor: int = transport.get_extra_info("socket").fileno()  # uvloop's tell none under TLS.

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MAX_UNREAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake_waiter()

    def eof_received(self) -> None:
        self._ended = True
        self._wake_waiter()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._wake_waiter()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake_waiter()

    def _wake_waiter(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _wait_for_change(self, timeout: float | None) -> None:
        self._change = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(timeout):
            await self._change

    # httpcore's side

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            while not (self._unread or self._ended):
                await self._wait_for_change(timeout)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        if not self._unread and self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        data = bytes(self._unread[:max_bytes])
        was_paused = len(self._unread) > MAX_UNREAD_BYTES
        del self._unread[:max_bytes]
        if was_paused and len(self._unread) <= MAX_UNREAD_BYTES and not self._ended and self._transport is not None:
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._transport is None or self._transport.is_closing():
            raise httpcore.WriteError("the provider has closed the connection")
        self._transport.write(buffer)
        try:
            while not (self._writable or self._ended):
                await self._wait_for_change(timeout)
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            assert self._transport is not None
            async with asyncio.timeout(timeout):
                self._transport = await loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout from error
            if isinstance(error, OSError):
                raise httpcore.ConnectError(str(error)) from error
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # Nothing is on its way between two calls but the end.
            return bool(self._unread) or self._ended or self._is_readable_in_kernel()
        return self._transport.get_extra_info(info) if self._transport is not None else None

    def _is_readable_in_kernel(self) -> bool:
        """Check whether something came that a busy loop has not read yet."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))
