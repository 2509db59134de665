"""Requests and replies over one inbox subscription, many at a time.

In: a subject and a body. Out: the messages of the reply; or an error at once when the broker refuses the request or the
connection breaks. The inbox is renewed now and then: over an account import with `response_type: stream` the broker
remembers every request for as long as the inbox subscription lives.
"""

import asyncio
from dataclasses import dataclass, field

from nats import errors
from nats.aio.subscription import Subscription

from bulkhead.bus.jetstream.client import SocketMessage
from bulkhead.bus.jetstream.connection import Connection, ConnectionLost
from bulkhead.bus.port import BusError, BusUnavailable
from bulkhead.bus.wire import status_code

MAX_QUESTIONS_PER_INBOX = 1_000
TIMER_TOLERANCE_S = 0.002
"""A loop may call what is due so much before its own clock says so."""


@dataclass(eq=False, slots=True)
class _PendingRequest:
    """One question in flight. many: the answer ends with a status."""

    done: asyncio.Future[list[SocketMessage]]
    many: bool
    subject: str = ""
    timeout_s: float = 0.0
    deadline: float = 0.0
    messages: list[SocketMessage] = field(default_factory=list)

    def add_reply(self, message: SocketMessage) -> None:
        if self.done.done():
            return  # The caller has not run yet, and must find the answer.
        self.messages.append(message)
        if not self.many or status_code(message.headers):
            self.done.set_result(self.messages)

    def fail(self, error: BusError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class _ReplyInbox:
    prefix: str
    subscription: Subscription | None = None
    asked: int = 0
    open: dict[str, _PendingRequest] = field(default_factory=dict)

    def route_reply(self, message: SocketMessage) -> None:
        question = self.open.get(message.subject[len(self.prefix) :])
        if question is not None:
            question.add_reply(message)


class ReplyCollector:
    """Asks and matches answers."""

    def __init__(self, connection: Connection, inbox_prefix: str) -> None:
        self._connection = connection
        self._inbox_prefix = inbox_prefix
        self._inbox: _ReplyInbox | None = None
        self._opening = asyncio.Lock()
        self._questions: set[_PendingRequest] = set()
        self._timer: asyncio.TimerHandle | None = None
        """One for all questions: nearly every one is answered long before its time."""
        connection.on_lost.add(self._on_lost)
        connection.on_renewed.add(self._on_renewed)

    async def request_replies(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, *, timeout_s: float, many: bool = False
    ) -> list[SocketMessage]:
        """All messages of the answer. Raises BusUnavailable (no answer), PublishRefused (denied)."""
        loop = asyncio.get_running_loop()
        inbox = self._inbox
        if inbox is None or inbox.asked >= MAX_QUESTIONS_PER_INBOX:
            inbox = await self._open_inbox()
        inbox.asked += 1
        token = str(inbox.asked)
        question = _PendingRequest(loop.create_future(), many, subject, timeout_s, loop.time() + timeout_s)
        inbox.open[token] = question
        self._questions.add(question)
        if self._timer is None or question.deadline < self._timer.when():
            self._arm_timer(question.deadline)
        self._connection.watch_refusals(subject, question.fail)
        try:
            self._connection.send(subject, body, inbox.prefix + token, headers)
            return await question.done
        finally:
            self._connection.unwatch_refusals(subject, question.fail)
            self._questions.discard(question)
            inbox.open.pop(token, None)
            if inbox is not self._inbox and not inbox.open:
                await self._drop_inbox(inbox)

    def _arm_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._fail_overdue)

    def _fail_overdue(self) -> None:
        """Fail what is overdue; the timer is set for the next to be."""
        self._timer, now_s = None, asyncio.get_running_loop().time() + TIMER_TOLERANCE_S
        for question in list(self._questions):
            if question.deadline <= now_s:
                reason = f"no answer to {question.subject} within {question.timeout_s:g} s; the outcome is unknown"
                question.fail(BusUnavailable(reason))
        deadlines = [pending.deadline for pending in self._questions if pending.deadline > now_s]
        if deadlines:
            self._arm_timer(min(deadlines))

    async def _open_inbox(self) -> _ReplyInbox:
        async with self._opening:
            inbox = self._inbox
            if inbox is not None and inbox.asked < MAX_QUESTIONS_PER_INBOX:
                return inbox
            fresh = _ReplyInbox(self._connection.nc.new_inbox() + ".")
            try:
                fresh.subscription = await self._connection.nc.listen(fresh.prefix + "*", fresh.route_reply)
            except (errors.Error, OSError) as error:
                raise BusUnavailable(f"no inbox for answers: {error}") from error
            self._inbox = fresh
            if inbox is not None and not inbox.open:
                await self._drop_inbox(inbox)
            return fresh

    async def _drop_inbox(self, inbox: _ReplyInbox) -> None:
        subscription, inbox.subscription = inbox.subscription, None
        if subscription is None or self._connection.nc.is_closed:
            return
        try:
            await subscription.unsubscribe()
        except (errors.Error, OSError):
            pass  # The broker forgets the subscription with the connection.

    def _on_renewed(self) -> None:
        """The next question opens an inbox at the new client; the others are answered at the one before."""
        self._inbox = None

    def _on_lost(self) -> None:
        for question in list(self._questions):
            question.fail(ConnectionLost("the connection broke before the answer came; ask again"))
