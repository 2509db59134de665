"""Clients that hold on to what they have: heads and bodies by the byte, answers not taken, streams without end."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import httpx
import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.task import TaskRequested
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN, OPERATOR, _row, make_mesh, running, until

FAST = {"head_timeout_s": 0.3, "body_timeout_s": 0.3, "write_timeout_s": 0.3}
PATIENCE_S = 8.0
HEAD = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n"
POST = (
    b"POST /v1/tasks HTTP/1.1\r\nHost: gateway\r\nIdempotency-Key: k\r\nContent-Length: 90000\r\n"
    + f"Authorization: Bearer {OPERATOR}\r\n\r\n".encode()
)


@pytest.fixture
def mesh(tmp_path):
    return make_mesh(tmp_path)


class Dripping:
    """Sends `drip` every 50 ms until the gateway ends the connection; keeps what was answered."""

    def __init__(self, reader, writer, drip, began):
        self.got, self.writer, self._drip = b"", writer, drip
        self._reader, self._began = reader, began

    async def until_dropped(self):
        """How long it took since the client connected; fails when the gateway never ends it."""
        reading = asyncio.create_task(self._read())
        async with asyncio.timeout(PATIENCE_S):
            while not reading.done():
                try:
                    self.writer.write(self._drip)
                except OSError:
                    break
                await asyncio.wait({reading}, timeout=0.05)
            await reading
        return asyncio.get_running_loop().time() - self._began

    async def _read(self):
        try:
            while data := await self._reader.read(65_536):
                self.got += data
        except ConnectionError:
            pass

    @property
    def problem(self):
        return json.loads(self.got.partition(b"\r\n\r\n")[2])


@asynccontextmanager
async def dripping(gateway, begin, drip):
    began = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(begin)
    try:
        yield Dripping(reader, writer, drip, began)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "begin, drip, status",
    [
        (HEAD, b"X-A: b\r\n", 408),
        (b"", b"G", 408),
        (b"", b"", None),
        (POST, b"{", 408),
        (HEAD + b"Content-Length: 90000\r\n\r\n", b"{", 200),
        (HEAD + b"\r\n", b"G", 200),
    ],
    ids=["head", "first-bytes", "silent", "body", "body-nobody-reads", "second-head"],
)
async def test_who_sends_by_the_byte_is_dropped_in_time(mesh, begin, drip, status):
    async with running(mesh, **FAST) as gateway, dripping(gateway, begin, drip) as client:
        took = await client.until_dropped()
        assert took >= 0.25
        if status is None:
            assert client.got == b""
            return
        assert client.got.startswith(f"HTTP/1.1 {status} ".encode()), client.got
        if status == 408:
            assert client.problem["code"] == "too_slow" and client.problem["hint"] and client.problem["status"] == 408
        assert not mesh.sent("gateway")


async def test_a_body_that_keeps_its_pace_may_take_longer_than_the_timeout(mesh):
    body = json.dumps({"objective": "x" * 900}).encode()
    head = POST.replace(b"90000", str(len(body)).encode())
    async with running(mesh, **FAST, body_min_bytes_per_s=500) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at in range(0, len(body), 100):
            writer.write(body[at : at + 100])
            await asyncio.sleep(0.06)  # The pace is what is tested.
        assert loop.time() - began > FAST["body_timeout_s"]
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 202 ")
        writer.close()


async def test_a_request_in_the_works_and_an_idle_connection_are_left_alone(mesh):
    async with (
        running(mesh, **FAST) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", headers=AUTH) as client,
    ):
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        assert (await client.get("/livez")).status_code == 200
        async with client.stream("GET", "/v1/tasks/pub_shop-t1/events") as stream:
            assert stream.status_code == 200
            await asyncio.sleep(3 * FAST["head_timeout_s"])  # Longer than every deadline; nothing is owed meanwhile.
            assert not stream.is_closed and gateway.http._caps._open.held == 1
        assert (await client.get("/livez")).status_code == 200


async def test_who_takes_nothing_of_its_answer_is_dropped(mesh):
    async with running(mesh, **FAST) as gateway:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", gateway.port))
            ask = b"GET /openapi.json HTTP/1.1\r\nHost: gateway\r\n\r\n"
            await loop.sock_sendall(client, ask * 2_000)
            server = gateway._server._server.server_state
            await until(lambda: server.connections, "connected")
            await until(lambda: not server.connections, "dropped")


async def test_too_many_connections_cost_the_one_that_is_silent_longest(mesh):
    async with running(mesh, max_connections=3) as gateway:
        open_ = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
        server = gateway._server._server.server_state
        await until(lambda: len(server.connections) == 3, "all are in")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            assert (await client.get("/livez")).status_code == 200
        async with asyncio.timeout(PATIENCE_S):
            assert await open_[0][0].read() == b"", "the first is gone"
        open_[1][1].write(HEAD + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert (await open_[1][0].readline()).startswith(b"HTTP/1.1 200 ")
        for _, writer in open_:
            writer.close()


async def test_a_burst_of_connections_leaves_no_more_than_are_allowed(mesh):
    async with running(mesh, max_connections=3) as gateway:
        # All are made before the loop turns once: it accepts them in one turn.
        burst = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(30)]
        connections = gateway._server._server.server_state.connections
        await until(lambda: len(connections) >= 3, "they are in")
        await asyncio.sleep(0)
        assert len(connections) == 3
        for one in burst[:-3]:
            one.settimeout(PATIENCE_S)
            try:
                assert await asyncio.to_thread(one.recv, 1) == b"", "who waited longest was let go"
            except ConnectionResetError:
                pass
        burst[-1].sendall(HEAD + b"\r\n")
        assert (await asyncio.to_thread(burst[-1].recv, 12)) == b"HTTP/1.1 200"
        for one in burst:
            one.close()


async def test_what_is_no_http_gets_a_problem(mesh):
    async with running(mesh) as gateway, dripping(gateway, b"\x16\x03\x01 hello\r\n\r\n", b"") as client:
        await client.until_dropped()
        assert client.got.startswith(b"HTTP/1.1 400 ") and client.problem["code"] == "not_http"
        assert client.problem["hint"]


@asynccontextmanager
async def streams(gateway, key, count, task="pub_shop-t1"):
    """Open event streams; the first piece of each has arrived."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{gateway.port}", headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S
    ) as client:
        requests = [client.build_request("GET", f"/v1/tasks/{task}/events") for _ in range(count)]
        answers = await asyncio.gather(*(client.send(one, stream=True) for one in requests))
        try:
            yield answers
        finally:
            for one in answers:
                await one.aclose()


async def test_streams_are_capped_for_a_person_and_given_back(mesh):
    async with running(mesh, max_streams_per_person=3) as gateway:
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        async with streams(gateway, OPERATOR, 12) as answers:
            # All at once: the check must not be passed by several before the first is counted.
            assert sorted(one.status_code for one in answers) == [200] * 3 + [429] * 9
            refused = next(one for one in answers if one.status_code == 429)
            problem = json.loads(await refused.aread())
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["retry-after"] and problem["code"] == "too_many_streams" and problem["limit"] == 3
            assert "close streams" in problem["hint"]
            async with streams(gateway, AUDITOR, 1) as other:
                assert other[0].status_code == 200, "another person of the tenant has places of their own"
        await until(lambda: not gateway.http._caps._open.held, "places are given back")
        async with streams(gateway, OPERATOR, 3) as answers:
            assert [one.status_code for one in answers] == [200] * 3


async def test_streams_are_capped_for_a_tenant(mesh):
    async with running(mesh, max_streams_per_tenant=2) as gateway:
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        async with streams(gateway, OPERATOR, 2), streams(gateway, AUDITOR, 1) as more:
            assert more[0].status_code == 429 and "your tenant" in json.loads(await more[0].aread())["detail"]
            async with streams(gateway, FOREIGN, 1) as other:
                assert other[0].status_code == 404, "another tenant's task is not there; no place is taken for it"


async def test_streams_are_capped_for_the_replica(mesh):
    async with running(mesh, max_streams=1) as gateway:
        await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-t1")
        async with streams(gateway, OPERATOR, 1), streams(gateway, AUDITOR, 1) as more:
            assert more[0].status_code == 503 and "another replica" in json.loads(await more[0].aread())["hint"]


@pytest.mark.parametrize(
    "cap, person, tenant, others",
    [
        ("max_body_bytes_held", 503, 503, 503),
        ("max_body_bytes_held_per_tenant", 429, 429, 202),
        ("max_body_bytes_held_per_person", 429, 202, 202),
    ],
)
async def test_nobody_takes_all_the_room_for_bodies(mesh, cap, person, tenant, others):
    most = bounds.MAX_BLOB_BYTES
    async with running(mesh, **{cap: most}) as gateway:
        rows = json.loads((mesh.folder / "keys.json").read_text())["keys"]
        rows.append(_row("bk_bob", "acme", "bob", "submitter"))
        (mesh.folder / "keys.json").write_text(json.dumps({"keys": rows}))
        head = POST.replace(b"/v1/tasks", b"/v1/documents?name=a.txt").replace(b"90000", str(most).encode())
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head + b"x" * (most - 1_000))
        bodies = gateway.http._bodies
        await until(lambda: bodies.bytes_held >= most - 1_000, "the first is being read")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            for key, status in ((OPERATOR, person), ("bk_bob", tenant), (FOREIGN, others)):
                answer = await client.post(
                    "/v1/tasks",
                    json={"objective": "y" * 2_000},
                    headers={"Idempotency-Key": "b", "Authorization": f"Bearer {key}"},
                )
                assert answer.status_code == status, (key, answer.text)
                if status == 429:
                    assert answer.json()["code"] == "too_many_bodies" and answer.headers["retry-after"]
        writer.transport.abort()
        await until(lambda: not bodies.bytes_held, "given back")


async def test_bodies_are_bounded_all_together(mesh):
    most = bounds.MAX_BLOB_BYTES
    async with running(mesh, max_body_bytes_held=most) as gateway:
        head = POST.replace(b"/v1/tasks", b"/v1/documents?name=a.txt").replace(b"90000", str(most).encode())
        piece = b"x" * (most - 1_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head + piece)
        bodies = gateway.http._bodies
        await until(lambda: bodies.bytes_held >= len(piece), "the first is being read")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", headers=AUTH) as client:
            answer = await client.post("/v1/tasks", headers={"Idempotency-Key": "b"}, json={"objective": "y" * 2_000})
            assert answer.status_code == 503 and "large bodies" in answer.json()["detail"]
            writer.transport.abort()
            await until(lambda: not bodies.bytes_held, "given back")
            again = await client.post("/v1/tasks", headers={"Idempotency-Key": "b"}, json={"objective": "y" * 2_000})
            assert again.status_code == 202
        del reader


async def raw_answer(gateway, sent):
    """Whatever the gateway says until it closes, or a first answer is whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    reading = asyncio.create_task(reader.readuntil(b"}"))
    try:
        for piece in sent:
            writer.write(piece)
            await asyncio.wait({reading}, timeout=0.005)
            if reading.done():
                break  # It closes, and takes no more.
        async with asyncio.timeout(PATIENCE_S):
            return await reading
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\nHost: g\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: g\n\n",
        b"GET /livez HTTP/1.1\r\nHost: g\nX-A: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\n",
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_lines_of_a_head_end_in_crlf_alone(mesh, head, bytewise):
    async with running(mesh) as gateway:
        answer = await raw_answer(gateway, [bytes([byte]) for byte in head] if bytewise else [head])
        if b"chunked" not in head:  # What comes after a request is read too late to change its answer.
            assert answer.startswith(b"HTTP/1.1 400 ") and b"not_http" in answer
        assert await raw_answer(gateway, [b"GET /livez HTTP/1.1\r\nHost: g\r\nX: a\r\n\r\n"])


async def test_no_browser_guesses_at_the_type_of_an_answer(mesh):
    async with running(mesh) as gateway:
        for path in ("/livez", "/v1/tasks", "/nowhere", "/login", "/openapi.json"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
                answer = await client.get(path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
