"""Handles of the in-memory broker's clients: a durable's consumer, its deliveries, a live subscription.

In: deliveries and live messages from the broker. Out: what port.Consumer, port.BusDelivery and
port.LiveSubscription promise.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import coroutine

from bulkhead.bus.live_queue import LiveQueue
from bulkhead.bus.memory.broker import BrokerListener, MemoryBroker
from bulkhead.bus.memory.streams import Durable
from bulkhead.bus.port import BusUnavailable, StoredMessage

TellBroker = Callable[[str, str, Callable[[], None]], None]
"""(kind, what, act): says something to the broker that it does not answer. Raises BusUnavailable."""


@coroutine
def yield_to_loop() -> Generator[None, None, None]:
    """One turn of the loop: asyncio.sleep(0) in one object in place of two, for each word with the broker has one."""
    yield


class MemoryConsumer:
    """See port.Consumer."""

    def __init__(self, name: str, tell_broker: TellBroker, broker: MemoryBroker, durable: Durable) -> None:
        self.name = name
        self.room = 0
        self.ack_wait_s = durable.config.ack_wait_ms / 1000
        self._tell_broker = tell_broker
        self._broker = broker
        self._durable = durable
        self._buffer: deque[MemoryDelivery] = deque()
        self._more = asyncio.Event()
        self._over = ""
        self._losses = 0

    async def fetch(self, max_messages: int, timeout_s: float = 5.0) -> list["MemoryDelivery"]:
        """See port.Consumer."""
        assert max_messages > 0
        late = False
        clock, losses = self._broker.clock, self._losses

        def on_timeout() -> None:
            nonlocal late
            late = True
            self._more.set()

        cancel = clock.call_at(clock.now_ms() + round(timeout_s * 1000), on_timeout)
        self._more.clear()
        try:
            self._check_open()
            self.room = max(0, max_messages - len(self._buffer))
            self._tell_broker("publish", self._durable.config.name, self._attach_to_durable)
            await yield_to_loop()
            while not self._buffer and not late:
                self._check_open()
                await self._more.wait()
                self._more.clear()
                if losses != self._losses and not self._buffer:
                    raise BusUnavailable(f"consumer {self._durable.config.name}: the connection broke")
            self._check_open()
        finally:
            cancel()
            self.room = 0
        return [self._buffer.popleft() for _ in range(min(max_messages, len(self._buffer)))]

    async def hand_over(
        self, max_messages: int, take: "Callable[[MemoryDelivery], None]", timeout_s: float = 5.0
    ) -> None:
        """See port.Consumer."""
        for delivery in await self.fetch(max_messages, timeout_s):
            take(delivery)

    async def close(self) -> None:
        """Hand back what was not fetched."""
        if self._over:
            return
        self.cut_off("closed")
        while self._buffer:
            await self._buffer.popleft().nak()

    def cut_off(self, reason: str = "cut off") -> None:
        """Stop deliveries."""
        self._over = self._over or reason
        self.room = 0
        self._broker.detach_puller(self._durable, self)
        self._more.set()

    def break_connection(self) -> None:
        """The connection breaks: what is asked for stands no more."""
        self._losses += 1
        self.room = 0
        self._more.set()

    def accept_delivery(self, stored: StoredMessage, durable: Durable, consumer_sequence: int, attempts: int) -> None:
        """Take an arriving delivery; without a reader it comes again after its ack wait."""
        if self._over:
            return
        name = durable.config.stream
        self._buffer.append(
            MemoryDelivery(
                stored, name, consumer_sequence, attempts, self._losses, self._tell_broker, self._broker, durable
            )
        )
        self._more.set()

    def _attach_to_durable(self) -> None:
        if not self._over:
            self._broker.attach_puller(self._durable, self)

    def _check_open(self) -> None:
        if self._over:
            raise BusUnavailable(f"consumer {self._durable.config.name} is {self._over}")


@dataclass(eq=False, slots=True)
class MemoryDelivery:
    """See port.BusDelivery."""

    stored: StoredMessage
    stream: str
    consumer_sequence: int
    attempts: int
    run: int
    _tell_broker: TellBroker
    _broker: MemoryBroker
    _durable: Durable

    async def ack(self) -> None:
        await self._send_answer(self._end_delivery)

    async def nak(self, delay_s: float = 0.0) -> None:
        await self._send_answer(lambda: self._restart_ack_wait(round(delay_s * 1000)))

    async def term(self, reason: str = "") -> None:
        await self._send_answer(self._end_delivery)

    async def in_progress(self) -> None:
        await self._send_answer(lambda: self._restart_ack_wait(self._durable.config.ack_wait_ms))

    async def _send_answer(self, act: Callable[[], None]) -> None:
        self._tell_broker("ack", f"{self.stream}:{self.stored.sequence}", act)
        await yield_to_loop()

    def _end_delivery(self) -> None:
        if self._durable.end_pending(self.stored.sequence):
            self._durable.active_unix_ms = self._broker.clock.now_ms()
            self._broker.pump_deliveries(self._durable)

    def _restart_ack_wait(self, wait_ms: int) -> None:
        if self.stored.sequence in self._durable.pending:
            self._broker.wait_for_ack(self._durable, self.stored.sequence, wait_ms)


class MemoryLiveSubscription(LiveQueue):
    """See port.LiveSubscription."""

    def __init__(self, broker: MemoryBroker, whom: str, subject: str, max_pending: int) -> None:
        super().__init__(max_pending)
        self._broker = broker
        self._listener = BrokerListener(subject, self.add_message, whom)
        broker.add_listener(self._listener)

    async def close(self) -> None:
        """Stop listening; the iteration ends after what was already heard."""
        self.cut_off()

    def cut_off(self) -> None:
        """Close at once."""
        self._broker.remove_listener(self._listener)
        self.end()
