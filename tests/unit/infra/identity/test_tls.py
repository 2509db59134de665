"""A CA that is made once, a certificate that is renewed in time, and what a real TLS handshake makes of them."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest

from bulkhead_infra.identity import tls
from bulkhead_infra.identity.keys import KeyFileError

NAMES = ("nats", "localhost", "127.0.0.1")


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assert tls.ensure_certificates(tmp_path, NAMES)
    before = _read(tmp_path)
    assert set(before) == {"ca.pem", "ca.key", "broker.pem", "broker.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    assert not tls.ensure_certificates(tmp_path, NAMES)
    assert _read(tmp_path) == before


@pytest.mark.parametrize(
    "names, days, renewed", [(NAMES, 334, False), (NAMES, 336, True), (("nats", "elsewhere"), 0, True)]
)
def test_the_certificate_is_renewed_in_time_and_for_other_names(
    tmp_path: Path, names: tuple[str, ...], days: int, renewed: bool
) -> None:
    tls.ensure_certificates(tmp_path, NAMES)
    before = _read(tmp_path)
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    assert tls.ensure_certificates(tmp_path, names, now=now) is renewed
    after = _read(tmp_path)
    assert after["ca.pem"] == before["ca.pem"]
    assert (after["broker.pem"] != before["broker.pem"]) is renewed


def test_a_certificate_with_which_brokers_cannot_call_each_other_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(tls, "USES", tls.USES[:1])
        assert tls.ensure_certificates(tmp_path, NAMES)
    assert tls.ensure_certificates(tmp_path, NAMES) and not tls.ensure_certificates(tmp_path, NAMES)


def test_a_certificate_of_another_ca_is_replaced(tmp_path: Path) -> None:
    tls.ensure_certificates(tmp_path / "one", NAMES)
    tls.ensure_certificates(tmp_path / "two", NAMES)
    for name in ("broker.pem", "broker.key"):
        (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
    assert tls.ensure_certificates(tmp_path / "one", NAMES)


@pytest.mark.parametrize("file", ["ca.pem", "ca.key"])
def test_half_a_ca_is_an_error_that_says_what_to_do(tmp_path: Path, file: str) -> None:
    tls.ensure_certificates(tmp_path, NAMES)
    (tmp_path / file).unlink()
    with pytest.raises(KeyFileError, match=rf"{file}.*restore it"):
        tls.ensure_certificates(tmp_path, NAMES)


def test_an_ended_ca_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    tls.ensure_certificates(tmp_path, NAMES)
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=tls.CA_DAYS + 1)
    with pytest.raises(KeyFileError, match="restart the broker and every service"):
        tls.ensure_certificates(tmp_path, NAMES, now=late)


@pytest.mark.parametrize(
    "name, ca, answer",
    [
        ("localhost", "own", "fine"),
        ("127.0.0.1", "own", "fine"),
        ("worker", "own", "Hostname mismatch"),
        ("localhost", "other", "CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_only_the_right_name_and_the_right_ca_pass(tmp_path: Path, name: str, ca: str, answer: str) -> None:
    tls.ensure_certificates(tmp_path / "own", NAMES)
    tls.ensure_certificates(tmp_path / "other", NAMES)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "own" / "broker.pem", tmp_path / "own" / "broker.key")

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"fine")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(tmp_path / ca / "ca.pem"))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name)
        said = (await reader.read()).decode()
        writer.close()
    except ssl.SSLError as error:
        said = str(error)
    finally:
        server.close()
    assert answer in said
