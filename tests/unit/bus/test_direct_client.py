"""The shorter way writes and reads what nats-py's own would, and waits where nats-py waits."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats import errors
from nats.aio.client import Client

from bulkhead.bus.jetstream_client import FRAME, DirectClient, header_frame, read_headers

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
def test_a_frame_is_byte_for_byte_what_nats_py_writes(headers: dict[str, str]) -> None:
    assert header_frame(headers) == _theirs(headers)


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_whatever_comes_is_read_as_nats_py_reads_it(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    theirs = {key: value for key, value in Client._parse_header_lines(raw).items() if key}
    ours = read_headers(FRAME + b"\r\n" + raw)
    # A key of no letters at all and bytes that are no UTF-8 within a key are nothing that anybody asks for.
    assert {key: value for key, value in ours.items() if key.isprintable()} == {
        key: value for key, value in theirs.items() if key.isprintable()
    }


@pytest.mark.parametrize("key", ["two words", "colon:", "line\r\nbreak", "ä"])
def test_a_key_that_would_break_the_frame_never_leaves(key: str) -> None:
    with pytest.raises(errors.BadHeaderError):
        header_frame({key: "value"})


def test_a_value_cannot_add_a_header() -> None:
    assert header_frame({"a": "1\r\nNats-Msg-Id: other"}) == FRAME + b"\r\na: 1  Nats-Msg-Id: other\r\n\r\n"


async def test_what_one_turn_says_is_one_write_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    client, socket = _connected()
    client.write("a", b"1", "", b"")
    client.write("b", b"22", "reply", header_frame({"k": "v"}))
    assert socket.written == []
    await asyncio.sleep(0)
    frame = header_frame({"k": "v"})
    assert socket.written == [
        b"PUB a  1\r\n1\r\n" + b"HPUB b reply %d %d\r\n" % (len(frame), len(frame) + 2) + frame + b"22\r\n"
    ]
    assert client._pending == [] and client._pending_data_size == 0


async def test_without_a_connection_it_waits_for_one_up_to_the_bound() -> None:
    client, socket = _connected()
    client._status = Client.RECONNECTING
    client._max_pending_size = 20
    client.write("a", b"1", "", b"")
    await asyncio.sleep(0)
    assert socket.written == [] and client._pending == [b"PUB a  1\r\n1\r\n"]
    with pytest.raises(errors.OutboundBufferLimitError):
        client.write("a", b"1" * 20, "", b"")


async def test_a_slow_socket_is_left_to_the_flusher_that_waits_for_it() -> None:
    client, socket = _connected()
    socket.unsent = 10**9
    client.write("a", b"1", "", b"")
    await asyncio.sleep(0)
    assert socket.written == [] and client._flush_queue is not None and client._flush_queue.qsize() == 1


async def test_a_closed_client_says_so() -> None:
    client, _ = _connected()
    client._status = Client.CLOSED
    with pytest.raises(errors.ConnectionClosedError):
        client.write("a", b"1", "", b"")


class _Socket:
    """Stands for the transport of a connection: keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.transport = self
        self._io_writer = self

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent


def _connected() -> tuple[DirectClient, _Socket]:
    client, socket = DirectClient(), _Socket()
    client._status = Client.CONNECTED
    client._transport = socket  # type: ignore[assignment]
    client._max_pending_size = 1_000
    client._flush_queue = asyncio.Queue()
    return client, socket
