"""Each service as a FastStream app: its subscribers and publishers, declared from the catalog's rows.

For FastStream's in-memory test broker, which tests alone use; infra/bulkhead_infra/render/asyncapi.py makes the
AsyncAPI document. At run time `runtime/consume/loop.py` serves the same rows: FastStream's pull loop freezes when its
connection closes and costs several times the floor (ADR 0004).
"""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.publisher.usecase import LogicPublisher

from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.types import Body

Take = Callable[[Body], Awaitable[None]]


async def _ignore_body(body: Body) -> None:
    """Stands where only the declaration is wanted."""


def declare_service(service: str, take: Take = _ignore_body) -> tuple[FastStream, NatsBroker]:
    """The app of one service. `take` gets every decoded message of its inbox."""
    broker = NatsBroker("nats://unset.invalid:4222")
    app = FastStream(broker)
    inbound: dict[str, Any] = {}
    for row in catalog.ROWS:
        for sender, receiver in row.edges:
            if receiver == service:
                subject = _edge_subject(row, sender, receiver)
                if subject not in inbound:
                    inbound[subject] = broker.subscriber(subject, **_subscriber_options(row, receiver))
                _add_handler(inbound[subject], row, sender, receiver, take)
            if sender == service:
                declare_publisher(broker, row, sender, receiver)
    return app, broker


def declare_publisher(broker: NatsBroker, row: catalog.Row, sender: str, receiver: str) -> LogicPublisher:
    """The declared publisher of one edge."""
    title = f"{row.plane}.{sender}.{receiver}.{row.body.__name__}:send"
    doc = (row.body.__doc__ or "").strip().split("\n")[0]
    return broker.publisher(_edge_subject(row, sender, receiver), title=title, schema=row.body, description=doc)


def _subscriber_options(row: catalog.Row, receiver: str) -> dict[str, Any]:
    if row.plane != "mesh":
        return {"queue": receiver}
    return {
        "stream": JStream(subjects.inbox_stream(receiver), declare=False),
        "durable": subjects.durable_name(receiver, 0),
        "pull_sub": PullSub(),
    }


def _add_handler(subscriber: Any, row: catalog.Row, sender: str, receiver: str, take: Take) -> None:
    """One handler per message type; types that share a subject are distinguished by `ce-type`."""

    async def handle_body(body: Any) -> None:
        await take(body)

    def is_meant(message: Any) -> bool:
        return str(message.headers.get("ce-type", "")).startswith(f"{row.type}.v")

    handle_body.__annotations__["body"] = row.body
    handle_body.__name__ = f"{receiver}_takes_{row.body.__name__}_of_{sender}"
    subscriber(filter=is_meant)(handle_body)


def _edge_subject(row: catalog.Row, sender: str, receiver: str) -> str:
    if row.plane == "events":
        return f"events.*.{row.type.removeprefix('event.')}.*"
    sender = "*" if sender in (catalog.PUBLISHER, catalog.OUTSIDE_WORKER) else sender
    return f"{row.plane}.{sender}.{receiver}.*.*.*"
