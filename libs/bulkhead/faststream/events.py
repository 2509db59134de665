"""Events of the mesh for a FastStream program: one durable, one handler per event, each event until it is handled.

In: the address, the key of a subscriber of policy.yaml. Out: a `NatsBroker` with a subscriber, whose handlers are typed
by the catalog. Delivery is at least once: an event is acked when its handler has returned, and comes again otherwise.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub

from bulkhead.faststream import broker as brokers
from bulkhead.faststream.delivery import DeadEvent, EventDelivery, buried_in_log
from bulkhead.runtime.background import cancel_tasks
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body

AT_ONCE = 8
ATTEMPTS = 5
PULL_S = 5.0
"""A request for an event stands so long at the broker; below the time for which it remembers questions."""


class Events:
    """Events that one subscriber hears. `broker` is its FastStream broker; several processes share its events."""

    def __init__(
        self,
        url: str,
        identity_file: Path | str,
        *,
        tenant: str,
        at_once: int = AT_ONCE,
        attempts: int = ATTEMPTS,
        dead: Callable[[DeadEvent], Awaitable[None]] = buried_in_log,
        ca_file: Path | None = None,
    ) -> None:
        """tenant: as in the subscriber's row. at_once: handlers that run together. attempts: after so many an event is
        given to `dead`, and not handed out again; it stays in the stream for its seven days. ca_file: TLS."""
        delivery = EventDelivery(attempts, dead)
        self.broker: NatsBroker
        self.broker, name, inbox = brokers.make_broker(url, Path(identity_file), ca_file, delivery)
        self._known: set[str] = set()
        self._subscriber = self.broker.subscriber(
            f"events.{subjects.check_token(tenant)}.>",
            durable=name,
            stream=JStream(subjects.EVENTS_STREAM, declare=False),
            # One each: nats-py waits for the rest of a larger number.
            pull_sub=PullSub(batch_size=1, timeout=PULL_S),
            max_workers=at_once,
            ack_policy=AckPolicy.MANUAL,
            inbox_prefix=inbox,
            title=f"events.{tenant}",
        )
        self._subscriber(filter=self._is_unknown)(_unheard)

    def on(self, kind: type[Body]) -> Callable[[Callable[..., Awaitable[None]]], Any]:
        """Decorator: hand events of this class of `bulkhead_contracts.event` to the function, which takes one.

        An error of it brings the event back; FastStream's own parameters (`NatsMessage`, `Context`) work beside it.
        """
        if kind not in {row.body for row in catalog.EVENTS.values()}:
            raise ValueError(f"{kind.__name__} is no event; there are {', '.join(sorted(catalog.EVENTS))}")
        self._known.add(kind.TYPE)

        async def is_of_kind(
            message: NatsMessage,
        ) -> bool:  # FastStream hands one that is not async to a thread, each time.
            return _type_of(message) == kind.TYPE

        return self._subscriber(filter=is_of_kind)

    def app(self, *others: NatsBroker) -> FastStream:
        """The program: `await events.app().run()`, or `faststream run module:app`.

        It ends with an error when its key is not good any more, or that of one of the others.
        """
        app = FastStream(self.broker)
        watching: list[asyncio.Task[None]] = []

        @app.after_startup
        async def start_watching() -> None:
            brokers.slow_retries(self._subscriber.subscription)
            watching.extend(
                asyncio.create_task(brokers.watch_connection(watched)) for watched in (self.broker, *others)
            )

        @app.on_shutdown
        async def stop_watching() -> None:
            await cancel_tasks(*watching)

        return app

    async def _is_unknown(self, message: NatsMessage) -> bool:
        return _type_of(message) not in self._known


async def _unheard(event: dict[str, Any]) -> None:
    """Handler of events that no other wants."""


def _type_of(message: NatsMessage) -> str:
    """Without its version: handlers read every one that their class reads."""
    return str(message.headers.get("ce-type", "")).rpartition(".v")[0]


def told(event: Body, cause: str = "test") -> dict[str, Any]:
    """Arguments of `publish` with which a test under `TestNatsBroker` tells an event, as the mesh would.

    event: with `tenant` and `task`. The same cause gives the same id.
    """
    place = event.model_dump(include={"tenant", "task"})
    subject = subjects.event_subject(name=event.TYPE.removeprefix("event."), **place)
    head = Envelope(envelope.derive_id("gateway", cause, subject), event.ce_type(), "gateway", time_unix_ms=0)
    return {"message": event, "subject": subject, "headers": head.to_headers(), "stream": subjects.EVENTS_STREAM}
