"""Push notifications that a handled message makes due, asked for from tool_executor, which posts them.

In: messages of the gateway's inbox. Out: `PushPostRequested` and `PushConfigDeleted`, with ids that derive from the
message. A tenant without push notifications costs nothing here.
"""

from collections.abc import Awaitable, Callable

from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.tenant_quotas import TenantQuotas
from bulkhead_contracts.budget import TaskCharged
from bulkhead_contracts.push import PushConfigDeleted, PushPostRequested
from bulkhead_services.gateway.read_model.feeds import Feed
from bulkhead_services.gateway.read_model.pushes import Post, Stop


class PushNotifications:
    """Asks for them. read: a message's feed, read up to that message; it may raise HandBack."""

    def __init__(
        self, publisher: Publisher, quotas: TenantQuotas, read: Callable[[Received, int], Awaitable[Feed]]
    ) -> None:
        self._publisher, self._quotas, self._read = publisher, quotas, read

    async def tell(self, message: Received) -> None:
        """Ask for what one message makes due. Raises BusError, HandBack."""
        if isinstance(message.body, TaskCharged):
            return
        self._quotas.look()
        if not self._quotas.push(message.tenant).on:
            return
        feed = await self._read(message, message.sequence)
        for index, due in enumerate(feed.pushes.due(message.sequence)):
            body = PushConfigDeleted(config_id=due.config_id, setting=due.setting) if isinstance(due, Stop) else None
            await self._publisher.send(
                "tool_executor",
                body or _post(feed, due),  # type: ignore[arg-type]
                tenant=message.tenant,
                task=message.task,
                cause=message.envelope.id,
                index=f"push/{index}",
                traceparent=message.envelope.traceparent,
                time_unix_ms=message.time_unix_ms,
            )


def _post(feed: Feed, due: Post) -> PushPostRequested:
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
    )
