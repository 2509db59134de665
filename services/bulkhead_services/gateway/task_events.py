"""What outside subscribers and webhooks are told of their tenants' tasks.

In: messages of the gateway's inbox. Out: events, without content, for tenants and events that some subscriber's row
names; those that a webhook wants go to tool_executor, which posts them. Ids derive from the message: whoever handles it
again writes the same, and the broker keeps one. The message is acked after that, so that no event is lost.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.publish.publisher import Attributes, Publisher
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.event import (
    ApprovalRequestedEvent,
    BudgetAlertEvent,
    EventPostRequested,
    StepEndedEvent,
    TaskAcceptedEvent,
    TaskEndedEvent,
    TaskHaltedEvent,
)
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import StepEnded, TaskAccepted, TaskEnded, TaskRejected, facts
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.settings import SubscriberPolicy

ALERTS = frozenset({"share", "rate"})
"""Kinds of notices that are about an account."""


class TaskEvents:
    """Writes them. rows: of the subscribers; webhooks: names of events by tenant."""

    def __init__(
        self,
        publisher: Publisher,
        rows: Mapping[str, SubscriberPolicy],
        webhooks: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        self._publisher = publisher
        self._wanted = {(row.tenant, f"event.{name}") for row in rows.values() for name in row.events}
        self._posted = {(tenant, f"event.{name}") for tenant, names in webhooks.items() for name in names}

    async def tell(self, message: Received) -> None:
        """Store what one message means for them. Raises BusError."""
        for index, event in enumerate(events_of(message)):
            told: Attributes = {
                "cause": message.envelope.id,
                "index": f"event/{index}",
                "traceparent": message.envelope.traceparent,
                "time_unix_ms": message.time_unix_ms,
            }
            named = (message.tenant, event.TYPE)
            if named in self._posted:
                head, data = self._publisher.envelope(event, **told), event.encode().decode()
                asked = EventPostRequested(id=head.id, event=head.type, time_unix_ms=head.time_unix_ms, data_json=data)
                post: Attributes = {**told, "index": f"post/{index}"}
                await self._publisher.send("tool_executor", asked, tenant=message.tenant, task=message.task, **post)
            if named in self._wanted:
                await self._publisher.event(event, tenant=message.tenant, task=message.task, **told)


def events_of(message: Received) -> Iterator[Body]:
    """The events of one message, always in the same order."""
    task_url = f"/v1/tasks/{message.task}"
    for fact in facts(message.body):
        match fact:
            case TaskAccepted():
                yield _event(TaskAcceptedEvent, message, fact)
            case StepEnded():
                yield _event(StepEndedEvent, message, fact, **_spent(fact.usage))
            case TaskEnded():
                code = fact.failure.code if fact.failure is not None else ""
                yield _event(TaskEndedEvent, message, fact, code=code, url=task_url, **_spent(fact.usage))
            case TaskRejected():
                yield _event(TaskEndedEvent, message, fact, status="rejected", url=task_url)
            case ApprovalRequested():
                yield _event(ApprovalRequestedEvent, message, fact, url=f"/v1/approvals/{fact.approval_id}")
            case NoticeRequested(kind=kind) if kind in ALERTS:
                yield _event(BudgetAlertEvent, message, fact)
            case NoticeRequested(kind="halted") if fact.account == f"task:{message.tenant}:{message.task}":
                yield _event(TaskHaltedEvent, message, fact)


def _event(kind: type[Body], message: Received, fact: Body, **own: object) -> Body:
    """With `own`, and what the fact has under the same names."""
    same = {name: getattr(fact, name) for name in kind.model_fields if name in type(fact).model_fields}
    return kind.model_validate({"tenant": message.tenant, "task": message.task, **same, **own})


def _spent(usage: Usage) -> dict[str, int]:
    return {"cost_usd_micros": usage.cost_usd_micros, "tokens": usage.input_tokens + usage.output_tokens}
