"""The key set over https, as the cluster serves it: by this CA alone, to this bearer alone, and not too often."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.identity import tls
from bulkhead_services.identity import key_set
from bulkhead_services.identity.key_set import KeySet, KeySetUnavailable
from bulkhead_services.identity.settings import Settings
from tests.integration.identity.world import public

KEYS = {"one": rsa.generate_private_key(65537, 2048), "two": ec.generate_private_key(ec.SECP256R1())}


class Server:
    """An https server that serves what `rows` holds to the bearer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.rows, self.asked = folder, free_port(), [public("one", KEYS["one"])], 0
        self.body: bytes | None = None

    async def __aenter__(self) -> "Server":
        tls.ensure_certificates(self.folder / "tls", ["127.0.0.1"])
        (self.folder / "bearer").write_text("good\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls" / tls.BROKER_FILE, self.folder / "tls" / tls.BROKER_KEY_FILE)
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.asked += 1
        good = "authorization: bearer good\r\n" in head
        body = self.body or json.dumps({"keys": self.rows}).encode()
        status = "200 OK" if good else "403 Forbidden"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    def settings(self, **changes) -> Settings:
        values = {
            "key_set_url": f"https://127.0.0.1:{self.port}/openid/v1/jwks",
            "key_set_ca_file": self.folder / "tls" / tls.CA_FILE,
            "key_set_bearer_file": self.folder / "bearer",
        }
        return Settings(token_issuer="x", **{**values, **changes})


async def test_it_is_fetched_by_the_ca_with_the_bearer(tmp_path):
    async with Server(tmp_path) as server:
        found = KeySet(server.settings())
        assert (await found.find_key("one")).key_id == "one" and found.key_count == 1 and not found.read_problem
        tls.ensure_certificates(tmp_path / "other", ["127.0.0.1"])
        (tmp_path / "wrong").write_text("wrong")
        for change in (
            {"key_set_ca_file": tmp_path / "other" / tls.CA_FILE},
            {"key_set_bearer_file": tmp_path / "wrong"},
        ):
            with pytest.raises(KeySetUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|403"):
                await KeySet(server.settings(**change)).find_key("one")


async def test_a_bearer_that_was_exchanged_is_read_again(tmp_path):
    async with Server(tmp_path) as server:
        (tmp_path / "bearer").write_text("old")
        found = KeySet(server.settings())
        await found.read_keys()
        assert found.key_count == 0 and "403" in found.read_problem
        (tmp_path / "bearer").write_text("good")
        await found.read_keys()
        assert found.key_count == 1 and not found.read_problem


async def test_unknown_keys_have_it_read_once_in_a_while_and_all_wait_for_one_answer(tmp_path, monkeypatch):
    async with Server(tmp_path) as server:
        found = KeySet(server.settings())
        await found.read_keys()
        assert [await found.find_key(f"n-{number}") for number in range(50)] == [None] * 50 and server.asked == 1
        server.rows = [public("two", KEYS["two"])]
        monkeypatch.setattr(key_set, "RETRY_S", 0.0)
        await asyncio.sleep(0.01)
        first = asyncio.create_task(found.find_key("two"))
        await asyncio.sleep(0)
        monkeypatch.setattr(key_set, "RETRY_S", 60.0)
        assert all(one is not None for one in await asyncio.gather(first, *(found.find_key("two") for _ in range(20))))
        assert server.asked == 2 and await found.find_key("one") is None


async def test_what_cannot_be_read_leaves_the_set_before(tmp_path, monkeypatch):
    monkeypatch.setattr(key_set, "RETRY_S", 0.0)
    monkeypatch.setattr(key_set, "MAX_AGE_S", 0.0)
    async with Server(tmp_path) as server:
        found = KeySet(server.settings())
        await found.read_keys()
        unfit = (b"{", b"[]", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [7]}', b"x" * (key_set.MAX_BYTES + 1))
        for body in unfit:
            server.body = body
            await found.read_keys()
            assert found.key_count == 1 and "the key set cannot be read" in found.read_problem, body[:20]
            assert await found.find_key("one") is not None


class Slow:
    """A server that sends one byte after the other, or waits for `go` before it sends what is there by then."""

    def __init__(self, *, drips: bool) -> None:
        self.drips, self.asked, self.port = drips, 0, free_port()
        self.rows = [public("one", KEYS["one"])]
        self.go = asyncio.Event()

    async def __aenter__(self) -> "Slow":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go.set()
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": self.rows}).encode()
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for byte in body if self.drips else b"":
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0.05)
            if not self.drips:
                await self.go.wait()
                writer.write(body)
        writer.close()

    @property
    def settings(self) -> Settings:
        return Settings(token_issuer="x", key_set_url=f"http://127.0.0.1:{self.port}/")


async def test_a_server_that_drips_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(key_set, "FETCH_TIMEOUT_S", 1.0)
    async with Slow(drips=True) as server:
        found = KeySet(server.settings)
        async with asyncio.timeout(10):
            with pytest.raises(KeySetUnavailable, match="not answered within 1 s"):
                await found.find_key("one")


async def test_it_is_not_asked_again_while_it_is_asked(monkeypatch):
    """Or each slow answer would add a connection, and an older one could come last."""
    monkeypatch.setattr(key_set, "RETRY_S", 0.0)
    async with Slow(drips=False) as server:
        found = KeySet(server.settings)
        waiting = []
        for number in range(10):
            waiting.append(asyncio.create_task(found.find_key("one") if number % 2 else found.read_keys()))
            await asyncio.sleep(0.02)
        assert server.asked == 1
        server.go.set()
        await asyncio.gather(*waiting)
        assert found.key_count == 1 and server.asked == 1
        server.rows = [public("two", KEYS["two"])]
        assert await found.find_key("two") is not None and server.asked == 2


async def test_what_nests_without_end_is_no_key_set(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("[" * 200_000)
    found = KeySet(Settings(token_issuer="x", key_set_file=path))
    await found.read_keys()
    assert "the key set cannot be read" in found.read_problem


def _weak(change: Callable[[dict], dict], key=KEYS["one"]) -> dict:
    return change(public("weak", key))


@pytest.mark.parametrize(
    "row",
    [
        _weak(lambda row: {**row, "use": "enc"}),
        _weak(lambda row: {**row, "alg": "HS256"}),
        _weak(lambda row: {**row, "alg": "PS256"}),
        {"kty": "oct", "kid": "weak", "k": "c2VjcmV0"},
        _weak(lambda row: row, rsa.generate_private_key(65537, 1024)),
        _weak(lambda row: row, ec.generate_private_key(ec.SECP384R1())),
        _weak(lambda row: {name: value for name, value in row.items() if name != "kid"}),
    ],
    ids=["encryption", "HS256", "PS256", "a secret", "RSA 1024", "P-384", "no id"],
)
async def test_keys_of_another_kind_are_left_out(tmp_path, row):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [row, public("one", KEYS["one"])]}))
    found = KeySet(Settings(token_issuer="x", key_set_file=path))
    await found.read_keys()
    assert found.key_count == 1 and not found.read_problem
