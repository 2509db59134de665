"""A TCP relay between one service and the broker, which a test can cut or slow down.

In: connections on a port of its own. Out: the same bytes, in order, to the address in `upstream` at that moment.
"""

import asyncio
from collections.abc import Callable

CHUNK_BYTES = 64 * 1024
HELD_CHUNKS = 256
"""So many chunks are under way on a long wire; then its sender waits."""

Upstream = Callable[[], tuple[str, int]]


class Relay:
    """`await open()`, `port`, `cut()`, `mend()`, `delay_s`, `await close()`."""

    def __init__(self, upstream: Upstream, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.delay_s = 0.0
        self._upstream, self._host = upstream, host
        self._cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nothing listens, nothing is connected."""
        self.cut()
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """What is connected is dropped, what connects is dropped."""
        self._cut = True
        for writer in list(self._writers):
            # Not in order: a wire that is cut delivers nothing more.
            writer.transport.abort()

    def mend(self) -> None:
        """End of `cut`."""
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self._cut:
                return
            back, there = await asyncio.open_connection(*self._upstream())
            self._writers.add(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there))
                both.create_task(self._carry(back, writer))
        except* OSError:
            pass  # Either end is gone; so is the other.
        finally:
            for one in filter(None, (writer, there)):
                self._writers.discard(one)
                one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction. A chunk is written `delay_s` after it was read, whatever was read since."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)

        async def take() -> None:
            data = b"-"
            while data:
                data = await reader.read(CHUNK_BYTES)
                await under_way.put((loop.time() + self.delay_s, data))

        async def give() -> None:
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
            both.create_task(take())
            both.create_task(give())
