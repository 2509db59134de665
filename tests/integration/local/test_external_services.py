"""A mesh on a broker, a Redis and an OTLP receiver that somebody else runs: rendered accounts, an errand, the doctor.

What such a broker can lack is told before anything is made there, with what to do.
"""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.identity import tls
from bulkhead_infra.local.external_services import ExternalServices
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.nats.server import find_nats_server
from bulkhead_infra.processes.child import StartFailed
from bulkhead_infra.processes.http import readiness_problem
from tests.e2e.fixtures.world import World, until
from tests.faults.fixtures.errand import Errand, ingest, nothing_waits
from tests.redis_server import EphemeralRedis


def command(*words: str) -> tuple[int, str]:
    """Exit code and all that it said."""
    run = [sys.executable, "-m", "bulkhead_cli.main", *words]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


class TheirBroker:
    """A nats-server that was there before the mesh, with a configuration that somebody wrote by hand."""

    def __init__(self, folder: Path, text: str, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.monitor = folder, port or free_port(), free_port()
        self.url, self.monitor_url = f"nats://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.monitor}"
        self.conf = folder / "theirs.conf"
        self.conf.write_text(f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitor}"\n{text}')

    async def __aenter__(self) -> "TheirBroker":
        log = str(self.folder / "log")
        self._process = subprocess.Popen([find_nats_server(), "-c", str(self.conf), "-l", log], cwd=self.folder)

        async def healthy() -> bool:
            assert self._process.poll() is None, Path(log).read_text()
            return not await readiness_problem(f"{self.monitor_url}/healthz")

        await until(healthy, "their broker answers")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


JETSTREAM = 'jetstream { store_dir: "store", max_file_store: 256GB, sync_interval: always }\nmax_payload: 8MB\n'


class Receiver(ThreadingHTTPServer):
    """Takes OTLP exports and counts their bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.taken: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                receiver.taken += [len(body)] if known else []
                self.send_response(200 if known else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


async def test_a_mesh_on_what_others_run(tmp_path: Path) -> None:
    data = tmp_path / "world" / "mesh"
    accounts = tmp_path / "theirs" / "accounts.conf"
    accounts.parent.mkdir()
    code, said = await asyncio.to_thread(command, "render", "accounts", "--data", str(data), "-o", str(accounts))
    assert code == 0, said
    assert not re.search(r"\bSU[A-Z2-7]{56}\b", accounts.read_text()), "no seed stands in it"
    redis = EphemeralRedis(tmp_path)
    redis.start()
    async with Redis.from_url(redis.url) as client:
        await client.config_set("requirepass", "theirs")
    url = redis.url.replace("//", "//:theirs@")
    try:
        async with TheirBroker(tmp_path / "theirs", JETSTREAM + 'include "accounts.conf"\n') as broker:
            with receiver() as otlp:
                given = ExternalServices(broker.url, broker.monitor_url, url)
                environ = {"BULKHEAD_OTLP_ENDPOINT": otlp.url, "PATH": str(Path(find_nats_server()).parent)}
                async with World(tmp_path / "world", external=given, environ=environ) as world:
                    assert {"nats-server-0", "nats-server", "redis"}.isdisjoint(world.mesh.units)
                    await ingest(world)
                    await Errand(world).run()
                    await nothing_waits(world)
                    assert "theirs" not in (data / "mesh.json").read_text(), "it tells no password"
                    await _doctor(data, url, otlp.url)
                    spans = len(otlp.taken)
                assert len(otlp.taken) > 5 and spans, "what was left is sent at the end"
            assert await readiness_problem(f"{broker.monitor_url}/healthz") == "", "it is theirs: it goes on"
    finally:
        redis.stop()


async def _doctor(data: Path, redis: str, otlp: str) -> None:
    words = ("doctor", "--json", "--data", str(data))
    code, said = await asyncio.to_thread(command, *words, "--redis", redis, "--otlp", otlp)
    found = {one["what"]: one for one in json.loads(said)}
    assert code == 0 and not [one for one in found.values() if one["level"] == "problem"], said
    for name in ("permissions", "settings", "redis", "telemetry", "durability", "clock", "streams"):
        assert found[name]["level"] == "ok", found[name]
    wrong = redis.replace("theirs", "not-theirs")
    code, said = await asyncio.to_thread(command, *words, "--redis", wrong, "--otlp", "http://127.0.0.1:1")
    found = {one["what"]: one for one in json.loads(said)}
    assert code == 1 and found["redis"]["level"] == "problem" and "not-theirs" not in said, said
    assert found["telemetry"]["level"] == "warning" and "4318" not in found["telemetry"]["detail"]
    assert all(one["todo"] for one in found.values() if one["level"] != "ok"), found


@pytest.mark.parametrize(
    "text, told",
    [
        (JETSTREAM, "asks nobody for a key.*render accounts"),
        (JETSTREAM + 'accounts { A: { users: [ { user: "a", password: "b" } ] } }', "does not know the keys.*reload"),
        ("max_payload: 8MB\ninclude 'accounts.conf'", "without JetStream|not enabled"),
        (JETSTREAM.replace("256GB", "1GB") + "include 'accounts.conf'", "max_file_store .* set it to 1[0-9][0-9]GB"),
        (JETSTREAM.replace("8MB", "1MB") + "include 'accounts.conf'", "max_payload to 8388608"),
    ],
    ids=["no-accounts", "other-accounts", "no-jetstream", "small-store", "small-payload"],
)
async def test_a_broker_that_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setattr("bulkhead_infra.nats.provision.RELOADING_S", 0.0)
    folder = tmp_path / "theirs"
    folder.mkdir()
    accounts = _accounts(tmp_path / "mesh")
    if "without JetStream" in told:
        accounts = accounts.replace("    jetstream: enabled\n", "")
    (folder / "accounts.conf").write_text(accounts)
    async with TheirBroker(folder, text) as broker:
        with pytest.raises(ProvisionError, match=told):
            async with LocalMesh(tmp_path / "mesh", services=(), external=ExternalServices(broker.url)):
                pass


def _accounts(data: Path) -> str:
    code, said = command("render", "accounts", "--data", str(data))
    assert code == 0, said
    return said


async def test_a_broker_that_shows_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's CA is named as programs everywhere name it; services are handed the name."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "accounts.conf").write_text(_accounts(tmp_path / "mesh"))
    tls.ensure_certificates(folder, ("127.0.0.1",))
    files = f'cert_file: "{folder / tls.BROKER_FILE}", key_file: "{folder / tls.BROKER_KEY_FILE}"'
    async with TheirBroker(folder, JETSTREAM + f"tls {{ {files} }}\ninclude 'accounts.conf'") as broker:
        given = ExternalServices(broker.url.replace("nats:", "tls:"))
        with pytest.raises(ProvisionError, match="not trusted here: name the CA's file in SSL_CERT_FILE"):
            async with LocalMesh(tmp_path / "mesh", services=(), external=given):
                pass
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / tls.CA_FILE))
        async with LocalMesh(tmp_path / "mesh", services=("signer",), external=given) as mesh:
            await mesh.wait_until_ready()


async def test_a_broker_of_another_time(tmp_path: Path) -> None:
    """It says that it is nats-server 2.9: a proxy in front of a real one changes what it says of itself."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "accounts.conf").write_text(_accounts(tmp_path / "mesh"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to = await asyncio.open_connection("127.0.0.1", broker.port)
        hello = await theirs.readline()
        info = json.loads(hello.removeprefix(b"INFO ")) | {"version": "2.9.25"}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        await asyncio.gather(_pipe(reader, to), _pipe(theirs, writer))

    async with TheirBroker(folder, JETSTREAM + "include 'accounts.conf'") as broker:
        proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        with pytest.raises(ProvisionError, match=r"is nats-server 2\.9.*at least 2\.14 is needed"):
            async with LocalMesh(tmp_path / "mesh", services=(), external=ExternalServices(f"nats://127.0.0.1:{port}")):
                pass
        proxy.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(
    "given, told",
    [
        ({"nats_url": "localhost:4222"}, "--nats: this is not an address"),
        ({"redis_url": "redis+sentinel://a,b"}, "--redis: this is not an address"),
        ({"redis_url": "http://x"}, "--redis: this is not an address"),
        ({"replicas": 3}, "--replicas needs a cluster"),
        ({"nats_url": "nats://x:1", "replicas": 9}, "write 1 to 5"),
    ],
)
def test_what_is_no_address(tmp_path: Path, given: dict, told: str) -> None:
    with pytest.raises(StartFailed, match=told):
        LocalMesh(tmp_path / "mesh", external=ExternalServices(**given))
    assert not (tmp_path / "mesh").exists()


@pytest.mark.parametrize("url", ["nats://no-such-host.invalid:4222", "nats://127.0.0.1:1"], ids=["no-dns", "nobody"])
async def test_a_broker_that_is_not_there(tmp_path: Path, url: str) -> None:
    with pytest.raises(ProvisionError, match=r"cannot reach the broker at .* is it running"):
        async with LocalMesh(tmp_path / "mesh", services=(), external=ExternalServices(url)):
            pass
