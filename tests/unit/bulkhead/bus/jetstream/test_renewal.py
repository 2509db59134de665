"""The watch over the token file goes on, whatever a login ends with."""

import asyncio
import base64
import json
import logging
import time
from pathlib import Path

import pytest

from bulkhead.bus.jetstream import renewal
from bulkhead.bus.jetstream.renewal import LoginRenewal
from bulkhead.bus.jetstream.token_file import TokenFile
from tests.eventually import until


def _token(number: int, lasts_s: float) -> str:
    claims = json.dumps({"exp": time.time() + lasts_s, "n": number}).encode()
    return f"h.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.s"


class _Client:
    """Stands for a client that was connected; what it listens to is nothing."""

    def __init__(self, close: BaseException | None = None) -> None:
        self.closed, self._close = 0, close

    async def flush(self, timeout: float) -> None: ...

    async def close(self) -> None:
        self.closed += 1
        if self._close is not None:
            raise self._close


@pytest.fixture
def file(tmp_path: Path, monkeypatch, caplog) -> TokenFile:
    caplog.set_level(logging.INFO, "bulkhead")
    monkeypatch.setattr(renewal, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(renewal, "LOGIN_SPREAD", 0.0)
    found = TokenFile(tmp_path / "token")
    found.path.write_text(_token(1, 600))
    found.present_token()
    return found


async def _adopt(client: object) -> object:
    return client


@pytest.mark.parametrize(
    "error",
    [
        OSError("away"),
        TypeError("transport None is not supported by start_tls()"),
        RuntimeError("x"),
        ValueError("no JSON"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("close", [None, RuntimeError("close"), AttributeError("close")], ids=lambda one: repr(one)[:9])
async def test_it_is_tried_again_after_whatever_error(file: TokenFile, monkeypatch, caplog, error, close):
    clients: list[_Client] = []

    def client() -> _Client:
        clients.append(_Client(close if not clients else None))
        return clients[-1]

    async def connect(fresh: object) -> None:
        if len(clients) == 1:
            file.present_token()
            raise error
        file.present_token()

    monkeypatch.setattr(renewal, "DirectClient", client)
    found = LoginRenewal(file, set(), connect, _adopt)
    found.start()
    file.path.write_text(_token(2, 600))
    await until(lambda: found.count == 1, timeout_s=5)
    assert clients[0].closed == 1
    [said] = [one for one in caplog.records if one.message == "token_not_renewed"]
    assert str(error) in said.values["reason"]
    await found.stop()


async def test_a_token_that_does_not_tell_its_end_and_a_file_that_is_gone(file: TokenFile, caplog):
    file.path.write_text("garbage")
    file.present_token()
    found = LoginRenewal(file, set(), _adopt, _adopt)
    found.start()
    file.path.unlink()
    await until(lambda: "token_not_renewed" in [one.message for one in caplog.records], timeout_s=5)
    assert found._watching is not None and not found._watching.done()
    await found.stop()


async def test_a_watch_that_ends_by_itself_says_so(file: TokenFile, monkeypatch, caplog):

    def read() -> str:
        raise MemoryError("read")

    monkeypatch.setattr(file, "read", read)
    found = LoginRenewal(file, set(), _adopt, _adopt)
    found.start()
    await until(lambda: "renewal_ended" in [one.message for one in caplog.records], timeout_s=5)
    await found.stop()


async def test_a_watch_that_is_stopped_is_not_complained_of(file: TokenFile, caplog):
    found = LoginRenewal(file, set(), _adopt, _adopt)
    found.start()
    await asyncio.sleep(0.05)
    await found.stop()
    assert "renewal_ended" not in [one.message for one in caplog.records]
