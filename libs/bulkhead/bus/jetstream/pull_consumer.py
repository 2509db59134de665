"""A durable pull consumer with standing requests: messages come as soon as they are stored.

In: the number of free slots. Out: deliveries, never more than that. Messages that a standing request may still bring
count against the slots; a request ends with the fetch that made it, so that no message stays unseen for long.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats import errors
from nats.aio.subscription import Subscription

from bulkhead.bus.jetstream.client import SocketMessage
from bulkhead.bus.jetstream.connection import Connection
from bulkhead.bus.port import BusError, BusUnavailable, StoredMessage
from bulkhead.bus.wire import DESCRIPTION, AckPosition, parse_ack_subject, status_code
from bulkhead.telemetry.log import Log

log = Log("bus")

MAX_PULLS_PER_INBOX = 1_000
MAX_PULL_S = 5.0
OVERDUE_S = 1.0
"""A request whose end was not told so long after its expiry is taken as gone."""
ORDINARY_ENDS = (404, 408)
"""Statuses of a request's end that says nothing of the broker: there was nothing, in time or at all."""
PAUSE_S = 0.2
"""Before asking again after a refusal."""
CHECK_S = 1.0
PENDING = "Nats-Pending-Messages"
PRIORITY_GROUP = "replicas"
"""The one group of a durable that several replicas share by rank (infra/bulkhead_infra/nats/streams.py)."""
ACK = b"+ACK"
GROUP_REFUSED = "priority group"


@dataclass(eq=False, slots=True)
class JetStreamDelivery:
    """See port.BusDelivery."""

    stored: StoredMessage
    stream: str
    consumer_sequence: int
    attempts: int
    run: int
    _answer: Callable[[bytes], Awaitable[None]]

    async def ack(self) -> None:
        await self._answer(ACK)

    async def nak(self, delay_s: float = 0.0) -> None:
        delay = b' {"delay": %d}' % int(delay_s * 1e9) if delay_s > 0 else b""
        await self._answer(b"-NAK" + delay)

    async def term(self, reason: str = "") -> None:
        await self._answer(f"+TERM {reason}".strip().encode())

    async def in_progress(self) -> None:
        await self._answer(b"+WPI")


@dataclass(eq=False, slots=True)
class _PullInbox:
    prefix: str
    subscription: Subscription
    pulls: int = 0
    quiet_after: float = 0.0


class JetStreamConsumer:
    """See port.Consumer. One fetch at a time."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        durable: str,
        next_subject: str,
        ack_wait_s: float,
        group: str = "",
        rank: int = 0,
    ) -> None:
        """group: in which the durable heeds ranks; "" where it heeds none."""
        self.ack_wait_s = ack_wait_s
        self._group, self._rank = group, rank
        self._connection = connection
        self._name = f"{stream}/{durable}"
        self._next = next_subject
        self._buffer: deque[JetStreamDelivery] = deque()
        self._open = 0
        self._pulls: dict[str, int] = {}
        """Room that each standing request asked for."""
        self._pulls_end = 0.0
        """End of the last of them."""
        self._serial = 0
        self._run = 0
        self._inbox: _PullInbox | None = None
        self._retired: list[_PullInbox] = []
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[JetStreamDelivery], None] | None = None
        self._took = False
        self._trouble = ""
        self._pause_until = 0.0
        self._refused: BusError | None = None
        self._closed = False
        connection.on_lost.add(self._on_lost)
        connection.on_returned.add(self._wake_waiter)
        connection.on_renewed.add(self._on_renewed)
        connection.watch_refusals(next_subject, self._on_denied)

    async def fetch(self, max_messages: int, timeout_s: float = 5.0) -> list[JetStreamDelivery]:
        """See port.Consumer. Raises BusUnavailable when the time is over without a broker, a durable or a right."""
        deliveries: list[JetStreamDelivery] = []
        try:
            await self.hand_over(max_messages, deliveries.append, timeout_s)
        except BaseException:
            self._buffer.extendleft(reversed(deliveries))
            raise
        return deliveries

    async def hand_over(
        self, max_messages: int, take: Callable[[JetStreamDelivery], None], timeout_s: float = 5.0
    ) -> None:
        """See port.Consumer. Raises as fetch."""
        assert max_messages > 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self._check_usable()
            now_s = loop.time()
            if self._connection.connected and self._pause_until <= now_s < deadline:
                await self._top_up(max_messages, now_s, deadline)
            if self._buffer:
                for _ in range(min(max_messages, len(self._buffer))):
                    take(self._buffer.popleft())
                return
            if now_s >= deadline:
                self._raise_why_empty()
                return
            if await self._wait_for_event(min(deadline - now_s, max(self._pause_until - now_s, 0) or CHECK_S), take):
                return

    async def close(self) -> None:
        """Hand back what was not fetched. What the broker sends in the meantime is handed back too."""
        if self._closed:
            return
        self._closed = True
        self._connection.on_lost.discard(self._on_lost)
        self._connection.on_returned.discard(self._wake_waiter)
        self._connection.on_renewed.discard(self._on_renewed)
        self._connection.unwatch_refusals(self._next, self._on_denied)
        inboxes = [*self._retired, *([self._inbox] if self._inbox else [])]
        self._inbox, self._retired = None, []
        self._wake_waiter()
        try:
            for inbox in inboxes:
                if self._connection.connected:
                    await inbox.subscription.drain()  # type: ignore[no-untyped-call]
                elif not self._connection.nc.is_closed:
                    await inbox.subscription.unsubscribe()
            while self._buffer:
                await self._buffer.popleft().nak()
        except (errors.Error, OSError, BusError) as error:
            log.warning("consumer_not_drained", consumer=self._name, reason=str(error))

    def _check_usable(self) -> None:
        self._connection.check_open()
        if self._closed:
            raise BusUnavailable(f"consumer {self._name} is closed")
        if self._refused is not None:
            error, self._refused = self._refused, None
            raise error

    def _raise_why_empty(self) -> None:
        """Say why, when it is not that there was nothing."""
        if not self._connection.connected:
            raise BusUnavailable(f"{self._name}: no connection to the broker ({self._connection.last_error})")
        if self._trouble:
            raise BusUnavailable(f"{self._name}: {self._trouble}")

    async def _top_up(self, max_messages: int, now: float, deadline: float) -> None:
        """Ask for the room that no standing request covers; not for every single message under load."""
        self._forget_overdue(now)
        room = max_messages - len(self._buffer) - self._open
        if room <= 0 or self._open * 2 > max_messages - len(self._buffer):
            return
        if self._open and (self._inbox is None or self._inbox.pulls >= MAX_PULLS_PER_INBOX):
            # Two inboxes at a time would mix up the order: let what stands on the one before come first.
            return
        inbox = await self._current_inbox(now)
        expires_s = max(0.02, min(deadline - now, MAX_PULL_S))
        self._serial += 1
        token = str(self._serial)
        self._pulls[token], self._pulls_end = room, max(self._pulls_end, now + expires_s)
        self._open += room
        inbox.pulls += 1
        request: dict[str, int | str] = {"batch": room, "expires": int(expires_s * 1e9)}
        if self._group:
            request |= {"group": self._group, "priority": self._rank}
        body = json.dumps(request).encode()
        try:
            self._connection.send(self._next, body, inbox.prefix + token)
        except BusUnavailable:
            self._end_pull(token, None)
            raise

    async def _current_inbox(self, now: float) -> _PullInbox:
        """The inbox for the next request. A fresh one every so often: see request_reply.py."""
        for old in [inbox for inbox in self._retired if inbox.quiet_after < now]:
            self._retired.remove(old)
            await self._unsubscribe_inbox(old)
        if self._inbox is not None and self._inbox.pulls < MAX_PULLS_PER_INBOX:
            return self._inbox
        prefix = self._connection.nc.new_inbox() + "."
        try:
            subscription = await self._connection.nc.listen(prefix + "*", self._on_message)
        except (errors.Error, OSError) as error:
            raise BusUnavailable(f"{self._name}: no inbox: {error}") from error
        before, self._inbox = self._inbox, _PullInbox(prefix, subscription)
        if before is not None:
            await self._unsubscribe_inbox(before)
        return self._inbox

    async def _unsubscribe_inbox(self, inbox: _PullInbox) -> None:
        try:
            if not self._connection.nc.is_closed:
                await inbox.subscription.unsubscribe()
        except (errors.Error, OSError):
            pass  # The broker forgets the subscription with the connection.

    def _on_message(self, message: SocketMessage) -> None:
        position = parse_ack_subject(message.reply) if message.reply else None
        if position is None:
            self._on_status(message)
            return
        self._open = max(0, self._open - 1)
        if not self._open:
            self._pulls.clear()
        self._trouble = ""
        delivery = self._make_delivery(message, position)
        if self._take is not None and not self._buffer:
            self._took = True
            self._take(delivery)
        else:
            self._buffer.append(delivery)
        self._wake_waiter()

    def _make_delivery(self, message: SocketMessage, where: AckPosition) -> JetStreamDelivery:
        reply = message.reply

        async def send_answer(what: bytes) -> None:
            self._connection.send(reply, what, can_wait=what == ACK)

        stored = StoredMessage(message.subject, message.headers or {}, message.data, where.sequence, where.time_unix_ms)
        return JetStreamDelivery(stored, where.stream, where.consumer_sequence, where.attempts, self._run, send_answer)

    def _on_status(self, message: SocketMessage) -> None:
        """The end of one request: its remainder is room again."""
        headers = message.headers or {}
        code, text = status_code(headers), headers.get(DESCRIPTION, "")
        token = message.subject.rpartition(".")[2]
        if code == 100 or token not in self._pulls:
            return
        pending = headers.get(PENDING, "")
        self._end_pull(token, int(pending) if pending.isdigit() else None)
        self._trouble = ""
        if code not in ORDINARY_ENDS:
            self._run += 1
        if code != 408:
            if code == 503:
                text = (
                    "no such durable, or it has no leader now; start what is missing of a cluster, or run the "
                    "provisioner"
                )
            if code == 400 and GROUP_REFUSED in text.lower():
                # The provisioner has changed the durable since: ask as it is now.
                self._group = "" if self._group else PRIORITY_GROUP
            self._trouble = f"{text or 'the broker ended the request'} ({code})"
            self._pause_until = asyncio.get_running_loop().time() + PAUSE_S
        self._wake_waiter()

    def _end_pull(self, token: str, remainder: int | None) -> None:
        room = self._pulls.pop(token, 0)
        self._open = max(0, self._open - (room if remainder is None else remainder))
        if not self._pulls:
            self._open = 0

    def _forget_overdue(self, now: float) -> None:
        if self._pulls and self._pulls_end + OVERDUE_S < now:
            # They will not be answered any more: the durable's leader may be gone.
            self._run += 1
            self._pulls.clear()
            self._open = 0

    def _on_lost(self) -> None:
        """Standing requests end with the connection, and so does their inbox: the broker cannot revive them there."""
        self._pulls.clear()
        self._open = 0
        # One written while the connection broke may still be sent: what it brings is not thrown away.
        self._on_renewed()

    def _on_renewed(self) -> None:
        """The next request has an inbox at the new client; what stands brings its messages over the one before."""
        self._run += 1
        if self._inbox is not None:
            self._inbox.quiet_after = asyncio.get_running_loop().time() + MAX_PULL_S + OVERDUE_S
            self._retired.append(self._inbox)
            self._inbox = None
        self._wake_waiter()

    def _on_denied(self, error: BusError) -> None:
        self._refused = error
        self._pulls.clear()
        self._open = 0
        self._wake_waiter()

    def _wake_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_for_event(self, timeout_s: float, take: Callable[[JetStreamDelivery], None]) -> bool:
        """Wait until something happens; true when `take` was given anything."""
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        self._take, self._took = take, False
        timer = loop.call_later(timeout_s, self._wake_waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = self._take = None
        return self._took
