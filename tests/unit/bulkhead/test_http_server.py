"""The HTTP server before and beside its application: heads, chunked bodies, and what is parsed for nobody."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import h11
import pytest

from bulkhead.http_server import connections
from bulkhead.http_server.connections import MAX_HEADER_BYTES, MAX_HEADER_LINES, StrictReceiveBuffer
from bulkhead.http_server.server import HttpServer

SETTINGS = SimpleNamespace(
    http_host="127.0.0.1",
    http_port=0,
    http_file=None,
    max_connections=10,
    head_timeout_s=5.0,
    write_timeout_s=5.0,
    drain_timeout_s=1.0,
)
PATIENCE_S = 20.0
SHORT_HEAD_S = 0.3
POST = b"POST /read HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
UNREAD = POST.replace(b"/read", b"/unread")
TINY = b"1\r\nx\r\n"


async def answer_length(scope, receive, send):
    """The application: it tells the length of the body of /read, of /bounded as far as 64 KiB, and reads no other;
    /refused is not found; /slow takes longer than a head may."""
    length, more, most = 0, scope["path"] in ("/read", "/bounded"), 65_536 if scope["path"] == "/bounded" else 2**40
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SHORT_HEAD_S)
    while more and length <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    body = b"%d;" % length
    status = 404 if scope["path"] == "/refused" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def listening(**changes):
    server = HttpServer(answer_length, SimpleNamespace(**vars(SETTINGS) | changes), "the test")
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield server.port
    finally:
        await server.stop()


@asynccontextmanager
async def connected():
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def exchange_at(port, sent, end=b";"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await reader.readuntil(end)
    finally:
        writer.transport.abort()


async def exchange(sent, end=b";"):
    """What the server answers to some bytes."""
    async with listening() as port:
        return await exchange_at(port, sent, end)


def chunked(payload, size):
    pieces = (payload[start : start + size] for start in range(0, len(payload), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"a:\r\n" * (MAX_HEADER_LINES - 1), 200),
        (b"a:\r\n" * MAX_HEADER_LINES, 400),
        (b"a:\r\n" * 15_000, 400),
        (b"a: " + b"b" * (MAX_HEADER_BYTES - 100) + b"\r\n", 200),
        (b"a: " + b"b" * MAX_HEADER_BYTES + b"\r\n", 400),
    ],
    ids=["lines", "one-line-more", "thousands-of-lines", "bytes", "more-bytes"],
)
async def test_a_head_has_few_lines_and_bytes(head, status):
    answer = await exchange(b"GET / HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n", b"}" if status == 400 else b";")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    if status == 400:
        assert b"the head is too large" in answer and b"at most 100 headers" in answer


async def test_trailers_are_as_few():
    answer = await exchange(POST + b"0\r\n" + b"a:\r\n" * (MAX_HEADER_LINES + 2) + b"\r\n", b"}")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("size", "payload_bytes", "is_taken"),
    [(1, 1_000, True), (260, 700_000, True), (100_000, 1_000_000, True), (1, 2_000, False), (200, 1_200_000, False)],
)
async def test_chunks_are_large_on_average(size, payload_bytes, is_taken):
    sent = POST + chunked(b"x" * payload_bytes, size)
    if is_taken:
        assert (await exchange(sent)).endswith(b"\r\n\r\n%d;" % payload_bytes)
    else:
        answer = await exchange(sent, b"}")
        assert answer.startswith(b"HTTP/1.1 400 ") and b"less than 256 bytes on average" in answer


@pytest.fixture
def parsed(monkeypatch):
    """One entry for each chunk that is looked for."""
    chunks = []
    extract_next_line = StrictReceiveBuffer.maybe_extract_next_line

    def extract_and_count(self):
        chunks.append(1)
        return extract_next_line(self)

    monkeypatch.setattr(StrictReceiveBuffer, "maybe_extract_next_line", extract_and_count)
    return chunks


@pytest.mark.parametrize("before", [b"", UNREAD + chunked(b"x" * 300, 100)], ids=["first", "pipelined"])
async def test_nothing_of_a_body_that_nobody_wants_is_parsed(parsed, before):
    async with connected() as (reader, writer):
        writer.write(before + UNREAD + TINY * 30_000)
        for _ in range(2 if before else 1):
            assert (await reader.readuntil(b";")).startswith(b"HTTP/1.1 200 ")
        # It does not wait for an end that may never come.
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
    assert len(parsed) <= 2 * connections.MAX_CHUNKS_AFTER_ANSWER


async def test_one_turn_of_the_loop_parses_few_chunks_of_all_connections(parsed):
    most = 0

    async def watch_turns():
        nonlocal most
        while True:
            before = len(parsed)
            await asyncio.sleep(0)
            most = max(most, len(parsed) - before)

    watching = asyncio.create_task(watch_turns())
    async with listening() as port:
        sent = POST + chunked(b"x" * 300_000, 300)
        await asyncio.gather(*(exchange_at(port, sent) for _ in range(8)))
    watching.cancel()
    assert len(parsed) > 8_000 and most <= 2 * connections.MAX_LINES_PER_TURN


async def test_a_connection_goes_on_after_a_chunked_body():
    async with connected() as (reader, writer):
        for head, length in ((UNREAD, 0), (POST, 300), (UNREAD, 0), (POST, 300)):
            writer.write(head + chunked(b"x" * 300, 100))
            assert (await reader.readuntil(b";")).endswith(b"\r\n\r\n%d;" % length)
        writer.write((UNREAD + chunked(b"x" * 300_000, 9_000) + POST + chunked(b"x" * 300_000, 9_000)) * 2)
        for length in (0, 300_000) * 2:
            assert (await reader.readuntil(b";")).endswith(b"\r\n\r\n%d;" % length)


async def test_one_turn_of_the_loop_parses_few_heads_of_all_connections(monkeypatch):
    heads, most = [], 0
    next_event = h11.Connection.next_event

    def count_heads(self):
        event = next_event(self)
        heads.extend([event] if isinstance(event, h11.Request) else [])
        return event

    monkeypatch.setattr(h11.Connection, "next_event", count_heads)

    async def watch_turns():
        nonlocal most
        while True:
            before = len(heads)
            await asyncio.sleep(0)
            most = max(most, len(heads) - before)

    async with listening() as port:
        connections_made = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SETTINGS.max_connections)]
        watching = asyncio.create_task(watch_turns())
        head = b"GET /unread HTTP/1.1\r\n" + b"h:\r\n" * 90 + b"Host: h\r\n\r\n"
        for _, writer in connections_made:
            writer.write(head * 5)
        for reader, writer in connections_made:
            for _ in range(5):
                assert (await reader.readuntil(b";")).startswith(b"HTTP/1.1 200 ")
            writer.transport.abort()
        watching.cancel()
    assert len(heads) == 50 and most <= 4


async def test_a_connection_ends_where_more_was_sent_behind_a_request_that_is_refused():
    async with connected() as (reader, writer):
        writer.write(b"GET /refused HTTP/1.1\r\nHost: h\r\n\r\n" * 50)
        assert (await reader.read(65_536)).count(b"HTTP/1.1 ") == 1
        assert await reader.read(65_536) == b""
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /refused HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readuntil(b";")).startswith(b"HTTP/1.1 404 ")


async def test_a_connection_that_closes_with_a_body_in_line_holds_nobody_up():
    async with listening() as port:
        head = POST.replace(b"/read", b"/bounded").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert b" 200 OK" in await exchange_at(port, head + b"100\r\n%s\r\n" % (b"a" * 256) * 2_000)
        assert b"0;" in await exchange_at(port, b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")


async def test_an_answer_may_take_longer_than_a_head_that_waited_in_line():
    async with listening(head_timeout_s=SHORT_HEAD_S) as port:
        head = b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"
        answers = await asyncio.gather(*(exchange_at(port, head) for _ in range(8)))
    assert all(answer.endswith(b"0;") for answer in answers)
