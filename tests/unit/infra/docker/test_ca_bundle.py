"""A build behind a proxy that inspects TLS: pip trusts the CA that was given and, without it, nobody of that CA.

In: a package index on this machine with a certificate of a CA that no system knows. Out: the package, or pip's refusal.
"""

import base64
import hashlib
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bulkhead_infra.docker import images
from bulkhead_infra.identity import tls

RUN = """
import pathlib, sys
from bulkhead_infra.docker import install
install.SECRETS = pathlib.Path(sys.argv.pop(1))
sys.exit(install.main())
"""


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what is asked."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """(address, CA, digest of its one wheel)."""
    folder = tmp_path_factory.mktemp("index")
    tls.ensure_certificates(folder / "tls", ["localhost", "127.0.0.1"])
    wheel = folder / "simple" / "tiny" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    _write(wheel)
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls" / tls.BROKER_FILE, folder / "tls" / tls.BROKER_KEY_FILE)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    yield f"https://localhost:{server.server_address[1]}" + "/simple/", folder / "tls" / tls.CA_FILE, digest
    server.shutdown()
    server.server_close()


def _write(wheel: Path) -> None:
    files = {
        "tiny.py": b"WORTH = 1\n",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    files["tiny-1.0.dist-info/RECORD"] = (record + "tiny-1.0.dist-info/RECORD,,\n").encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("given", [True, False])
def test_pip_in_a_build_trusts_whom_it_was_told_to(index: tuple[str, Path, str], tmp_path: Path, given: bool) -> None:
    address, ca, digest = index
    secrets, target = tmp_path / "secrets", tmp_path / "target"
    secrets.mkdir()
    (secrets / "pip.conf").write_text(f"[global]\nindex-url = {address}\nretries = 1\n")
    if given:
        (secrets / "ca.pem").write_bytes(ca.read_bytes())
    (tmp_path / "list.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    plain = ("PIP_", "SSL_", "REQUESTS_", "CURL_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(plain)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(secrets), str(tmp_path / "list.txt"), str(target)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if given:
        assert done.returncode == 0 and (target / "tiny.py").is_file(), done.stderr
    else:
        assert done.returncode != 0 and "certificate" in done.stderr.lower(), done.stderr


def test_a_bundle_is_a_secret_of_the_build_and_one_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    monkeypatch.setenv("BULKHEAD_CA_BUNDLE", str(bundle))
    with (
        pytest.raises(images.DockerImageError, match=r"BULKHEAD_CA_BUNDLE names .*, which is no file"),
        images._build_secrets(),
    ):
        pass
    bundle.write_text("a certificate")
    with images._build_secrets() as arguments:
        assert f"id=ca.pem,src={bundle}" in arguments
