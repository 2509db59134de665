"""The bus on a real broker: NATS JetStream through nats-py, under one service's identity.

In: what port.Bus takes. Out: what it promises. Streams and durables are the provisioner's; this asks for nothing but
publish, pull, ack, direct get and consumer info, each of which an account can import one by one.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from nats import errors

from bulkhead.bus import wire
from bulkhead.bus.jetstream.client import DirectClient, HandleMessage, SocketMessage
from bulkhead.bus.jetstream.connection import Connection, ConnectionLost
from bulkhead.bus.jetstream.publish_window import PublishWindows
from bulkhead.bus.jetstream.pull_consumer import JetStreamConsumer
from bulkhead.bus.jetstream.renewal import MovingSubscription
from bulkhead.bus.jetstream.request_reply import ReplyCollector
from bulkhead.bus.jetstream.token_file import TokenFile
from bulkhead.bus.live_queue import LiveQueue
from bulkhead.bus.port import (
    BusError,
    BusUnavailable,
    DurableCounts,
    IsLongPoll,
    LiveMessage,
    NoResponders,
    PubAck,
    PublishRefused,
    RpcHandler,
    Schedule,
    StoredMessage,
    StreamCounts,
    never_long_poll,
)
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects

log = Log("bus")

PUBLISH_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
API_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 1.0
NO_STREAM_ATTEMPTS = 3
NO_STREAM_PAUSE_S = 0.2
"""A stream between two leaders answers as if it did not exist: ask a few times before believing it."""
MAX_RPC_AT_ONCE = 256
MAX_RPC_WAITING = 4_096
"""Requests that wait for those; beyond it one is not answered, as if nobody had heard it."""
MAX_RPC_LONG_POLLS = 4_096
"""Requests that stand until there is something to tell; they take no turn of the others."""


class JetStreamBus:
    """See port.Bus; made by `connect`."""

    def __init__(self, connection: Connection, service: str, js_prefix: str, inbox_prefix: str) -> None:
        self._connection = connection
        self._service = service
        self._api = js_prefix
        self._replies = ReplyCollector(connection, inbox_prefix)
        self._windows = PublishWindows()
        self._consumers: list[JetStreamConsumer] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        service: str,
        nkey_seed: str | None = None,
        js_prefix: str = "JSMESH.API",
        inbox_prefix: str | None = None,
        name: str = "",
        timeout_s: float = 30.0,
        ca_file: Path | None = None,
        ping_s: float = 0,
        token_file: Path | None = None,
    ) -> "JetStreamBus":
        """Connect as a service. js_prefix: `$JS.API` in the account that owns the streams. ca_file: TLS, with the
        broker's certificate held against this CA. ping_s: how often the broker is asked whether it is there; 0: as
        usual. token_file: log in with the token there, and again before it ends. Raises BusUnavailable."""
        prefix = inbox_prefix or f"_INBOX_{service}"
        connection = Connection(url, ca_file, TokenFile(token_file) if token_file is not None else None)
        await connection.open(
            nkey_seed=nkey_seed, inbox_prefix=prefix, name=name or service, timeout_s=timeout_s, ping_s=ping_s
        )
        return cls(connection, service, js_prefix, prefix)

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
            return await self._store_in_window(subject, body, sent)
        except wire.StreamWrongLastSequence as error:
            if expect_none_on:
                raise
            # After a lost ack the message meets itself: only another one's message is a conflict.
            own_ack = await self._find_own_ack(error.stream, subject, message_id)
            if own_ack is None:
                raise
            return own_ack

    async def schedule(self, schedule: Schedule, message_id: str) -> PubAck:
        """See port.Bus."""
        headers = wire.schedule_headers(schedule, message_id)
        return await self._store_in_window(schedule.subject, schedule.body, headers)

    async def _store_in_window(self, subject: str, body: bytes, headers: dict[str, str]) -> PubAck:
        """Publish until the broker says something, within the timeout: the message id makes repeats harmless."""
        loop = asyncio.get_running_loop()
        deadline, nobody = loop.time() + PUBLISH_TIMEOUT_S, 0
        window = self._windows.window_of(subject)
        await window.wait_for_slot()
        try:
            # The slot is held over a broken connection, too: what came after it must not be stored before it.
            while True:
                if not self._connection.connected:
                    await self._connection.wait_until_connected(max(0.0, deadline - loop.time()))
                left_s = deadline - loop.time()
                if left_s <= 0:
                    raise BusUnavailable(
                        f"no time is left to send {subject}: the broker did not answer those before it, "
                        f"or was away, for {PUBLISH_TIMEOUT_S:g} s; publish again with the same id"
                    )
                try:
                    [answer] = await self._replies.request_replies(subject, body, headers, timeout_s=left_s)
                except ConnectionLost:
                    continue
                if wire.status_code(answer.headers) != 503:
                    return wire.pub_ack(answer.data, subject)
                nobody += 1
                if nobody >= NO_STREAM_ATTEMPTS or loop.time() + NO_STREAM_PAUSE_S >= deadline:
                    raise PublishRefused(
                        f"{subject} was not stored: no stream takes this subject, or it has no leader now; start "
                        "what is missing of a cluster, or run the provisioner; then publish again with the same id"
                    )
                await asyncio.sleep(NO_STREAM_PAUSE_S)
        finally:
            window.release_slot()

    async def _find_own_ack(self, stream: str, subject: str, message_id: str) -> PubAck | None:
        is_foreign = stream.startswith(subjects.inbox_stream("")) and stream != subjects.inbox_stream(self._service)
        if not stream or (is_foreign and subject.endswith(f".{subjects.NO_KEY}")):
            return None  # In another's inbox only outcomes are read; each try would be a violation at the broker.
        try:
            stored = await (self.last_on(stream, subject) if is_foreign else self.last(stream, subject))
        except BusError:
            return None  # A publisher without the right to read there cannot tell.
        if stored is None or stored.headers.get(wire.MESSAGE_ID) != message_id:
            return None
        return PubAck(stream, stored.sequence, duplicate=True)

    async def publish_live(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See port.Bus. While the connection is broken it is lost, like every unheard word."""
        if self._connection.connected:
            self._connection.send(subject, body, headers=dict(headers) if headers else None)

    async def subscribe_live(self, subject: str, max_pending: int = 10_000) -> "JetStreamLiveSubscription":
        """See port.Bus. Raises BusError when this identity may not listen there."""
        live = JetStreamLiveSubscription(self._connection, max_pending)
        live.subscription = await self._subscribe_checked(subject, lambda _: live.on_message)
        self._stops.append(live.close)
        return live

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0
    ) -> LiveMessage:
        """See port.Bus."""
        await self._connection.wait_until_connected(timeout_s)
        sent = dict(headers) if headers else None
        [answer] = await self._replies.request_replies(subject, body, sent, timeout_s=timeout_s)
        if wire.status_code(answer.headers) == 503:
            raise NoResponders(f"nobody answers {subject}: the service is not running; ask again later")
        return LiveMessage(subject, answer.headers or {}, answer.data)

    async def serve(
        self, subject: str, queue: str, handler: RpcHandler, *, is_long_poll: IsLongPoll = never_long_poll
    ) -> Callable[[], Awaitable[None]]:
        """See port.Bus."""
        server = _RpcServer(self._connection, handler, is_long_poll)
        server.subscription = await self._subscribe_checked(
            subject, lambda client: partial(server.on_request, client), queue
        )
        self._stops.append(server.stop)
        return server.stop

    async def open_consumer(
        self, stream: str, durable: str, *, rank: int = 0, reclaims: bool = False
    ) -> JetStreamConsumer:
        """See port.Bus. Raises BusUnavailable when the provisioner has not made it."""
        await self._connection.wait_until_connected(API_TIMEOUT_S)
        description = f"durable {durable} of {stream}"
        [answer] = await self._replies.request_replies(
            f"{self._api}.CONSUMER.INFO.{stream}.{durable}", b"", timeout_s=API_TIMEOUT_S
        )
        if wire.status_code(answer.headers) == 503:
            raise BusUnavailable(f"{description}: this account does not import it; add it to the policy and render")
        state = wire.api_answer(answer.data, description)
        config = state["config"]
        ack_wait_s = config.get("ack_wait", 30 * 10**9) / 1e9
        next_subject = f"{self._api}.CONSUMER.MSG.NEXT.{stream}.{durable}"
        ranked = next(iter(config.get("priority_groups") or ()), "")
        consumer = JetStreamConsumer(self._connection, stream, durable, next_subject, ack_wait_s, ranked, rank)
        self._consumers.append(consumer)
        if reclaims:
            for subject in wire.reclaim_subjects(state, stream, durable):
                self._connection.send(subject, b"-NAK")
        return consumer

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        """See port.Bus. Raises BusUnavailable."""
        query: dict[str, str | int] = {"seq": after + 1, "next_by_subj": subject, "batch": limit}
        return await self._direct_get(stream, query, many=True)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """See port.Bus. Raises BusUnavailable."""
        messages = await self._direct_get(stream, {"last_by_subj": subject}, many=False)
        return messages[0] if messages else None

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """See port.Bus. Raises BusUnavailable."""
        messages = await self._direct_get(stream, {}, many=False, subject=f".{subject}")
        return messages[0] if messages else None

    async def _direct_get(
        self, stream: str, wanted: Mapping[str, str | int], many: bool, subject: str = ""
    ) -> list[StoredMessage]:
        await self._connection.wait_until_connected(READ_TIMEOUT_S)
        query = json.dumps(wanted).encode() if wanted else b""
        answers = await self._replies.request_replies(
            f"{self._api}.DIRECT.GET.{stream}{subject}", query, timeout_s=READ_TIMEOUT_S, many=many
        )
        return wire.read_page([(answer.headers, answer.data) for answer in answers], stream)

    async def last_sequence(self, stream: str) -> int:
        """See port.Bus. Raises BusError."""
        return (await self.stream_counts(stream)).last_sequence

    async def stream_counts(self, stream: str, subjects: str = "") -> StreamCounts:
        """See port.Bus. Raises BusError."""
        query = json.dumps({"subjects_filter": subjects}).encode() if subjects else b""
        answer = await self.request(f"{self._api}.STREAM.INFO.{stream}", query, timeout_s=READ_TIMEOUT_S)
        return wire.stream_counts(answer.body, stream)

    async def durable_counts(self, stream: str, durable: str) -> DurableCounts | None:
        """See port.Bus. Raises BusError."""
        answer = await self.request(f"{self._api}.CONSUMER.INFO.{stream}.{durable}", b"", timeout_s=READ_TIMEOUT_S)
        return wire.durable_counts(answer.body, durable)

    async def time_unix_ms(self) -> int:
        """The broker's time, from the reply to a stream's counts, which every identity may ask for. Raises BusError."""
        subject = f"{self._api}.STREAM.INFO.{subjects.CONTROL_STREAM}"
        answer = await self.request(subject, b"", timeout_s=READY_TIMEOUT_S)
        try:
            return wire.time_of(json.loads(answer.body)["ts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BusError(f"the broker does not tell its time ({error!r}); use nats-server 2.14 or newer") from error

    async def is_ready(self) -> bool:
        """See port.Bus."""
        return await self._connection.round_trip(READY_TIMEOUT_S)

    async def wait_closed(self) -> str:
        """See port.Bus."""
        return await asyncio.shield(self._connection.closed)

    async def close(self) -> None:
        """See port.Bus."""
        for consumer in self._consumers:
            await consumer.close()
        for stop in self._stops:
            await stop()
        await self._connection.close()

    async def _subscribe_checked(
        self, subject: str, taking: Callable[[DirectClient], HandleMessage], queue: str = ""
    ) -> MovingSubscription:
        denied: list[BusError] = []
        await self._connection.wait_until_connected(API_TIMEOUT_S)
        self._connection.watch_refusals(subject, denied.append)
        try:
            subscription = await self._connection.listen(subject, taking, queue)
            # nats-py's ping overtakes what is not written yet: only the second one proves that the broker has judged.
            await self._connection.round_trip(API_TIMEOUT_S)
            await self._connection.round_trip(API_TIMEOUT_S)
        except (errors.Error, OSError) as error:
            raise BusUnavailable(f"cannot listen to {subject}: {error}") from error
        finally:
            self._connection.unwatch_refusals(subject, denied.append)
        if denied:
            raise denied[0]
        return subscription


class JetStreamLiveSubscription(LiveQueue):
    """See port.LiveSubscription. It ends with its connection, too."""

    def __init__(self, connection: Connection, max_pending: int) -> None:
        super().__init__(max_pending)
        self.subscription: MovingSubscription | None = None
        connection.closed.add_done_callback(lambda _: self.end())

    def on_message(self, message: SocketMessage) -> None:
        """One message, as it was read."""
        self.add_message(LiveMessage(message.subject, message.headers or {}, message.data))

    async def close(self) -> None:
        """Stop listening; the iteration ends after what was already heard."""
        self.end()
        if self.subscription is not None:
            await self.subscription.stop()


class _RpcServer:
    """Answers requests, many at once, within a bound."""

    def __init__(self, connection: Connection, handler: RpcHandler, is_long_poll: IsLongPoll = never_long_poll) -> None:
        self.subscription: MovingSubscription | None = None
        self._connection = connection
        self._handler, self._is_long_poll = handler, is_long_poll
        self._running: set[asyncio.Task[None]] = set()
        self._long_polls: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[DirectClient, str, LiveMessage]] = deque()

    def on_request(self, client: DirectClient, message: SocketMessage) -> None:
        """One request, which came to this client."""
        request = LiveMessage(message.subject, message.headers or {}, message.data)
        if self._is_long_poll(request):
            if len(self._long_polls) < MAX_RPC_LONG_POLLS:
                self._start_answer(client, message.reply, request, self._long_polls)
            else:
                log.warning("rpc_dropped", subject=message.subject, standing=MAX_RPC_LONG_POLLS)
        elif len(self._running) < MAX_RPC_AT_ONCE:
            self._start_answer(client, message.reply, request, self._running)
        elif len(self._waiting) < MAX_RPC_WAITING:
            self._waiting.append((client, message.reply, request))
        else:
            log.warning("rpc_dropped", subject=message.subject, waiting=MAX_RPC_WAITING)

    def _start_answer(
        self, client: DirectClient, reply: str, asked: LiveMessage, among: set[asyncio.Task[None]]
    ) -> None:
        task = asyncio.ensure_future(self._answer_request(client, reply, asked))
        among.add(task)
        task.add_done_callback(partial(self._on_answer_ended, among))

    async def _answer_request(self, client: DirectClient, reply: str, asked: LiveMessage) -> None:
        headers, body = await self._handler(asked)
        if reply:
            self._connection.send(reply, body, headers=dict(headers) or None, over=client)

    def _on_answer_ended(self, among: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        among.discard(task)
        if self._waiting and len(self._running) < MAX_RPC_AT_ONCE:
            self._start_answer(*self._waiting.popleft(), self._running)
        if not task.cancelled() and task.exception() is not None:
            log.error("rpc_answer_failed", reason=repr(task.exception()))

    async def stop(self) -> None:
        """Take no more requests, answer those that came."""
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            await subscription.stop()
        deadline = asyncio.get_running_loop().time() + API_TIMEOUT_S
        while (under_way := self._running | self._long_polls) and (
            left_s := deadline - asyncio.get_running_loop().time()
        ) > 0:
            await asyncio.wait(under_way, timeout=left_s)
