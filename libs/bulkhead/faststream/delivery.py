"""The middleware of an event's way: its envelope, its trace, once in this process, heartbeats, and where it ends.

Acks last. An event whose handler fails comes again after a while, and after its attempts is dead: given to the
program's own function, then terminated at the broker.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from faststream import BaseMiddleware
from faststream.nats import NatsMessage
from opentelemetry.trace import SpanKind

from bulkhead.bounded_dict import BoundedDict
from bulkhead.runtime.background import cancel_tasks
from bulkhead.telemetry import trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope
from bulkhead_contracts.envelope import Envelope, EnvelopeError

log = Log("faststream")

HEARTBEAT_S = 4.0
"""Well below the time after which the broker hands an unanswered event out again."""
AGAIN_FIRST_S, AGAIN_MOST_S = 1.0, 60.0
MAX_SEEN = 10_000
MAX_PLACES = 8


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that is not handed out again. error: of its last attempt. id, type: "" where it has no envelope."""

    id: str
    type: str
    subject: str
    body: bytes
    attempts: int
    error: BaseException


async def buried_in_log(dead: DeadEvent) -> None:
    """Says so; the event can be had again from its stream for seven days."""
    error = f"{type(dead.error).__name__}: {dead.error}"
    log.error("event_dead", id=dead.id, type=dead.type, subject=dead.subject, attempts=dead.attempts, error=error)


class EventDelivery:
    """Makes the middleware of each message: one of these per broker."""

    def __init__(self, attempts: int, dead: Callable[[DeadEvent], Awaitable[None]]) -> None:
        self.attempts, self.dead = attempts, dead
        self.done = BoundedDict[str, frozenset[int]](MAX_SEEN)
        """By id, where it lay in the stream: an event may have been told twice."""
        self.running: set[str] = set()

    def was_handled(self, event_id: str, sequence: int, attempts: int) -> bool:
        """True if this one has been handled here; not where the subscriber has set itself back, and wants it again."""
        places = self.done.get(event_id)
        if places is None:
            return False
        if attempts == 1 and sequence in places:
            del self.done[event_id]
            return False
        self.mark_handled(event_id, sequence)
        return True

    def mark_handled(self, event_id: str, sequence: int) -> None:
        """Drop what comes with this id, but for a first delivery of the very same message."""
        sequences = self.done.get(event_id, frozenset())
        self.done[event_id] = sequences | {sequence} if sequence and len(sequences) < MAX_PLACES else sequences

    def __call__(self, message: Any, /, *, context: Any) -> "_Middleware":
        return _Middleware(message, context=context, delivery=self)


class _Middleware(BaseMiddleware[Any, Any]):
    def __init__(self, message: Any, /, *, context: Any, delivery: EventDelivery) -> None:
        super().__init__(message, context=context)
        self._delivery = delivery

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
        """Handle one message to its end; errors of handlers do not leave here."""
        delivery, (sequence, attempts) = self._delivery, _position_of(msg)
        try:
            head = envelope.parse(msg.headers)
        except EnvelopeError as error:
            return await _bury_event(delivery, msg, None, attempts, error)
        if head.id in delivery.running:
            return None  # Handed out again meanwhile: the ack of the first counts for both.
        if delivery.was_handled(head.id, sequence, attempts):
            return await msg.ack()
        delivery.running.add(head.id)
        beating = asyncio.create_task(_keep_beating(msg))
        try:
            with trace.span(f"process {head.type}", head.traceparent, SpanKind.CONSUMER):
                await call_next(msg)
        except Exception as error:
            if attempts >= delivery.attempts:
                return await _bury_event(delivery, msg, head, attempts, error)
            log.warning("event_failed", id=head.id, type=head.type, attempts=attempts, error=repr(error))
            return await msg.nack(delay=min(AGAIN_FIRST_S * 2 ** (attempts - 1), AGAIN_MOST_S))
        finally:
            await cancel_tasks(beating)
            delivery.running.discard(head.id)
        delivery.mark_handled(head.id, sequence)
        return await msg.ack()


async def _bury_event(
    delivery: EventDelivery, msg: NatsMessage, head: Envelope | None, attempts: int, error: Exception
) -> None:
    """Dead first, then terminated: a crash between the two buries it twice and loses nothing."""
    named = ("", "") if head is None else (head.id, head.type)
    await delivery.dead(DeadEvent(*named, msg.raw_message.subject, msg.body, attempts, error))
    await msg.reject()


async def _keep_beating(msg: NatsMessage) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await msg.in_progress()


def _position_of(msg: NatsMessage) -> tuple[int, int]:
    """Its sequence in the stream and the number of its delivery; 0 and 1 in FastStream's test broker."""
    try:
        metadata = msg.raw_message.metadata
        return metadata.sequence.stream, metadata.num_delivered or 1
    except Exception:  # nats-py's own NotJSMessageError, and what it raises for a reply subject that is none.
        return 0, 1
