"""A NATS client on nats-py with a shorter path per message: one header frame, one write, no queue.

In: frames to write, bytes from the broker. Out: the same frames and messages as nats-py's own. Why: per message nats-py
checks every header by a pattern, wakes a flusher task for every write, a reader task for every read and a task of the
subscription for every delivery. Reconnecting, handshakes and everything rare are nats-py's.
"""

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from nats import errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE

from bulkhead.bus.jetstream.dns_cache import HostLookup, NamedTransport
from bulkhead.bus.wire import DESCRIPTION, HEEDED_HEADERS, STATUS
from bulkhead.telemetry.latency import LATENCY


class SocketMessage(NamedTuple):
    """A message as read from the socket."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


HandleMessage = Callable[[SocketMessage], None]

FRAME = b"NATS/1.0"
# What bytes.strip() takes away; str.strip() takes more, and would read a name that the broker does not.
_BLANKS = " \t\n\r\x0b\x0c"
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
EXPIRED = "authentication expired"
MAX_HANDSHAKE_S = 30.0
"""So long a connection may take that the broker has accepted, on a busy machine."""
FRAMES_A_WRITE, MAX_UNSENT_BYTES, ACK_HOLD_S = LATENCY.frames_a_write, LATENCY.max_unsent_bytes, LATENCY.ack_hold_s


class DirectClient(Client):
    """A client that passes messages on as they are read. The first frame of a turn of the event loop is written at
    once, because a caller waits for it; the others leave together, FRAMES_A_WRITE at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, HandleMessage] = {}
        self._due = False
        self._held = 0
        """Frames at the begin of `_pending` that wait for company; a guess where nats-py has written them."""
        self._release: asyncio.TimerHandle | None = None
        self.lookup = HostLookup()

    async def _connect_to_server(self, s: Srv) -> None:
        """Connect as nats-py does, but for how a name becomes an address. Raises HostUnknown, OSError, TimeoutError."""
        if s.uri.scheme in ("ws", "wss"):
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        if not isinstance(self._transport, NamedTransport):
            self._transport = NamedTransport(self.lookup)
        await self._transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_connect_init(self) -> None:
        """Shake hands as nats-py does, but not for ever. A connection that was given up before nats-py called it one
        has left its reader behind, which would read this one's bytes. Raises what nats-py's raises, TimeoutError.
        """
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        async with asyncio.timeout(MAX_HANDSHAKE_S):
            await super()._process_connect_init()

    async def _attempt_reconnect(self) -> None:
        """nats-py's reconnect, without its giving up for good on unknown errors, such as a TLS stream that breaks off
        in the handshake."""
        own_task = asyncio.current_task()
        while True:
            try:
                await super()._attempt_reconnect()
            except (RuntimeError, TypeError, AttributeError, AssertionError, EOFError) as error:
                self._err = error
                await self._error_cb(error)
            goes_on = self.is_reconnecting or self.is_connecting
            if not goes_on or (own_task is not None and own_task.cancelling()):
                return
            self._status = Client.RECONNECTING
            await asyncio.sleep(self.options["reconnect_time_wait"])

    async def _process_err(self, err_msg: str) -> None:
        """Handle an error as nats-py does, but for a login whose time is over: it is one more lost connection, and
        the next login shows the token of then. nats-py would close for good.
        """
        if EXPIRED in err_msg.lower():
            self._err = errors.Error(f"nats: {err_msg}")
            await self._error_cb(self._err)
            await self._process_op_err(self._err)
            return
        await super()._process_err(err_msg)

    async def listen(self, subject: str, take: HandleMessage, queue: str = "") -> Subscription:
        """Subscribe, in a queue group or alone. `take` is called as soon as a message is read: it must return at once
        and not raise."""

        async def pass_on(message: Msg) -> None:
            take(SocketMessage(message.subject, message.reply, message.data, message.headers))

        subscription = await self.subscribe(subject, queue=queue, cb=pass_on)
        self._takers[subscription._id] = take
        return subscription

    def write_publish(self, subject: str, body: bytes, reply: str, headers: bytes, *, can_wait: bool = False) -> None:
        """Send one publish, in order. headers: a frame of `header_frame`, or none. can_wait: leave with the next one,
        or after ACK_HOLD_S.

        The subject is checked by the caller. Raises ConnectionClosedError, ConnectionDrainingError, and
        OutboundBufferLimitError while there is no connection and enough waits for one.
        """
        if self._status != Client.CONNECTED:
            self._check_may_wait(len(body))
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
        else:
            head = f"PUB {subject} {reply} {len(body)}\r\n"
        frame = b"".join((head.encode(), headers, body, b"\r\n"))
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(body)
        if self._due:
            self._pending.append(frame)
            self._pending_data_size += len(frame)
            if len(self._pending) % FRAMES_A_WRITE == 0:
                self._write_pending()
            return
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        loop, only_held = asyncio.get_running_loop(), len(self._pending) == self._held + 1
        if can_wait and only_held and self._held < FRAMES_A_WRITE:
            self._held += 1
            if self._release is None:
                self._release = loop.call_later(ACK_HOLD_S, self._write_held)
            return
        self._due = True
        loop.call_soon(self._write_out)
        if only_held or len(self._pending) == 1:
            self._write_pending()

    def _write_held(self) -> None:
        self._release = None
        if self._held and not self._due:
            self._write_out()

    def _check_may_wait(self, size: int) -> None:
        """Raise where a publish of this size cannot wait for a connection."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not self.is_connected and self._pending_data_size + size > self._max_pending_size:
            raise errors.OutboundBufferLimitError

    def _open_transport(self) -> asyncio.WriteTransport | None:
        """Transport to write to now; None while there is no connection, or its socket is too slow for what it has
        already.
        """
        if not self.is_connected:
            return None
        transport: asyncio.WriteTransport = self._transport._io_writer.transport  # type: ignore[union-attr]
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return None
        return transport

    def _write_out(self) -> None:
        """Write the frames of this turn after the first, and those that waited for nats-py's own commands or for a
        connection."""
        self._due = False
        if not self._pending or self._write_pending():
            return
        if self.is_connected and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def _write_pending(self) -> bool:
        """Write what is pending; true when there is a connection that takes it now."""
        transport = self._open_transport()
        if transport is None:
            return False
        frames, self._pending, self._pending_data_size, self._held = self._pending, [], 0, 0
        transport.write(b"".join(frames))
        return True

    async def _read_loop(self) -> None:
        """nats-py's read loop, used for everything except whole messages of a subscription, which pass it by."""
        reader = getattr(self._transport, "_io_reader", None)
        if reader is None:  # A websocket's frames come in another way.
            await super()._read_loop()
            return
        later = reader.feed_data

        def feed_remainder(data: bytes) -> None:
            # What nats-py is not through with came before, and may be the beginning of this: also the line that ended
            # with the last bytes, whose content then comes now and may look like anything.
            if not reader._buffer and not self._ps.buf and self._ps.state == AWAITING_CONTROL_LINE:
                data = data[self._hand_over_whole(data) :]
            if data:
                later(data)

        reader.feed_data = feed_remainder
        await super()._read_loop()

    def _hand_over_whole(self, data: bytes) -> int:
        """Hand over the messages that `data` begins with; returns where the first thing stands that is none."""
        offset = 0
        while (end := data.find(b"\r\n", offset)) > 0:
            words = data[offset:end].split()
            kind, count = words[0] if words else b"", len(words)
            if kind == b"HMSG" and 5 <= count <= 6:
                header_size = words[-2]
            elif kind == b"MSG" and 4 <= count <= 5:
                header_size = b"0"
            else:
                break
            if not (words[2].isdigit() and header_size.isdigit() and words[-1].isdigit()):
                break
            body = end + 2 + int(header_size)
            body_end = end + 2 + int(words[-1])
            if len(data) < body_end + 2 or body > body_end:
                break
            reply = words[3] if count - (kind == b"HMSG") == 5 else b""
            if not self._hand_over(int(words[2]), words[1], reply, data[body:body_end], data[end + 2 : body]):
                break
            offset = body_end + 2
        return offset

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if not self._hand_over(sid, subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)

    def _hand_over(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> bool:
        """Hand such a message over, and return true, when that is this client's to do."""
        take = self._takers.get(sid)
        if take is None or sid not in self._subs:
            return False
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        parsed_headers = read_headers(headers) if headers else None
        # Publishers choose subjects: one that is no text must be refused by the reader of the message, not end the
        # connection's reader.
        text, reply_text = subject.decode("utf-8", "replace"), reply.decode("utf-8", "replace")
        take(SocketMessage(text, reply_text, data, parsed_headers))
        return True

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._takers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


def header_frame(headers: dict[str, str]) -> bytes:
    """Headers as the broker reads them: values trimmed, no line break gets through. Raises BadHeaderError (a key)."""
    lines = [FRAME.decode()]
    for key, value in headers.items():
        name = _check_header_key(key)
        if name:
            value = value.strip()
            if "\r" in value or "\n" in value:
                value = value.replace("\r", " ").replace("\n", " ")
            lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@lru_cache(maxsize=1024)
def _check_header_key(key: str) -> str:
    name = key.strip()
    if not _TOKEN.issuperset(name):
        raise errors.BadHeaderError(name)
    return name


def read_headers(raw: bytes) -> dict[str, str]:
    """The headers of a frame, with the status of its first line; lines that are none are left out, as nats-py does."""
    headers: dict[str, str] = {}
    status_line, *lines = raw[len(FRAME) :].decode("utf-8", "replace").split("\r\n")
    if status_line:
        code, text = status_line[1:4].strip(), status_line[5:]
        headers |= {STATUS: code} if code.isdigit() else {}
        headers |= {DESCRIPTION: text} if text else {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            written, name = name, _header_name(name)
            if name in HEEDED_HEADERS and (name in headers or written != name):
                headers[name] = ""  # The broker has read it otherwise, or not at all: it proves nothing.
            elif name:
                headers[name] = value.strip(_BLANKS)
    return headers


@lru_cache(maxsize=1024)
def _header_name(text: str) -> str:
    """A header's name as it was read; "" for what is none."""
    name = text.strip(_BLANKS)
    return name if name.isascii() and name and not any(char.isspace() for char in name) else ""
