"""Requests: what belongs to an answer, and how many are served at once, wait, or are not heard."""

import asyncio
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bulkhead.bus.jetstream import bus
from bulkhead.bus.jetstream.client import SocketMessage
from bulkhead.bus.jetstream.request_reply import _PendingRequest
from bulkhead.bus.port import LiveMessage


def message(body: bytes, status: str = "") -> Msg:
    return Msg(Client(), subject="s", data=body, headers={"Status": status} if status else None)


async def test_a_second_answer_to_one_question_is_no_part_of_the_first() -> None:
    """It comes before the one who asked has run: under load, as it was seen."""
    question = _PendingRequest(asyncio.get_running_loop().create_future(), many=False)
    first = message(b"1")
    question.add_reply(first)
    question.add_reply(message(b"2"))
    assert await question.done == [first]


async def test_an_answer_of_many_ends_with_its_status() -> None:
    question = _PendingRequest(asyncio.get_running_loop().create_future(), many=True)
    parts = [message(b"1"), message(b"2"), message(b"", "204")]
    for part in [*parts, message(b"late")]:
        question.add_reply(part)
    assert await question.done == parts


ASKED: Any = object()
"""Stands for the client that was asked."""


class _Connection:
    """Stands for a connection; keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, subject: str, body: bytes, headers: dict[str, str] | None = None, over: Any = None) -> None:
        assert over is ASKED, "no other client may answer"
        self.sent.append(subject)


async def test_what_is_asked_beyond_the_bound_waits_for_its_turn(monkeypatch: Any) -> None:
    monkeypatch.setattr(bus, "MAX_RPC_AT_ONCE", 2)
    monkeypatch.setattr(bus, "MAX_RPC_WAITING", 3)
    connection, gate, running, most = _Connection(), asyncio.Event(), 0, 0

    async def handler(request: LiveMessage) -> tuple[dict[str, str], bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return {}, b""

    server = bus._RpcServer(connection, handler)  # type: ignore[arg-type]
    for number in range(7):
        server.on_request(ASKED, SocketMessage("rpc.a", f"re.{number}", b"", None))
    await asyncio.sleep(0)
    assert running == 2
    gate.set()
    await server.stop()
    assert connection.sent == [f"re.{number}" for number in range(5)]
    assert most == 2


async def test_requests_that_stand_take_no_turn_of_the_others(monkeypatch: Any) -> None:
    monkeypatch.setattr(bus, "MAX_RPC_AT_ONCE", 1)
    monkeypatch.setattr(bus, "MAX_RPC_WAITING", 0)
    monkeypatch.setattr(bus, "MAX_RPC_LONG_POLLS", 3)
    connection, gate = _Connection(), asyncio.Event()

    async def handler(request: LiveMessage) -> tuple[dict[str, str], bytes]:
        if request.subject == "rpc.poll":
            await gate.wait()
        return {}, b""

    server = bus._RpcServer(connection, handler, lambda asked: asked.subject == "rpc.poll")  # type: ignore[arg-type]
    for number in range(5):
        server.on_request(ASKED, SocketMessage("rpc.poll", f"poll.{number}", b"", None))
    server.on_request(ASKED, SocketMessage("rpc.beat", "beat", b"", None))
    await asyncio.sleep(0.01)
    assert connection.sent == ["beat"]
    gate.set()
    await server.stop()
    assert sorted(connection.sent) == ["beat", "poll.0", "poll.1", "poll.2"], "each bound holds"
