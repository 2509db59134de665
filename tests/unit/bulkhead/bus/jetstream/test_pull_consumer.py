"""What a standing request brings goes to whoever takes it at once, and what nobody took is kept for the next."""

import asyncio
from typing import Any

from bulkhead.bus.jetstream.client import SocketMessage
from bulkhead.bus.jetstream.pull_consumer import JetStreamConsumer, JetStreamDelivery


class _Client:
    """Stands for nats-py: remembers who listens."""

    is_closed = False

    def __init__(self) -> None:
        self.takes: list[Any] = []

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def listen(self, subject: str, take: Any) -> Any:
        self.takes.append(take)
        return None


class _Connection:
    """Stands for a connection that stands; `asked` are the requests."""

    connected = True
    last_error = ""

    def __init__(self) -> None:
        self.nc = _Client()
        self.on_lost: set[Any] = set()
        self.on_returned: set[Any] = set()
        self.on_renewed: set[Any] = set()
        self.asked: list[bytes] = []

    def watch_refusals(self, subject: str, refuse: Any) -> None: ...

    def check_open(self) -> None: ...

    def send(self, subject: str, body: bytes, reply: str = "") -> None:
        self.asked.append(body)

    def brings(self, number: int, over: int = -1) -> None:
        """A message comes. over: which of the inboxes, the latest where it is not said."""
        ack = f"$JS.ACK.INBOX_WORKER.worker-0.1.{number}.{number}.1700000000000000000.0"
        self.nc.takes[over](SocketMessage(f"mesh.a.worker.1.t.{number}.-", ack, b"", {}))


def _consumer() -> tuple[JetStreamConsumer, _Connection, list[JetStreamDelivery]]:
    """A consumer, what it stands on, and a list for what it takes."""
    connection = _Connection()
    return JetStreamConsumer(connection, "INBOX_WORKER", "worker-0", "NEXT", 2.5), connection, []  # type: ignore[arg-type]


async def _wait_for(consumer: JetStreamConsumer, most: int, taken: list[JetStreamDelivery]) -> "asyncio.Task[Any]":
    """Somebody waits for messages, who has asked for them."""
    waiting = asyncio.create_task(consumer.hand_over(most, taken.append))
    await asyncio.sleep(0)
    return waiting


async def test_it_is_taken_while_it_is_read_not_when_the_waiting_one_runs() -> None:
    consumer, connection, taken = _consumer()
    waiting = await _wait_for(consumer, 10, taken)
    connection.brings(1)
    assert [one.stored.sequence for one in taken] == [1] and not waiting.done()
    connection.brings(2)
    await waiting
    assert [one.stored.sequence for one in taken] == [1, 2]


async def test_what_comes_while_nobody_waits_is_next_and_first() -> None:
    consumer, connection, taken = _consumer()
    waiting = await _wait_for(consumer, 10, taken)
    connection.brings(1)
    await waiting
    connection.brings(2)
    connection.brings(3)
    assert len(taken) == 1
    await consumer.hand_over(1, taken.append)
    await consumer.hand_over(5, taken.append)
    assert [one.stored.sequence for one in taken] == [1, 2, 3]


async def test_a_fetch_that_is_given_up_loses_nothing() -> None:
    consumer, connection, _ = _consumer()
    waiting = asyncio.create_task(consumer.fetch(10))
    await asyncio.sleep(0)
    connection.brings(1)
    connection.brings(2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    connection.brings(3)
    assert [one.stored.sequence for one in await consumer.fetch(10)] == [1, 2, 3]


async def test_after_a_renewal_what_was_asked_before_comes_first() -> None:
    """Two requests over two connections would bring one task's messages out of order."""
    consumer, connection, taken = _consumer()
    waiting = await _wait_for(consumer, 4, taken)
    for number in (1, 2, 3):
        connection.brings(number)
    await waiting
    for renewed in connection.on_renewed:
        renewed()
    # There is room for three more than still stands; they are not asked for beside it.
    waiting = asyncio.create_task(consumer.hand_over(4, taken.append))
    await asyncio.sleep(0.01)
    assert len(connection.asked) == 1 and len(connection.nc.takes) == 1
    connection.brings(4, over=0)
    await waiting
    waiting = asyncio.create_task(consumer.hand_over(4, taken.append))
    await asyncio.sleep(0.01)
    assert len(connection.asked) == 2 and len(connection.nc.takes) == 2, "then the fresh one is asked"
    connection.brings(5)
    await waiting
    assert [one.stored.sequence for one in taken] == [1, 2, 3, 4, 5]


async def test_after_a_loss_it_asks_anew_at_once() -> None:
    consumer, connection, taken = _consumer()
    waiting = await _wait_for(consumer, 4, taken)
    for lost in connection.on_lost:
        lost()
    await asyncio.sleep(0.01)
    assert len(connection.asked) == 2
    connection.brings(1)
    await waiting
    assert len(taken) == 1
