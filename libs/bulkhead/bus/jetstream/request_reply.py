"""Requests and replies over one inbox subscription, many at a time.

In: a subject and a body. Out: the messages of the reply; or an error at once when the broker refuses the request or the
connection breaks. The inbox is renewed now and then: over an account import with `response_type: stream` the broker
remembers every request for as long as the inbox subscription lives.
"""

import asyncio
from dataclasses import dataclass, field

from nats import errors
from nats.aio.subscription import Subscription

from bulkhead.bus.jetstream.client import RawMessage
from bulkhead.bus.jetstream.connection import Connection, ConnectionLost
from bulkhead.bus.port import BusError, BusUnavailable
from bulkhead.bus.wire import status

MAX_QUESTIONS_PER_INBOX = 1_000
CLOCK_S = 0.002
"""A loop may call what is due so much before its own clock says so."""


@dataclass(eq=False, slots=True)
class _Question:
    """One question in flight. many: the answer ends with a status."""

    done: asyncio.Future[list[RawMessage]]
    many: bool
    subject: str = ""
    timeout_s: float = 0.0
    deadline: float = 0.0
    messages: list[RawMessage] = field(default_factory=list)

    def take(self, message: RawMessage) -> None:
        if self.done.done():
            return  # The caller has not run yet, and must find the answer.
        self.messages.append(message)
        if not self.many or status(message.headers):
            self.done.set_result(self.messages)

    def fail(self, error: BusError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class _Inbox:
    prefix: str
    subscription: Subscription | None = None
    asked: int = 0
    open: dict[str, _Question] = field(default_factory=dict)

    def take(self, message: RawMessage) -> None:
        question = self.open.get(message.subject[len(self.prefix) :])
        if question is not None:
            question.take(message)


class Replies:
    """Asks and matches answers."""

    def __init__(self, connection: Connection, inbox_prefix: str) -> None:
        self._connection = connection
        self._inbox_prefix = inbox_prefix
        self._inbox: _Inbox | None = None
        self._opening = asyncio.Lock()
        self._questions: set[_Question] = set()
        self._timer: asyncio.TimerHandle | None = None
        """One for all questions: nearly every one is answered long before its time."""
        connection.on_lost.add(self._lost)
        connection.on_renewed.add(self._renewed)

    async def ask(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, *, timeout_s: float, many: bool = False
    ) -> list[RawMessage]:
        """All messages of the answer. Raises BusUnavailable (no answer), PublishRefused (denied)."""
        loop = asyncio.get_running_loop()
        inbox = self._inbox
        if inbox is None or inbox.asked >= MAX_QUESTIONS_PER_INBOX:
            inbox = await self._renew()
        inbox.asked += 1
        token = str(inbox.asked)
        question = _Question(loop.create_future(), many, subject, timeout_s, loop.time() + timeout_s)
        inbox.open[token] = question
        self._questions.add(question)
        if self._timer is None or question.deadline < self._timer.when():
            self._arm(question.deadline)
        self._connection.watch(subject, question.fail)
        try:
            self._connection.send(subject, body, inbox.prefix + token, headers)
            return await question.done
        finally:
            self._connection.unwatch(subject, question.fail)
            self._questions.discard(question)
            inbox.open.pop(token, None)
            if inbox is not self._inbox and not inbox.open:
                await self._drop(inbox)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fail what is overdue; the timer is set for the next to be."""
        self._timer, now = None, asyncio.get_running_loop().time() + CLOCK_S
        for one in list(self._questions):
            if one.deadline <= now:
                why = f"no answer to {one.subject} within {one.timeout_s:g} s; the outcome is unknown"
                one.fail(BusUnavailable(why))
        left = [one.deadline for one in self._questions if one.deadline > now]
        if left:
            self._arm(min(left))

    async def _renew(self) -> _Inbox:
        async with self._opening:
            inbox = self._inbox
            if inbox is not None and inbox.asked < MAX_QUESTIONS_PER_INBOX:
                return inbox
            fresh = _Inbox(self._connection.nc.new_inbox() + ".")
            try:
                fresh.subscription = await self._connection.nc.listen(fresh.prefix + "*", fresh.take)
            except (errors.Error, OSError) as error:
                raise BusUnavailable(f"no inbox for answers: {error}") from error
            self._inbox = fresh
            if inbox is not None and not inbox.open:
                await self._drop(inbox)
            return fresh

    async def _drop(self, inbox: _Inbox) -> None:
        subscription, inbox.subscription = inbox.subscription, None
        if subscription is None or self._connection.nc.is_closed:
            return
        try:
            await subscription.unsubscribe()
        except (errors.Error, OSError):
            pass  # The broker forgets the subscription with the connection.

    def _renewed(self) -> None:
        """The next question opens an inbox at the new client; the others are answered at the one before."""
        self._inbox = None

    def _lost(self) -> None:
        for question in list(self._questions):
            question.fail(ConnectionLost("the connection broke before the answer came; ask again"))
