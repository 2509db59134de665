"""A registry that wants tokens of its realm: a login by `docker login` is enough, and nothing less is."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bulkhead_infra.promotion.errors import Refused, RegistryUnreachable, WrongUsage
from bulkhead_infra.promotion.registry import local, login
from bulkhead_infra.promotion.registry.client import Registry
from bulkhead_infra.promotion.release import BUILD, STAGING
from tests.integration.promotion.shop import Shop

pytestmark = pytest.mark.nightly

LOGIN = base64.b64encode(b"releaser:right").decode()
SERVICE, ISSUER = "registry", "realm"


class Realm(ThreadingHTTPServer):
    """A token server as registries have one: tokens for the asked scopes, to whoever knows the password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        begin = datetime.now(UTC) - timedelta(hours=1)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(begin)
        self.certificate = made.not_valid_after(begin + timedelta(days=1)).sign(self.key, hashes.SHA256())
        self.scopes: list[str] = []

    def token(self, scopes: list[str]) -> str:
        self.scopes += scopes
        rows = [scope.split(":") for part in scopes for scope in part.split()]
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in rows]
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": "releaser", "iat": now, "nbf": now - 5, "exp": now + 300}
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        return jwt.encode({**claims, "access": access}, self.key, algorithm="ES256", headers={"x5c": chain})


class _Handler(BaseHTTPRequestHandler):
    server: "Realm"

    def do_GET(self) -> None:
        allowed = self.headers.get("authorization") == f"Basic {LOGIN}"
        asked = parse_qs(urlsplit(self.path).query)
        body = json.dumps({"token": self.server.token(asked.get("scope", []))} if allowed else {}).encode()
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[Realm]:
    with Realm() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def guarded(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a registry that wants tokens; docker's configuration is in the test's folder."""
    bundle = tmp_path / "realm.pem"
    bundle.write_bytes(realm.certificate.public_bytes(serialization.Encoding.PEM))
    address = f"http://127.0.0.1:{realm.server_address[1]}/token"
    token = {"realm": address, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with local.local_registry(tmp_path, {"token": token}) as host:
        yield host


def _log_in(folder: Path, host: str, auth: str) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_release_is_promoted_with_tokens_of_the_realm(guarded: str, realm: Realm, tmp_path: Path) -> None:
    _log_in(tmp_path, guarded, LOGIN)
    shop = Shop(f"{guarded}/bulkhead", tmp_path / "shop")
    with shop.registry:
        stored = shop.ready("v1")
        shop.promote(stored, STAGING)
        place = shop.registry.repository(STAGING, "worker")
        assert shop.registry.digest(place, "v1") == stored.parts["worker"]
    assert f"repository:bulkhead/{BUILD}/worker:pull,push" in realm.scopes


@pytest.mark.parametrize("auth", ["", base64.b64encode(b"releaser:no").decode()])
def test_without_the_right_password_nobody_comes_in(guarded: str, tmp_path: Path, auth: str) -> None:
    _log_in(tmp_path, guarded, auth)
    with Registry(f"{guarded}/bulkhead") as registry, pytest.raises(RegistryUnreachable) as error:
        registry.digest("bulkhead/build/worker", "v1")
    assert error.value.code == "login_refused" and f"docker login {guarded}" in str(error.value)


def test_a_password_is_sent_to_no_realm_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    _log_in(tmp_path, "registry.example.org", LOGIN)
    header = {"www-authenticate": 'Bearer realm="http://elsewhere.example.org/token",service="x"'}
    with httpx.Client() as client, pytest.raises(RegistryUnreachable, match="no TLS"):
        login.authorization("registry.example.org", httpx.Response(401, headers=header), client)


def test_a_registry_may_ask_for_the_password_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    answer = httpx.Response(401, headers={"www-authenticate": 'Basic realm="here"'})
    with httpx.Client() as client:
        with pytest.raises(RegistryUnreachable, match="nobody has logged in"):
            login.authorization("registry.example.org", answer, client)
        _log_in(tmp_path, "registry.example.org", LOGIN)
        assert login.authorization("registry.example.org", answer, client) == f"Basic {LOGIN}"


class Elsewhere(ThreadingHTTPServer):
    """A server of another port. A registry sends uploads to it, or whoever asks a registry for a blob."""

    def __init__(self, status: int, location: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _ElsewhereHandler)
        self.status, self.location = status, location
        self.seen: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _ElsewhereHandler(BaseHTTPRequestHandler):
    server: "Elsewhere"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        login_is_due = self.server.location and not self.headers.get("authorization")
        known = {"POST": 202, "GET": 307, "HEAD": 404} if self.server.location else {}
        self.server.seen.append((self.command, self.headers.get("authorization")))
        self.send_response(401 if login_is_due else known.get(self.command, self.server.status))
        self.send_header("www-authenticate", f'Basic realm="{self.server.address}"')
        self.send_header("location", self.server.location)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("status", [201, 401])
def test_a_login_goes_nowhere_but_to_the_registry(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is another server, for the address of an upload and for a redirect; a 401 of it changes nothing."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Elsewhere(status) as other, Elsewhere(200, f"http://{other.address}/upload") as host:
        for server in (other, host):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        _log_in(tmp_path, host.address, LOGIN)
        with Registry(f"{host.address}/bulkhead") as registry:
            if status == 201:
                registry.put_blob("bulkhead/build/worker", b"content")
            else:
                with pytest.raises(RegistryUnreachable, match="could not be written"):
                    registry.put_blob("bulkhead/build/worker", b"content")
                with pytest.raises(RegistryUnreachable, match="could not be read"):
                    registry.blob("bulkhead/build/worker", f"sha256:{'0' * 64}")
                with pytest.raises(RegistryUnreachable, match="could not be read"):
                    registry.digest("bulkhead/build/worker", "v1")
        other.shutdown()
        host.shutdown()
    assert ("POST", f"Basic {LOGIN}") in host.seen
    assert other.seen and {known for _, known in other.seen} == {None}


class _EndlessHandler(BaseHTTPRequestHandler):
    server: "Elsewhere"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(64):
                self.wfile.write(b" " * 1024 * 1024)
                self.server.seen.append(("sent", None))

    def log_message(self, *_: object) -> None:
        pass


def test_no_more_of_a_manifest_is_read_than_one_may_have(tmp_path: Path) -> None:
    with Elsewhere(200) as host:
        host.RequestHandlerClass = _EndlessHandler
        threading.Thread(target=host.serve_forever, daemon=True).start()
        with Registry(f"{host.address}/bulkhead") as registry, pytest.raises(Refused, match="more than") as error:
            registry.digest("bulkhead/build/worker", "v1")
        host.shutdown()
    # What lies in the buffers of both sides was sent, too.
    assert error.value.code == "altered" and len(host.seen) < 32


def test_a_registry_that_is_away_is_said() -> None:
    with Registry("localhost:1/bulkhead") as registry, pytest.raises(RegistryUnreachable) as error:
        registry.digest("bulkhead/build/worker", "v1")
    assert error.value.code == "unreachable" and error.value.exit_code == 3


@pytest.mark.parametrize("place", ["", "localhost:5000", "https://ghcr.io/x", "ghcr.io/Upper"])
def test_an_address_that_is_none_is_said(place: str) -> None:
    with pytest.raises(WrongUsage, match="is no registry"):
        Registry(place)
