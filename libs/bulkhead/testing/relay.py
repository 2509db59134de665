"""A TCP relay between one service and the broker, which a test can cut or slow down.

In: connections on a port of its own. Out: the same bytes, in order, to the address in `upstream` at that moment.
"""

import asyncio
from collections.abc import Callable

CHUNK_BYTES = 64 * 1024
HELD_CHUNKS = 256
"""So many chunks are under way on a long wire; then its sender waits."""

Upstream = Callable[[], tuple[str, int]]


class BrokerRelay:
    """`await open()`, `port`, `cut_wire()`, `mend_wire()`, `delay_s`, `await close()`."""

    def __init__(self, upstream: Upstream, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.delay_s = 0.0
        self._upstream, self._host = upstream, host
        self._cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve_connection, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and drop what is connected."""
        self.cut_wire()
        if self._server is not None:
            self._server.close()

    def cut_wire(self) -> None:
        """Drop what is connected, and what connects."""
        self._cut = True
        for writer in list(self._writers):
            # Not in order: a wire that is cut delivers nothing more.
            writer.transport.abort()

    def mend_wire(self) -> None:
        """End of `cut_wire`."""
        self._cut = False

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream_writer: asyncio.StreamWriter | None = None
        try:
            if self._cut:
                return
            back, upstream_writer = await asyncio.open_connection(*self._upstream())
            self._writers.add(upstream_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry_bytes(reader, upstream_writer))
                both.create_task(self._carry_bytes(back, writer))
        except* OSError:
            pass  # Either end is gone; so is the other.
        finally:
            for end_writer in filter(None, (writer, upstream_writer)):
                self._writers.discard(end_writer)
                end_writer.transport.abort()

    async def _carry_bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction. A chunk is written `delay_s` after it was read, whatever was read since."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)

        async def read_chunks() -> None:
            data = b"-"
            while data:
                data = await reader.read(CHUNK_BYTES)
                await under_way.put((loop.time() + self.delay_s, data))

        async def write_chunks() -> None:
            while True:
                due, data = await under_way.get()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if not data:
                    # Bytes written before still go out; the other direction then has no reader.
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(read_chunks())
            both.create_task(write_chunks())
