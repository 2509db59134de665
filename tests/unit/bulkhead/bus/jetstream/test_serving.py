"""Requests are answered many at once within a bound; those beyond it wait, and those beyond that are not heard."""

import asyncio
from typing import Any

from bulkhead.bus.jetstream import bus
from bulkhead.bus.jetstream.client import RawMessage
from bulkhead.bus.port import Live


class _Connection:
    """Stands for a connection; keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.sent.append(subject)


async def test_what_is_asked_beyond_the_bound_waits_for_its_turn(monkeypatch: Any) -> None:
    monkeypatch.setattr(bus, "MAX_RPC_AT_ONCE", 2)
    monkeypatch.setattr(bus, "MAX_RPC_WAITING", 3)
    connection, gate, running, most = _Connection(), asyncio.Event(), 0, 0

    async def handler(request: Live) -> tuple[dict[str, str], bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return {}, b""

    server = bus._Server(connection, handler)  # type: ignore[arg-type]
    for number in range(7):
        server.take(RawMessage("rpc.a", f"re.{number}", b"", None))
    await asyncio.sleep(0)
    assert running == 2
    gate.set()
    await server.stop()
    assert connection.sent == [f"re.{number}" for number in range(5)]
    assert most == 2
