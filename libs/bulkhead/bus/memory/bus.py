"""The bus in memory: one service's view of a MemoryBroker, with the semantics of the real one.

In: what port.Bus takes. Out: what it promises; the same conformance suite holds. Nothing here reads a clock or draws
a number: time is the broker's, order is the broker's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from bulkhead.bus import wire
from bulkhead.bus.memory.broker import BrokerListener, MemoryBroker, Offer
from bulkhead.bus.memory.consumer import MemoryConsumer, MemoryLiveSubscription, yield_to_loop
from bulkhead.bus.port import (
    BusClosed,
    BusError,
    BusUnavailable,
    DurableCounts,
    IsLongPoll,
    LiveMessage,
    NoResponders,
    PubAck,
    RpcHandler,
    Schedule,
    StoredMessage,
    StreamCounts,
    never_long_poll,
)
from bulkhead.telemetry.log import Log

__all__ = ["MemoryBroker", "MemoryBus"]

log = Log("bus")

ANSWER_TIMEOUT_S = 5.0
T = TypeVar("T")


class MemoryBus:
    """See port.Bus. It may do everything: rights are the real broker's."""

    def __init__(self, broker: MemoryBroker, service: str) -> None:
        self.service = service
        self._broker = broker
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._consumers: list[MemoryConsumer] = []
        self._lives: list[MemoryLiveSubscription] = []
        self._servers: list[BrokerListener] = []
        self._answering: set[asyncio.Task[None]] = set()
        # In their order: a set of futures has that of their addresses, and a seeded run would not be one run.
        self._waiting: dict[asyncio.Future[Any], None] = {}

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        message_id: str,
        *,
        expect_last_on_subject: int | None = None,
        expect_none_on: str = "",
    ) -> PubAck:
        """See port.Bus."""
        sent = wire.publish_headers(headers, message_id, expect_last_on_subject, expect_none_on)
        try:
            return await self._store_checked(subject, body, sent)
        except wire.StreamWrongLastSequence as error:
            if expect_none_on:
                raise
            try:
                stored = await self.last(error.stream, subject)
            except BusError:
                raise error from None
            if stored is None or stored.headers.get(wire.MESSAGE_ID) != message_id:
                raise
            return PubAck(error.stream, stored.sequence, duplicate=True)

    async def schedule(self, schedule: Schedule, message_id: str) -> PubAck:
        """See port.Bus."""
        headers = wire.schedule_headers(schedule, message_id)
        return await self._store_checked(schedule.subject, schedule.body, headers)

    def _store_checked(self, subject: str, body: bytes, headers: Mapping[str, str]) -> Coroutine[Any, Any, PubAck]:
        self._check_open()
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        return self._ask_broker("publish", subject, partial(self._broker.store, subject, headers, body))

    async def publish_live(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See port.Bus."""
        self._check_open()
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        self._broker.publish_live(LiveMessage(subject, dict(headers or {}), body))
        await yield_to_loop()

    async def subscribe_live(self, subject: str, max_pending: int = 10_000) -> "MemoryLiveSubscription":
        """See port.Bus."""
        self._check_open()
        live = MemoryLiveSubscription(self._broker, self.service, subject, max_pending)
        self._lives.append(live)
        await yield_to_loop()
        return live

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0
    ) -> LiveMessage:
        """See port.Bus."""
        self._check_open()
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        await yield_to_loop()
        server = self._broker.pick_server(subject)
        if server is None:
            raise NoResponders(f"nobody answers {subject}: the service is not running; ask again later")
        request = LiveMessage(subject, dict(headers or {}), body)
        future: asyncio.Future[LiveMessage] = asyncio.get_running_loop().create_future()

        def send_reply(live: LiveMessage) -> None:
            self._broker.deliver(Offer("reply", self.service, subject, partial(_resolve_future, future, live)))

        offer = Offer("request", server.whom, subject, partial(self._serve_one, server, request, send_reply))
        return await self._await_answer(future, subject, timeout_s, offer)

    def _serve_one(self, server: BrokerListener, asked: LiveMessage, answer: Callable[[LiveMessage], None]) -> None:
        async def run_handler() -> None:
            assert server.handler is not None
            headers, body = await server.handler(asked)
            answer(LiveMessage(asked.subject, dict(headers), body))

        task = asyncio.ensure_future(run_handler())
        self._answering.add(task)

        def on_handler_ended(done: asyncio.Task[None]) -> None:
            self._answering.discard(done)
            if not done.cancelled() and done.exception() is not None:
                log.error("rpc_answer_failed", reason=repr(done.exception()))

        task.add_done_callback(on_handler_ended)

    async def serve(
        self, subject: str, queue: str, handler: RpcHandler, *, is_long_poll: IsLongPoll = never_long_poll
    ) -> Callable[[], Awaitable[None]]:
        """See port.Bus. Requests have no bound here."""
        self._check_open()
        listener = BrokerListener(subject, lambda live: None, self.service, queue, handler)
        self._servers.append(listener)
        self._broker.add_listener(listener)

        async def stop_serving() -> None:
            self._broker.remove_listener(listener)
            await yield_to_loop()

        return stop_serving

    async def open_consumer(
        self, stream: str, durable: str, *, rank: int = 0, reclaims: bool = False
    ) -> "MemoryConsumer":
        """See port.Bus. Ranks are ignored: any replica may be served, so that simulations see every order."""
        self._check_open()
        durable_state = await self._ask_broker(
            "publish", f"{stream}/{durable}", lambda: self._broker.get_durable(stream, durable)
        )
        consumer = MemoryConsumer(self.service, self._tell_broker, self._broker, durable_state)
        self._consumers.append(consumer)
        if reclaims:
            self._broker.reclaim_pending(durable_state)
        return consumer

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        """See port.Bus."""
        self._check_open()
        horizon = self._broker.horizon
        return await self._ask_broker(
            "read", stream, lambda: self._broker.get_stream(stream).read(subject, after, limit, horizon(stream))
        )

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """See port.Bus."""
        self._check_open()
        horizon = self._broker.horizon
        return await self._ask_broker(
            "read", stream, lambda: self._broker.get_stream(stream).newest(subject, horizon(stream))
        )

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """See port.Bus."""
        return await self.last(stream, subject)

    async def last_sequence(self, stream: str) -> int:
        """See port.Bus."""
        self._check_open()
        return await self._ask_broker("read", stream, lambda: self._broker.get_stream(stream).last_sequence)

    async def stream_counts(self, stream: str, subjects: str = "") -> StreamCounts:
        """See port.Bus."""
        self._check_open()
        return await self._ask_broker("read", stream, lambda: self._broker.get_stream(stream).counts(subjects))

    async def durable_counts(self, stream: str, durable: str) -> DurableCounts | None:
        """See port.Bus."""
        self._check_open()
        return await self._ask_broker("read", stream, lambda: self._broker.durable_counts(stream, durable))

    async def is_ready(self) -> bool:
        """See port.Bus."""
        return not self._closed.done()

    async def wait_closed(self) -> str:
        """See port.Bus."""
        return await asyncio.shield(self._closed)

    async def close(self) -> None:
        """See port.Bus. What was fetched and not acked comes again after its ack wait."""
        for consumer in self._consumers:
            await consumer.close()
        for listener in self._servers:
            self._broker.remove_listener(listener)
        if self._answering:
            await asyncio.gather(*self._answering, return_exceptions=True)
        self.cut_off("closed by this process")

    def cut_off(self, reason: str = "killed") -> None:
        """Cut off at once, as kill -9 does: nothing is handed back, nothing more arrives."""
        for consumer in self._consumers:
            consumer.cut_off()
        for live in self._lives:
            live.cut_off()
        for listener in self._servers:
            self._broker.remove_listener(listener)
        if not self._closed.done():
            self._closed.set_result(reason)
        self._reject_all(BusClosed(f"the connection is closed: {reason}"))

    def break_connection(self) -> None:
        """Break the connection: pending requests fail, and standing pull requests end. Later requests use a new
        connection."""
        for consumer in self._consumers:
            consumer.break_connection()
        self._reject_all(BusUnavailable("the connection broke"))

    def _reject_all(self, error: BusUnavailable) -> None:
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error)

    def _tell_broker(self, kind: str, what: str, act: Callable[[], None]) -> None:
        """Say something to the broker that it does not answer. Raises BusUnavailable."""
        self._check_open()
        self._broker.deliver(Offer(kind, "broker", what, act))

    def _check_open(self) -> None:
        if self._closed.done():
            raise BusClosed(f"the connection is closed: {self._closed.result()}")

    def _ask_broker(self, kind: str, what: str, act: Callable[[], T]) -> Coroutine[Any, Any, T]:
        """Have the broker do something and wait for its answer; both ways may get lost."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def act_at_broker() -> None:
            try:
                value = act()
            except BusError as error:
                back = partial(_reject_future, future, error)
            else:
                back = partial(_resolve_future, future, value)
            self._broker.deliver(Offer("answer", self.service, what, back))

        return self._await_answer(future, what, ANSWER_TIMEOUT_S, Offer(kind, "broker", what, act_at_broker))

    async def _await_answer(self, future: "asyncio.Future[T]", what: str, timeout_s: float, offer: Offer) -> T:
        clock = self._broker.clock
        cancel = clock.call_at(
            clock.now_ms() + round(timeout_s * 1000), partial(_time_out_future, future, what, timeout_s)
        )
        self._waiting[future] = None
        self._broker.deliver(offer)
        try:
            # Always one turn of the loop: a service that only talks must not keep the others from running.
            await yield_to_loop()
            return await future
        finally:
            cancel()
            self._waiting.pop(future, None)


def _resolve_future(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():
        future.set_result(value)


def _time_out_future(future: "asyncio.Future[T]", what: str, timeout_s: float) -> None:
    _reject_future(future, BusUnavailable(f"no answer to {what} within {timeout_s:g} s; the outcome is unknown"))


def _reject_future(future: "asyncio.Future[T]", error: BusError) -> None:
    if not future.done():
        future.set_exception(error)
