"""Connections with deadlines; uvicorn has one only for a connection that is idle.

In: bytes of clients. Out: requests for the application, or the end of a connection: its head is not complete in time,
its peer does not read the answer, or there are too many. The deadline of a body is in bodies.py, because only
the application knows how large it may be.

Parsing costs by the line and by the chunk rather than by the byte, and all clients share one event loop: heads have few
lines, chunks are large on average, one turn of the loop parses little of all connections together, and nothing of a
chunked body is parsed before the application, which knows by then who asks, wants it.
"""

import asyncio
import json
import re
import resource
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NoReturn

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from bulkhead.telemetry.log import Log

log = Log("http.sockets")
TYPE_PREFIX = "urn:bulkhead:problem:"
MEDIA_TYPE = "application/problem+json"
"""Errors outside any API's own form are RFC 9457 problem details."""
RESERVED_FILES = 128
"""Open files for everything else: the broker's connection, logs, the listening socket."""
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADER_LINES = 100
"""Of a head, and of trailers."""
LEAST_CHUNK_BYTES = 256
"""Of a chunk, on average: some lines of a text, say."""
MAX_SMALL_CHUNKS = 1_024
"""Of one body, before the average counts."""
MAX_CHUNKS_AFTER_ANSWER = 64
"""The same of a body that is left when its request is answered."""
MAX_LINES_PER_TURN = 128
"""Of all connections of a server, in one turn of the loop: a few milliseconds. A chunk is a line."""
MAX_LINES_AT_ONCE = 32
"""Of one connection, before others have their turn."""
HEAD_LINES = 32
"""A request costs so many lines beside those of its head."""

_BARE_LF = re.compile(rb"(?<!\r)\n")


class StrictReceiveBuffer(ReceiveBuffer):
    """Lines that end in CRLF alone. h11 takes a bare LF too (RFC 9112, 2.2, allows it); a proxy that does not reads
    another request than we do. objection: the reason why bytes were not taken; "" where h11 has another."""

    objection = ""
    _checked = 0
    _room_for_chunks = 0
    """Bytes that a body has beyond the least of its chunks."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines of a head or of trailers. Raises LocalProtocolError, which h11 turns into the peer's."""
        self._room_for_chunks = MAX_SMALL_CHUNKS * LEAST_CHUNK_BYTES
        if not self._data.startswith(b"\r\n"):
            end = self._data.find(b"\r\n\r\n", max(0, self._checked - 3))
            stop = len(self._data) if end < 0 else end
            if _BARE_LF.search(self._data, self._checked, stop):
                self._refuse_bytes("a line of the head ends in a bare LF")
            if stop > MAX_HEADER_BYTES or (end >= 0 and self._data.count(b"\n", 0, end) > MAX_HEADER_LINES):
                self._refuse_bytes("the head is too large")
            self._checked = stop
        return super().maybe_extract_lines()

    def maybe_extract_next_line(self) -> bytearray | None:
        """The head of a chunk. Raises LocalProtocolError."""
        line = super().maybe_extract_next_line()
        if line is not None:
            self._room_for_chunks -= LEAST_CHUNK_BYTES
            if self._room_for_chunks < 0:
                self._refuse_bytes(f"the chunks of the body have less than {LEAST_CHUNK_BYTES} bytes on average")
        return line

    def maybe_extract_at_most(self, count: int) -> bytearray | None:
        """Bytes of a body."""
        payload = super().maybe_extract_at_most(count)
        self._room_for_chunks += len(payload or b"")
        return payload

    def allow_chunks(self, most: int) -> None:
        """Take no more chunks than so many that are small."""
        self._room_for_chunks = min(self._room_for_chunks, most * LEAST_CHUNK_BYTES)

    def _refuse_bytes(self, objection: str) -> NoReturn:
        self.objection = objection
        raise h11.LocalProtocolError(objection)

    def _extract(self, count: int) -> bytearray:
        self._checked = 0
        return super()._extract(count)


class LoopTurn:
    """The lines that all connections of a server may parse in one turn of the loop; the rest waits in line."""

    def __init__(self) -> None:
        self.lines_left = MAX_LINES_PER_TURN
        self._line = OrderedDict["BoundedProtocol", None]()
        self._is_next_due = False

    def spend_lines(self, lines: int) -> None:
        """Count what was parsed."""
        self.lines_left -= lines
        self._begin_next_later()

    def line_up(self, connection: "BoundedProtocol") -> None:
        """Have it parse on when all before it have had their turn."""
        self._line.setdefault(connection)
        self._begin_next_later()

    def _begin_next_later(self) -> None:
        if not self._is_next_due:
            self._is_next_due = True
            asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin_next(self) -> None:
        self.lines_left, self._is_next_due = MAX_LINES_PER_TURN, False
        try:
            while self.lines_left > 0 and self._line:
                connection, _ = self._line.popitem(last=False)
                connection.parse_on()
        finally:
            if self._line:
                self._begin_next_later()


class _PulledConnection(h11.Connection):
    """Chunked bodies are parsed when they are wanted, and little at once, as heads are. is_body_wanted: the application
    asks for the body, or has answered without it. is_behind: more was read than was parsed in this turn."""

    is_body_wanted = False
    is_behind = False
    lines_left = MAX_LINES_AT_ONCE
    _is_refused = False

    def __init__(self, turn: LoopTurn, transport: asyncio.Transport) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self._turn, self._transport = turn, transport
        self._receive_buffer = self.received = StrictReceiveBuffer()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event of the client."""
        if self._transport.is_closing():
            return h11.NEED_DATA
        is_chunked = self.their_state is h11.SEND_BODY and isinstance(self._reader, ChunkedReader)
        if self.their_state is h11.IDLE:
            self.is_body_wanted = False
        elif is_chunked and not self.is_body_wanted:
            return h11.PAUSED
        if is_chunked or self.their_state is h11.IDLE:
            is_spent = min(self.lines_left, self._turn.lines_left) <= 0
            self.is_behind = is_spent and len(self.received) > 0
            if self.is_behind:
                return h11.PAUSED
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._is_refused = False
            self._spend_lines(HEAD_LINES + len(event.headers))
        elif isinstance(event, h11.EndOfMessage):
            self._spend_lines(len(event.headers))
        elif is_chunked and isinstance(event, h11.Data):
            self._spend_lines(1)
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Bytes of an event of the answer."""
        if isinstance(event, h11.Response):
            # What comes behind the rest of a body may be sent by who has read this answer.
            was_sent_ahead = self.their_state is h11.DONE and len(self.received) > 0
            self._is_refused = 400 <= event.status_code < 500 and was_sent_ahead
        return super().send_with_data_passthrough(event)

    def start_next_cycle(self) -> None:
        """Go on to the next request; not where it was sent before the one before it was refused."""
        super().start_next_cycle()
        if self._is_refused:
            self._transport.close()

    def _spend_lines(self, lines: int) -> None:
        self.lines_left -= lines
        self._turn.spend_lines(lines)


class _PullingFlow(FlowControl):
    """Has the body parsed when reading goes on: uvicorn has it go on as the application asks, and after the answer."""

    def __init__(self, protocol: "BoundedProtocol", connection: _PulledConnection) -> None:
        super().__init__(protocol.transport)
        self._protocol, self._connection = protocol, connection

    def resume_reading(self) -> None:
        """Read on, once all that was read is parsed."""
        if not self._connection.is_behind:
            super().resume_reading()
        self._protocol.pull_body()


@dataclass(slots=True)
class ConnectionBounds:
    """Bounds shared by all connections of one server. waiting: connections without a complete request."""

    head_timeout_s: float
    write_timeout_s: float
    max_connections: int
    waiting: OrderedDict["BoundedProtocol", None] = field(default_factory=OrderedDict)
    turn: LoopTurn = field(default_factory=LoopTurn)


def connections_bound(wanted: int) -> int:
    """The wanted number, or as many as the process may open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - RESERVED_FILES))


def bounded_protocol(sockets: ConnectionBounds) -> type[H11Protocol]:
    """The protocol class for uvicorn, which makes one for each connection."""
    return type("Bounded", (BoundedProtocol,), {"sockets": sockets})


class BoundedProtocol(H11Protocol):
    """One connection."""

    sockets: ConnectionBounds
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _bytes_came = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection; a silent one is the first to go when there are too many."""
        self.conn = self._pulled = _PulledConnection(self.sockets.turn, transport)
        super().connection_made(transport)
        self.flow = _PullingFlow(self, self._pulled)
        self._await_head()
        if len(self.connections) <= self.sockets.max_connections:
            return
        # Whoever means to ask does it within milliseconds: the one that waits longest is the likeliest to be idle.
        victim, _ = self.sockets.waiting.popitem(last=False)
        log.warning("connection_dropped", reason="too many connections", connections=len(self.connections))
        if victim is not self:
            # Out of both sets now: it is told of its end in the next turn of the loop, and more may come in this one.
            self.connections.discard(victim)
            victim.transport.abort()
            return
        detail = "this replica holds as many connections as it may"
        self._send_problem(
            503, "busy", "Too many connections", detail, "reconnect in a moment; another replica may answer"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, on either side."""
        self._request_came()
        self._end_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, of a body, or unexpected ones."""
        self._bytes_came = True
        self._pulled.lines_left = MAX_LINES_AT_ONCE
        super().data_received(data)
        self._update_head_deadline()

    def handle_events(self) -> None:
        """Take what may be parsed now."""
        super().handle_events()
        if self._pulled.is_behind:
            self.sockets.turn.line_up(self)

    def pull_body(self) -> None:
        """Parse what there is of a body that nobody wanted until now."""
        if self._pulled.their_state is h11.SEND_BODY and not self._pulled.is_body_wanted:
            self._pulled.is_body_wanted = True
            self.parse_on()

    def parse_on(self) -> None:
        """Parse more of what was read; read on when that was all of it."""
        if self.transport.is_closing():
            return
        self._pulled.lines_left = MAX_LINES_AT_ONCE
        self.handle_events()
        is_body = self._pulled.their_state is h11.SEND_BODY and self._pulled.is_body_wanted
        if self._pulled.their_state is h11.IDLE or (is_body and len(self.cycle.body) <= HIGH_WATER_LIMIT):
            self.flow.resume_reading()
        self._update_head_deadline()

    def on_response_complete(self) -> None:
        """The answer is sent; the next request may follow."""
        self._pulled.received.allow_chunks(MAX_CHUNKS_AFTER_ANSWER)
        super().on_response_complete()
        self._bytes_came = False
        self._update_head_deadline()

    def pause_writing(self) -> None:
        """The peer does not read the answer."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.sockets.write_timeout_s, self._on_write_timeout)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._end_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP get problem details, as every other error does."""
        headers = f"at most {MAX_HEADER_LINES} headers of together {MAX_HEADER_BYTES} bytes"
        hint = f"send HTTP/1.1 with {headers}, and a body in chunks of {LEAST_CHUNK_BYTES} bytes or more"
        self._send_problem(400, "not_http", "This is not an HTTP request", self._pulled.received.objection or msg, hint)

    def _update_head_deadline(self) -> None:
        """Run the head's deadline unless a request is being answered."""
        is_in_line = self._pulled.is_behind and not self.transport.is_closing()
        if is_in_line or (self.cycle is not None and not self.cycle.response_complete):
            self._request_came()
        elif self._bytes_came or self.cycle is None or self.transport.is_closing():
            self._await_head()
        else:
            self.sockets.waiting[self] = None  # Idle between two requests: uvicorn's keep-alive time bounds it.

    def _await_head(self) -> None:
        self.sockets.waiting.setdefault(self)
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.sockets.head_timeout_s, self._on_head_timeout)

    def _request_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self.sockets.waiting.pop(self, None)

    def _end_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_head_timeout(self) -> None:
        log.info("slow_client_dropped", phase="head", client=str(self.client), after_s=self.sockets.head_timeout_s)
        if self._bytes_came and self.cycle is None and not self.transport.is_closing():
            detail = f"its headers were not complete within {self.sockets.head_timeout_s:g} s"
            hint = "send all headers of a request at once"
            self._send_problem(408, "too_slow", "The request arrived too slowly", detail, hint)
            return
        # Silent, sending on after its answer, or not taking the end: nothing that is said now would be read.
        self.transport.abort()

    def _on_write_timeout(self) -> None:
        log.info("slow_client_dropped", phase="answer", client=str(self.client), after_s=self.sockets.write_timeout_s)
        self.transport.abort()

    def _send_problem(self, status: int, code: str, title: str, detail: str, hint: str) -> None:
        """Send an answer without a request, and close."""
        body = json.dumps(
            {"type": TYPE_PREFIX + code, "title": title, "status": status, "code": code, "detail": detail, "hint": hint}
        ).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
