"""nats-py's client with a shorter way for what every message pays: one header frame, one write, no queue per message.

In: frames to write, bytes from the broker. Out: the same frames and messages as nats-py's own. Why: per message nats-py
checks every header by a pattern, wakes a flusher task for every write and a task of the subscription for every
delivery. Reconnecting, handshakes and everything rare are nats-py's.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

Take = Callable[[Msg], None]

FRAME = b"NATS/1.0"
_HEADERS_BEGIN = len(FRAME) + 2
_INLINE_STATUS = ord(" ")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
MAX_UNSENT_BYTES = 1_048_576
"""Beyond this the socket is slower than we are: nats-py's flusher, which waits for it, takes over."""


class DirectClient(Client):
    """A client that hands messages over on its read loop and writes what one turn of the event loop said at once."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Take] = {}
        self._due = False

    async def listen(self, subject: str, take: Take) -> Subscription:
        """Subscribe. `take` is called as soon as a message is read: it must return at once and not raise."""

        async def queued(message: Msg) -> None:
            take(message)

        subscription = await self.subscribe(subject, cb=queued)
        self._takers[subscription._id] = take
        return subscription

    def write(self, subject: str, body: bytes, reply: str, headers: bytes) -> None:
        """Send one publish with its turn's others. headers: a frame of `header_frame`, or none.

        The subject is checked by the caller. Raises ConnectionClosedError, ConnectionDrainingError, and
        OutboundBufferLimitError while there is no connection and enough waits for one.
        """
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not self.is_connected and self._pending_data_size + len(body) > self._max_pending_size:
            raise errors.OutboundBufferLimitError
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
        else:
            head = f"PUB {subject} {reply} {len(body)}\r\n"
        frame = b"".join((head.encode(), headers, body, b"\r\n"))
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(body)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._write_out)

    def _write_out(self) -> None:
        self._due = False
        if not self.is_connected or self.is_connecting or not self._pending:
            return  # What waits is written when the connection stands again.
        transport = self._transport._io_writer.transport  # type: ignore[union-attr]
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            if self._flush_queue is not None and self._flush_queue.empty():
                self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
            return
        frames, self._pending, self._pending_data_size = self._pending, [], 0
        transport.write(b"".join(frames))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self._takers.get(sid)
        if take is None or (headers and headers[_HEADERS_BEGIN - 2] == _INLINE_STATUS) or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        read = read_headers(headers) if headers else None
        take(Msg(self, subject.decode(), reply.decode(), data, read, _sid=sid))

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._takers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


def header_frame(headers: dict[str, str]) -> bytes:
    """Headers as the broker reads them: values trimmed, no line break gets through. Raises BadHeaderError (a key)."""
    lines = [FRAME.decode()]
    for key, value in headers.items():
        name = _key(key)
        if name:
            value = value.strip()
            if "\r" in value or "\n" in value:
                value = value.replace("\r", " ").replace("\n", " ")
            lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@lru_cache(maxsize=1024)
def _key(key: str) -> str:
    name = key.strip()
    if not _TOKEN.issuperset(name):
        raise errors.BadHeaderError(name)
    return name


def read_headers(raw: bytes) -> dict[str, str]:
    """The headers of a frame without an inline status; lines that are none are left out, as nats-py does."""
    found: dict[str, str] = {}
    for line in raw[_HEADERS_BEGIN:].decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip()
            if name.isascii() and len(name.split()) == 1:
                found[name] = value.strip()
    return found
