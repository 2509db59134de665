"""The shorter way writes and reads what nats-py's own would, and waits where nats-py waits."""

import asyncio
import socket
from urllib.parse import urlparse

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st
from nats import errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.protocol.parser import Parser

from bulkhead.bus import wire
from bulkhead.bus.jetstream.client import FRAME, FRAMES_A_WRITE, DirectClient, SocketMessage, header_frame, read_headers
from bulkhead.bus.jetstream.dns_cache import NamedTransport

KEYS = st.text(alphabet="abcXYZ-_09!", min_size=1, max_size=12)
VALUES = st.text(max_size=40)


def _theirs(headers: dict[str, str]) -> bytes:
    """The frame that nats-py writes: its own code, with its socket taken away."""
    client = Client()
    written: list[bytes] = []

    async def keep(command: bytes, priority: bool = False) -> None:
        written.append(command)

    client._send_command = keep  # type: ignore[method-assign]
    asyncio.run(client._send_publish("s", "r", b"body", 4, headers))
    head, _, rest = written[0].partition(b"\r\n")
    return rest[: int(head.split()[3])]


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=6))
@pytest.mark.slow
def test_a_frame_is_byte_for_byte_what_nats_py_writes(headers: dict[str, str]) -> None:
    assert header_frame(headers) == _theirs(headers)


@example([b"\x1cNats-Msg-Id: 1"])
@given(st.lists(st.binary(max_size=30), max_size=6))
def test_whatever_comes_is_read_as_nats_py_reads_it(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    theirs = {key: value for key, value in Client._parse_header_lines(raw).items() if key}
    ours = read_headers(FRAME + b"\r\n" + raw)
    # A key of no letters at all and bytes that are no UTF-8 within a key are nothing that anybody asks for.
    assert {key: value for key, value in ours.items() if key.isprintable()} == {
        key: value for key, value in theirs.items() if key.isprintable()
    }


@pytest.mark.parametrize(
    ("frame", "headers"),
    [
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", {wire.STATUS: "404", wire.DESCRIPTION: "Message Not Found"}),
        (b"NATS/1.0 503\r\n\r\n", {wire.STATUS: "503"}),
        (
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n",
            {wire.STATUS: "408", wire.DESCRIPTION: "Request Timeout", "Nats-Pending-Messages": "3"},
        ),
        (b"NATS/1.0 no\r\n\r\n", {}),
    ],
)
def test_a_status_is_read_with_its_text_and_headers(frame: bytes, headers: dict[str, str]) -> None:
    assert read_headers(frame) == headers


@pytest.mark.parametrize("key", ["two words", "colon:", "line\r\nbreak", "ä"])
def test_a_key_that_would_break_the_frame_never_leaves(key: str) -> None:
    with pytest.raises(errors.BadHeaderError):
        header_frame({key: "value"})


def test_a_value_cannot_add_a_header() -> None:
    assert header_frame({"a": "1\r\nNats-Msg-Id: other"}) == FRAME + b"\r\na: 1  Nats-Msg-Id: other\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        # The broker heeds the first.
        [f"{wire.EXPECTED_ON}: mine", f"{wire.EXPECTED_ON}: theirs"],
        [f"{wire.EXPECTED_LAST_ON_SUBJECT}: 7", f"{wire.EXPECTED_LAST_ON_SUBJECT}: 0"],
        # It knows a name by its bytes, up to the colon.
        [f" {wire.EXPECTED_ON}: theirs"],
        [f"{wire.EXPECTED_LAST_ON_SUBJECT} : 0"],
    ],
)
def test_what_the_broker_did_not_heed_proves_nothing(lines: list[str]) -> None:
    whole = {wire.EXPECTED_LAST_ON_SUBJECT: "0", wire.EXPECTED_ON: "theirs"}
    named = {line.partition(":")[0].strip() for line in lines}
    kept = [f"{name}: {value}" for name, value in whole.items() if name not in named]
    raw = "\r\n".join(("NATS/1.0", *lines, *kept, "", "")).encode()
    assert not wire.was_first(read_headers(raw), "theirs")
    assert wire.was_first(read_headers(header_frame(whole)), "theirs")


async def test_the_first_of_a_turn_is_written_at_once_and_the_others_together() -> None:
    client, line = _connected()
    client.write_publish("a", b"1", "", b"")
    assert line.written == [b"PUB a  1\r\n1\r\n"]
    client.write_publish("b", b"22", "reply", header_frame({"k": "v"}))
    client.write_publish("c", b"3", "", b"")
    assert len(line.written) == 1
    await asyncio.sleep(0)
    frame = header_frame({"k": "v"})
    assert line.written[1:] == [
        b"HPUB b reply %d %d\r\n" % (len(frame), len(frame) + 2) + frame + b"22\r\nPUB c  1\r\n3\r\n"
    ]
    client.write_publish("d", b"4", "", b"")
    assert line.written[2:] == [b"PUB d  1\r\n4\r\n"]
    assert client._pending == [] and client._pending_data_size == 0


async def test_who_says_much_in_a_turn_is_heard_before_it_has_said_all() -> None:
    client, line = _connected()
    frames = [b"PUB a  3\r\n%03d\r\n" % number for number in range(2 * FRAMES_A_WRITE + 2)]
    for number in range(len(frames)):
        client.write_publish("a", b"%03d" % number, "", b"")
    assert [one.count(b"PUB") for one in line.written] == [1, FRAMES_A_WRITE, FRAMES_A_WRITE]
    await asyncio.sleep(0)
    assert b"".join(line.written) == b"".join(frames)
    assert client._pending == [] and client._pending_data_size == 0


def test_on_the_loop_of_the_services_too_it_is_heard_within_the_turn() -> None:
    """Whether a transport writes at once what it is given is its own affair."""
    uvloop.run(_heard_within_the_turn())


async def _heard_within_the_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client, _ = _connected()
        transport = NamedTransport(client.lookup)
        await transport.connect(urlparse(f"nats://127.0.0.1:{listening.getsockname()[1]}"), DEFAULT_BUFFER_SIZE, 10)
        client._transport = transport
        with listening.accept()[0] as peer:
            peer.settimeout(5)  # Everything below is one turn: nobody else can write meanwhile.
            client.write_publish("first", b"", "", b"")
            assert peer.recv(100) == b"PUB first  0\r\n\r\n"
            frames = [b"PUB a  2\r\n%02d\r\n" % number for number in range(FRAMES_A_WRITE + 1)]
            for number in range(len(frames)):
                client.write_publish("a", b"%02d" % number, "", b"")
            together = b"".join(frames[:FRAMES_A_WRITE])
            assert peer.recv(len(together), socket.MSG_WAITALL) == together
        transport.close()


async def test_a_turn_that_says_much_to_a_slow_socket_leaves_it_to_the_flusher() -> None:
    client, line = _connected()
    line.unsent = 10**9
    for _ in range(3 * FRAMES_A_WRITE):
        client.write_publish("a", b"1", "", b"")
    await asyncio.sleep(0)
    assert line.written == [] and client._flush_queue is not None and client._flush_queue.qsize() == 1
    assert len(client._pending) == 3 * FRAMES_A_WRITE


async def test_it_does_not_overtake_what_nats_py_has_yet_to_write() -> None:
    client, line = _connected()
    await client._send_command(b"SUB _INBOX.x.*  1\r\n")
    client.write_publish("ask", b"1", "_INBOX.x.1", b"")
    client.write_publish("ask", b"2", "_INBOX.x.2", b"")
    assert line.written == []
    await asyncio.sleep(0)
    assert line.written == [b"SUB _INBOX.x.*  1\r\nPUB ask _INBOX.x.1 1\r\n1\r\nPUB ask _INBOX.x.2 1\r\n2\r\n"]
    assert client._pending == [] and client._pending_data_size == 0


async def test_what_can_wait_leaves_with_the_next_frame() -> None:
    client, line = _connected()
    client.write_publish("ack", b"1", "", b"", can_wait=True)
    client.write_publish("ack", b"2", "", b"", can_wait=True)
    await asyncio.sleep(0)
    assert line.written == []
    client.write_publish("a", b"3", "", b"")
    assert line.written == [b"PUB ack  1\r\n1\r\nPUB ack  1\r\n2\r\nPUB a  1\r\n3\r\n"]
    assert client._pending == [] and client._pending_data_size == 0


async def test_what_can_wait_does_not_wait_for_ever_nor_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.bus.jetstream.client.ACK_HOLD_S", 0.01)
    client, line = _connected()
    client.write_publish("ack", b"1", "", b"", can_wait=True)
    await asyncio.sleep(0.05)
    assert line.written == [b"PUB ack  1\r\n1\r\n"]
    for _ in range(FRAMES_A_WRITE + 1):
        client.write_publish("ack", b"1", "", b"", can_wait=True)
    assert [frames.count(b"PUB") for frames in line.written[1:]] == [FRAMES_A_WRITE + 1]


async def test_what_can_wait_is_written_when_nats_py_writes_before() -> None:
    client, line = _connected()
    client.write_publish("ack", b"1", "", b"", can_wait=True)
    client._pending, client._pending_data_size = [], 0  # As nats-py's flusher leaves it.
    client.write_publish("a", b"2", "", b"")
    client.write_publish("b", b"3", "", b"", can_wait=True)
    await asyncio.sleep(0)
    assert line.written == [b"PUB a  1\r\n2\r\n", b"PUB b  1\r\n3\r\n"]


async def test_without_a_connection_it_waits_for_one_up_to_the_bound() -> None:
    client, line = _connected()
    client._status = Client.RECONNECTING
    client._max_pending_size = 20
    client.write_publish("a", b"1", "", b"")
    await asyncio.sleep(0)
    assert line.written == [] and client._pending == [b"PUB a  1\r\n1\r\n"]
    with pytest.raises(errors.OutboundBufferLimitError):
        client.write_publish("a", b"1" * 20, "", b"")


async def test_a_slow_socket_is_left_to_the_flusher_that_waits_for_it() -> None:
    client, line = _connected()
    line.unsent = 10**9
    client.write_publish("a", b"1", "", b"")
    await asyncio.sleep(0)
    assert line.written == [] and client._flush_queue is not None and client._flush_queue.qsize() == 1


async def test_a_closed_client_says_so() -> None:
    client, _ = _connected()
    client._status = Client.CLOSED
    with pytest.raises(errors.ConnectionClosedError):
        client.write_publish("a", b"1", "", b"")


FRAMES = st.one_of(
    st.tuples(st.just("msg"), st.integers(1, 2), st.booleans(), st.binary(max_size=40)),
    st.tuples(st.just("hmsg"), st.integers(1, 2), st.booleans(), st.binary(max_size=40)),
    st.tuples(st.sampled_from(["status", "ping", "ok", "nobody"]), st.just(1), st.just(False), st.just(b"")),
)


def _frame(kind: str, sid: int, replies: bool, body: bytes) -> bytes:
    """What the broker writes; the body stands in the message's own name too, to be compared."""
    name = b"s.%s %d" % (body.hex().encode() or b"none", sid) + (b" re.ply" if replies else b"")
    headers = {"hmsg": header_frame({"k": "v"}), "status": FRAME + b" 408 Timeout\r\n\r\n"}.get(kind, b"")
    if kind in ("ping", "ok"):
        return {"ping": b"PING\r\n", "ok": b"+OK\r\n"}[kind]
    if kind == "nobody":
        return b"MSG s.x 77 2\r\nhm\r\n"
    if headers:
        return b"HMSG %s %d %d\r\n" % (name, len(headers), len(headers) + len(body)) + headers + body + b"\r\n"
    return b"MSG %s %d\r\n" % (name, len(body)) + body + b"\r\n"


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 60), max_size=30))
def test_however_the_bytes_come_each_listener_hears_the_same_in_order(
    frames: list[tuple[str, int, bool, bytes]], cuts: list[int]
) -> None:
    heard = asyncio.run(_heard(b"".join(_frame(*one) for one in frames), cuts))
    whole = [one for one in frames if one[0] in ("msg", "hmsg")]
    statuses = [one for one in heard if "Status" in (one.headers or {})]
    assert len(statuses) == sum(one[0] == "status" for one in frames)
    assert [(m.data, m.reply, m.headers) for m in heard if m not in statuses] == [
        (body, "re.ply" if replies else "", {"k": "v"} if kind == "hmsg" else None) for kind, _, replies, body in whole
    ]


async def test_a_subject_that_is_no_text_does_not_end_the_reader() -> None:
    heard = await _heard(b"MSG s.\xff\xfe 1 1\r\na\r\nMSG s.\xff 1 1\r\nb\r\n", [3])
    assert [one.data for one in heard] == [b"a", b"b"]


@pytest.mark.parametrize("cut", range(1, 33))
async def test_a_body_that_is_read_on_its_own_is_no_message(cut: int) -> None:
    body = b"MSG s.y 2 1\r\nz\r\n"
    heard = await _heard(b"MSG s.xy 1 %d\r\n%s\r\n" % (len(body), body), [cut])
    assert [(one.subject, one.data) for one in heard] == [("s.xy", body)]


async def _heard(stream: bytes, cuts: list[int]) -> list[SocketMessage]:
    """Let a client read these bytes in pieces of so many; what the listeners of 1 and 2 heard."""
    client, line = _connected()
    heard: list[SocketMessage] = []
    for sid in (1, 2):
        await client.listen("s.>", heard.append)
        assert sid in client._takers
    reading = asyncio.create_task(client._read_loop())
    await asyncio.sleep(0)
    while stream:
        size = cuts.pop() if cuts else len(stream)
        piece, stream = stream[:size], stream[size:]
        line._io_reader.feed_data(piece)
        if size % 2:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not reading.done(), "the reader ended"
    waiting = [reading, *(one._wait_for_msgs_task for one in client._subs.values())]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return heard


class _Socket:
    """Stands for the transport of a connection: keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.transport = self
        self._io_writer = self
        self._io_reader = asyncio.StreamReader()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    async def read(self, size: int) -> bytes:
        return await self._io_reader.read(size)

    async def drain(self) -> None:
        pass

    def at_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent


def _connected() -> tuple[DirectClient, _Socket]:
    client, line = DirectClient(), _Socket()
    client._status = Client.CONNECTED
    client._transport = line  # type: ignore[assignment]
    client._max_pending_size = 1_000
    client._flush_queue = asyncio.Queue()
    client._ps = Parser(client)
    return client, line


async def _reconnecting(
    monkeypatch: pytest.MonkeyPatch, *ends: Exception | str | None
) -> tuple[DirectClient, list[str]]:
    """A client that has lost its connection; nats-py's attempts end as `ends` says, one after the other."""
    client, tried = DirectClient(), list[str]()
    left, client.options = list(ends), {"reconnect_time_wait": 0.001}
    client._status = Client.RECONNECTING

    async def told(error: Exception) -> None:
        tried.append(type(error).__name__)

    async def attempt(self: Client) -> None:
        end = left.pop(0)
        if isinstance(end, Exception):
            raise end
        tried.append(end or "gave up")
        if end == "connected":
            self._status = Client.CONNECTED

    client._error_cb = told
    monkeypatch.setattr(Client, "_attempt_reconnect", attempt)
    return client, tried


async def test_what_ends_nats_pys_attempts_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS stream that broke off in its handshake, a reader that was left behind: the service was cut off for good."""
    client, tried = await _reconnecting(monkeypatch, RuntimeError("two readers"), None, "connected")
    await asyncio.wait_for(client._attempt_reconnect(), 5)
    assert tried == ["RuntimeError", "gave up", "connected"]


async def test_whoever_is_told_to_end_tries_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    client, tried = await _reconnecting(monkeypatch, None)
    task = asyncio.ensure_future(client._attempt_reconnect())

    async def cut_off(self: Client) -> None:
        task.cancel()
        tried.append("gave up")

    monkeypatch.setattr(Client, "_attempt_reconnect", cut_off)
    await asyncio.wait({task}, timeout=5)
    assert task.done() and tried == ["gave up"]
