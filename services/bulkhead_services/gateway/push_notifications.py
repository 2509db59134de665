"""Push notifications that a handled message makes due, asked for from tool_executor, which posts them.

In: messages of the gateway's inbox. Out: `PushPostRequested` and `PushConfigDeleted`, with ids that derive from the
message. A tenant without push notifications costs one look at the end of a task: its hosts may have been taken away
while a post was due. What is asked for then is given up by tool_executor, and so ends its config by name.
"""

from collections.abc import Awaitable, Callable

from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import TaskCharged
from bulkhead_contracts.push import PushConfigDeleted, PushConfigSet, PushEnded, PushPostRequested
from bulkhead_contracts.task import TaskEnded, TaskRejected
from bulkhead_services.gateway.read_model.feeds import InboxFeed
from bulkhead_services.gateway.read_model.pushes import PushPost, PushStop

log = Log("push")
OF_CONFIGS, ENDS = (PushConfigSet, PushConfigDeleted, PushEnded), (TaskEnded, TaskRejected)


class PushPostRequester:
    """Asks for them. read: a message's feed, read up to that message; it may raise HandBack."""

    def __init__(
        self, publisher: Publisher, quotas: TenantQuotas, read: Callable[[ReceivedMessage, int], Awaitable[InboxFeed]]
    ) -> None:
        self._publisher, self._quotas, self._read = publisher, quotas, read

    async def request_due_posts(self, message: ReceivedMessage) -> None:
        """Ask for what one message makes due. Raises BusError, HandBack."""
        if isinstance(message.body, TaskCharged):
            return
        self._quotas.reload_if_changed()
        on = self._quotas.push_policy_of(message.tenant).is_enabled
        if not on and not isinstance(message.body, OF_CONFIGS + ENDS):
            return
        feed = await self._read(message, message.sequence)
        _report_dropped(message, feed)
        due_by_index = {f"push/{index}": due for index, due in enumerate(feed.pushes.due_at(message.sequence))}
        if not on and isinstance(message.body, ENDS):
            # What came due since the hosts were taken away was not asked for, and all else of its config waits for it.
            first = (post for post in feed.pushes.first_waiting() if post not in due_by_index.values())
            due_by_index |= {f"push/again/{post.config.body.config_id}": post for post in first}
        for index, due in due_by_index.items():
            body = (
                PushConfigDeleted(config_id=due.config_id, setting=due.setting) if isinstance(due, PushStop) else None
            )
            await self._publisher.send(
                "tool_executor",
                body or _post_request(feed, due),  # type: ignore[arg-type]
                tenant=message.tenant,
                task=message.task,
                cause=message.envelope.id,
                index=index,
                traceparent=message.envelope.traceparent,
                time_unix_ms=message.time_unix_ms,
            )


def _report_dropped(message: ReceivedMessage, feed: InboxFeed) -> None:
    ended, dropped = message.body, feed.pushes.dropped.get(message.sequence, 0)
    if isinstance(ended, PushEnded) and dropped:
        metrics.pushes.add(dropped, {names.OUTCOME: "dropped"})
        fields = {"tenant": message.tenant, "task": message.task, "config": ended.config_id}
        log.warning("push_dropped", **fields, posts=dropped, reason=ended.reason)


def _post_request(feed: InboxFeed, due: PushPost) -> PushPostRequested:
    config, update, request = due.config.body, due.update, feed.view.request
    result = update.result
    return PushPostRequested(
        config_id=config.config_id,
        setting=due.config.setting,
        update=update.sequence,
        url=config.url,
        token=config.token,
        form=config.form,
        context_id=request.conversation if request is not None else "",
        status=update.status,
        asks=update.asks,
        reason=update.reason,
        at_unix_ms=update.at_unix_ms,
        answer=result.content if result is not None else None,
        standing=result.standing if result is not None else "",
        complete=result.completeness.complete if result is not None else True,
        answered=result.answered if result is not None else None,
    )
