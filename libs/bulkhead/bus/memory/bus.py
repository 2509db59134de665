"""The bus in memory: one service's view of a MemoryBroker, with the semantics of the real one.

In: what port.Bus takes. Out: what it promises; the same conformance suite holds. Nothing here reads a clock or draws
a number: time is the broker's, order is the broker's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from bulkhead.bus import wire
from bulkhead.bus.memory.broker import Listener, MemoryBroker, Offer
from bulkhead.bus.memory.consumer import MemoryConsumer, MemoryLive, turn
from bulkhead.bus.memory.streams import matches
from bulkhead.bus.port import (
    BusClosed,
    BusError,
    BusUnavailable,
    DurableCounts,
    Live,
    NobodyAnswers,
    PubAck,
    PublishRefused,
    RpcHandler,
    Schedule,
    Stands,
    Stored,
    StreamCounts,
    no_request,
)
from bulkhead.telemetry.log import Log

__all__ = ["MemoryBroker", "MemoryBus", "Permissions"]

log = Log("bus")

ANSWER_TIMEOUT_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Permissions:
    """What an identity may do: subject filters to publish (and request) on and to listen to, streams to read,
    `<stream>/<durable>` to consume."""

    publish: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    consume: tuple[str, ...] = ()


class MemoryBus:
    """See port.Bus. Without permissions it may do everything."""

    def __init__(self, broker: MemoryBroker, service: str, permissions: Permissions | None = None) -> None:
        self.service = service
        self._broker = broker
        self._permissions = permissions
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._consumers: list[MemoryConsumer] = []
        self._lives: list[MemoryLive] = []
        self._servers: list[Listener] = []
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
        sent = {**headers, wire.MESSAGE_ID: message_id}
        if expect_last_on_subject is not None:
            sent[wire.EXPECTED_LAST_ON_SUBJECT] = str(expect_last_on_subject)
        elif expect_none_on:
            sent |= {wire.EXPECTED_LAST_ON_SUBJECT: "0", wire.EXPECTED_ON: expect_none_on}
        try:
            return await self._store(subject, body, sent)
        except wire.StreamWrongLastSequence as error:
            if expect_none_on:
                raise
            try:
                found = await self.last(error.stream, subject)
            except BusError:
                raise error from None
            if found is None or found.headers.get(wire.MESSAGE_ID) != message_id:
                raise
            return PubAck(error.stream, found.sequence, duplicate=True)

    async def schedule(self, schedule: Schedule, message_id: str) -> PubAck:
        """See port.Bus."""
        headers = {
            **schedule.headers,
            wire.MESSAGE_ID: message_id,
            wire.SCHEDULE: f"@at {wire.rfc3339(schedule.due_unix_ms)}",
            wire.SCHEDULE_TARGET: schedule.target,
        }
        return await self._store(schedule.subject, schedule.body, headers)

    def _store(self, subject: str, body: bytes, headers: Mapping[str, str]) -> Coroutine[Any, Any, PubAck]:
        self._may(subject, "publish")
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        return self._ask("publish", subject, partial(self._broker.store, subject, headers, body))

    async def publish_live(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See port.Bus."""
        self._alive()
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        if self._permissions is None or _any(self._permissions.publish, subject):
            self._broker.say(Live(subject, dict(headers or {}), body))
        else:
            log.warning("publish_denied", subject=subject)
        await turn()

    async def subscribe_live(self, subject: str, max_pending: int = 10_000) -> "MemoryLive":
        """See port.Bus."""
        self._may(subject, "listen")
        live = MemoryLive(self._broker, self.service, subject, max_pending)
        self._lives.append(live)
        await turn()
        return live

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0
    ) -> Live:
        """See port.Bus."""
        self._may(subject, "publish")
        wire.check_sendable(subject, wire.stored_bytes(headers or {}, body), self._broker.max_message_bytes)
        await turn()
        server = self._broker.server(subject)
        if server is None:
            raise NobodyAnswers(f"nobody answers {subject}: the service is not running; ask again later")
        asked = Live(subject, dict(headers or {}), body)
        future: asyncio.Future[Live] = asyncio.get_running_loop().create_future()

        def answer(live: Live) -> None:
            self._broker.deliver(Offer("reply", self.service, subject, partial(_resolve, future, live)))

        offer = Offer("request", server.whom, subject, partial(self._serve_one, server, asked, answer))
        return await self._await(future, subject, timeout_s, offer)

    def _serve_one(self, server: Listener, asked: Live, answer: Callable[[Live], None]) -> None:
        async def run() -> None:
            assert server.handler is not None
            headers, body = await server.handler(asked)
            answer(Live(asked.subject, dict(headers), body))

        task = asyncio.ensure_future(run())
        self._answering.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._answering.discard(done)
            if not done.cancelled() and done.exception() is not None:
                log.error("rpc_answer_failed", reason=repr(done.exception()))

        task.add_done_callback(ended)

    async def serve(
        self, subject: str, queue: str, handler: RpcHandler, *, stands: Stands = no_request
    ) -> Callable[[], Awaitable[None]]:
        """See port.Bus. Requests have no bound here."""
        self._may(subject, "listen")
        listener = Listener(subject, lambda live: None, self.service, queue, handler)
        self._servers.append(listener)
        self._broker.listen(listener)

        async def stop() -> None:
            self._broker.unlisten(listener)
            await turn()

        return stop

    async def consumer(self, stream: str, durable: str, *, rank: int = 0) -> "MemoryConsumer":
        """See port.Bus. Ranks are ignored: any replica may be served, so that simulations see every order."""
        self._may(f"{stream}/{durable}", "consume")
        found = await self._ask("publish", f"{stream}/{durable}", lambda: self._broker.durable(stream, durable))
        consumer = MemoryConsumer(self.service, self._cross, self._broker, found)
        self._consumers.append(consumer)
        return consumer

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[Stored]:
        """See port.Bus."""
        self._may(stream, "read")
        horizon = self._broker.horizon
        return await self._ask(
            "read", stream, lambda: self._broker.stream(stream).read(subject, after, limit, horizon(stream))
        )

    async def last(self, stream: str, subject: str) -> Stored | None:
        """See port.Bus."""
        self._may(stream, "read")
        horizon = self._broker.horizon
        return await self._ask("read", stream, lambda: self._broker.stream(stream).newest(subject, horizon(stream)))

    async def last_sequence(self, stream: str) -> int:
        """See port.Bus."""
        self._may(f"$JS.API.STREAM.INFO.{stream}", "publish")
        return await self._ask("read", stream, lambda: self._broker.stream(stream).last_sequence)

    async def stream_counts(self, stream: str, subjects: str = "") -> StreamCounts:
        """See port.Bus."""
        self._may(f"$JS.API.STREAM.INFO.{stream}", "publish")
        return await self._ask("read", stream, lambda: self._broker.stream(stream).counts(subjects))

    async def durable_counts(self, stream: str, durable: str) -> DurableCounts | None:
        """See port.Bus."""
        self._may(f"$JS.API.CONSUMER.INFO.{stream}.{durable}", "publish")
        return await self._ask("read", stream, lambda: self._broker.durable_counts(stream, durable))

    async def ready(self) -> bool:
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
            self._broker.unlisten(listener)
        if self._answering:
            await asyncio.gather(*self._answering, return_exceptions=True)
        self.kill("closed by this process")

    def kill(self, reason: str = "killed") -> None:
        """Cut off at once, as kill -9 does: nothing is handed back, nothing more arrives."""
        for consumer in self._consumers:
            consumer.cut()
        for live in self._lives:
            live.cut()
        for listener in self._servers:
            self._broker.unlisten(listener)
        if not self._closed.done():
            self._closed.set_result(reason)
        self._reject_all(BusClosed(f"the connection is closed: {reason}"))

    def lose(self) -> None:
        """Break the connection: pending requests fail, and standing pull requests end. Later requests use a new
        connection."""
        for consumer in self._consumers:
            consumer.lose()
        self._reject_all(BusUnavailable("the connection broke"))

    def _reject_all(self, error: BusUnavailable) -> None:
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error)

    def _cross(self, kind: str, what: str, act: Callable[[], None]) -> None:
        """Say something to the broker that it does not answer. Raises BusUnavailable."""
        self._alive()
        self._broker.deliver(Offer(kind, "broker", what, act))

    def _alive(self) -> None:
        if self._closed.done():
            raise BusClosed(f"the connection is closed: {self._closed.result()}")

    def _may(self, what: str, right: str) -> None:
        self._alive()
        if self._permissions is not None and not _any(getattr(self._permissions, right), what):
            raise PublishRefused(f"the broker denies {self.service} to {right} {what}: add it to the policy")

    def _ask(self, kind: str, what: str, act: Callable[[], T]) -> Coroutine[Any, Any, T]:
        """Have the broker do something and wait for its answer; both ways may get lost."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def there() -> None:
            try:
                value = act()
            except BusError as error:
                back = partial(_reject, future, error)
            else:
                back = partial(_resolve, future, value)
            self._broker.deliver(Offer("answer", self.service, what, back))

        return self._await(future, what, ANSWER_TIMEOUT_S, Offer(kind, "broker", what, there))

    async def _await(self, future: "asyncio.Future[T]", what: str, timeout_s: float, offer: Offer) -> T:
        clock = self._broker.clock
        cancel = clock.call_at(clock.now_ms() + round(timeout_s * 1000), partial(_late, future, what, timeout_s))
        self._waiting[future] = None
        self._broker.deliver(offer)
        try:
            # Always one turn of the loop: a service that only talks must not keep the others from running.
            await turn()
            return await future
        finally:
            cancel()
            self._waiting.pop(future, None)


def _any(patterns: tuple[str, ...], what: str) -> bool:
    return any(pattern == what or matches(pattern, what) for pattern in patterns)


def _resolve(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():
        future.set_result(value)


def _late(future: "asyncio.Future[T]", what: str, timeout_s: float) -> None:
    _reject(future, BusUnavailable(f"no answer to {what} within {timeout_s:g} s; the outcome is unknown"))


def _reject(future: "asyncio.Future[T]", error: BusError) -> None:
    if not future.done():
        future.set_exception(error)
