"""Events of tasks for outside subscribers and webhooks of their tenants.

In: messages of the gateway's inbox. Out: events, without content, for tenants and events that some
subscriber's row names; those that a webhook wants go to tool_executor, which posts them. Ids derive from
the message: whoever handles it again writes the same, and the broker keeps one. The message is acked
after that, so that no event is lost.
"""

from collections.abc import Callable, Iterator, Mapping

from bulkhead.bus.port import PublishRefused
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.runtime.publish.publisher import EnvelopeAttributes, Publisher
from bulkhead.telemetry.log import Log
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
from bulkhead_contracts.task import StepEnded, TaskAccepted, TaskEnded, TaskRejected, list_facts
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.settings import SubscriberSettings

ALERTS = frozenset({"share", "rate"})
"""Kinds of notices that are about an account."""


AGAIN_MS = 10_000
"""A broker that is set up for an older version has no place for events until its provisioner has run."""
MAX_WAITING = 1_024
"""Messages whose events wait for that, of a replica: each keeps a place in the window of the inbox."""
SEEN_ELSEWHERE_MS = 60_000
log = Log("task_events")


class TaskEvents:
    """Writes them. rows: of the subscribers; webhooks: names of events by tenant. clock: Unix milliseconds."""

    def __init__(
        self,
        publisher: Publisher,
        rows: Mapping[str, SubscriberSettings],
        webhooks: Mapping[str, tuple[str, ...]],
        clock: Callable[[], int],
    ) -> None:
        self._publisher, self._clock = publisher, clock
        self._wanted = {(row.tenant, f"event.{name}") for row in rows.values() for name in row.events}
        self._posted = {(tenant, f"event.{name}") for tenant, names in webhooks.items() for name in names}
        self._refused, self._again_at = "", 0
        self._waiting: dict[int, int] = {}

    async def store_events(self, message: ReceivedMessage) -> None:
        """Store what one message means for them. Raises BusError; HandBack while the broker takes no events."""
        events = list(enumerate(events_of(message)))
        if message.sequence not in self._waiting:
            for index, event in events:
                if (message.tenant, event.TYPE) in self._posted:
                    await self._request_post(message, event, index)
        subscribed = [(index, event) for index, event in events if (message.tenant, event.TYPE) in self._wanted]
        if subscribed and self._clock() < self._again_at:
            self._put_off(message)
            return
        for index, event in subscribed:
            try:
                attributes = _event_attributes(message, f"event/{index}")
                await self._publisher.publish_event(event, tenant=message.tenant, task=message.task, **attributes)
            except PublishRefused as error:
                self._refused, self._again_at = str(error), self._clock() + AGAIN_MS
                log.warning("events_not_stored", reason=self._refused, waiting=len(self._waiting) + 1)
                self._put_off(message)
                return
        self._waiting.pop(message.sequence, None)

    def _put_off(self, message: ReceivedMessage) -> None:
        """Raises HandBack; gives up where too many wait already: tasks come before what is told of them."""
        now_unix_ms = self._clock()
        if message.sequence not in self._waiting and len(self._waiting) >= MAX_WAITING:
            # One that another replica took does not come back here.
            self._waiting = {
                key: since_unix_ms
                for key, since_unix_ms in self._waiting.items()
                if since_unix_ms + SEEN_ELSEWHERE_MS > now_unix_ms
            }
        self._waiting[message.sequence] = now_unix_ms
        if len(self._waiting) <= MAX_WAITING:
            raise HandBack(max(self._again_at - now_unix_ms, 1_000) / 1000, self._refused)
        del self._waiting[message.sequence]
        log.error("events_lost", tenant=message.tenant, task=message.task, reason=self._refused)

    async def _request_post(self, message: ReceivedMessage, event: Body, index: int) -> None:
        head = self._publisher.make_envelope(event, **_event_attributes(message, f"event/{index}"))
        attributes, data = _event_attributes(message, f"post/{index}"), event.encode().decode()
        request = EventPostRequested(id=head.id, event=head.type, time_unix_ms=head.time_unix_ms, data_json=data)
        await self._publisher.send("tool_executor", request, tenant=message.tenant, task=message.task, **attributes)


def _event_attributes(message: ReceivedMessage, index: str) -> EnvelopeAttributes:
    head, time_unix_ms = message.envelope, message.time_unix_ms
    return {"cause": head.id, "index": index, "traceparent": head.traceparent, "time_unix_ms": time_unix_ms}


def events_of(message: ReceivedMessage) -> Iterator[Body]:
    """The events of one message, always in the same order."""
    task_url = f"/v1/tasks/{message.task}"
    for fact in list_facts(message.body):
        match fact:
            case TaskAccepted():
                yield _build_event(TaskAcceptedEvent, message, fact)
            case StepEnded():
                yield _build_event(StepEndedEvent, message, fact, **_usage_fields(fact.usage))
            case TaskEnded():
                code = fact.failure.code if fact.failure is not None else ""
                yield _build_event(TaskEndedEvent, message, fact, code=code, url=task_url, **_usage_fields(fact.usage))
            case TaskRejected():
                yield _build_event(TaskEndedEvent, message, fact, status="rejected", url=task_url)
            case ApprovalRequested():
                yield _build_event(ApprovalRequestedEvent, message, fact, url=f"/v1/approvals/{fact.approval_id}")
            case NoticeRequested(kind=kind) if kind in ALERTS:
                yield _build_event(BudgetAlertEvent, message, fact)
            case NoticeRequested(kind="halted") if fact.account == f"task:{message.tenant}:{message.task}":
                yield _build_event(TaskHaltedEvent, message, fact)


def _build_event(kind: type[Body], message: ReceivedMessage, fact: Body, **own: object) -> Body:
    """With `own`, and what the fact has under the same names."""
    same = {name: getattr(fact, name) for name in kind.model_fields if name in type(fact).model_fields}
    return kind.model_validate({"tenant": message.tenant, "task": message.task, **same, **own})


def _usage_fields(usage: Usage) -> dict[str, int]:
    return {"cost_usd_micros": usage.cost_usd_micros, "tokens": usage.input_tokens + usage.output_tokens}
