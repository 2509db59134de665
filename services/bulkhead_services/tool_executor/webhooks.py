"""Tenants' webhooks: events, notices and approvals in, one signed POST out of each, until somebody took it.

At least once: what was taken and not acknowledged to the broker is posted again, under the same id. A receiver that is
down holds up nobody: a notice goes back to the inbox between tries, and only so many of a tenant may wait there.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead_services.tool_executor import webhook_payload
from bulkhead_services.tool_executor.outbound.delivery import Deliveries, PostingPort, PostMissed, PostRefused
from bulkhead_services.tool_executor.settings import Settings, Webhook
from bulkhead_services.tool_executor.webhook_payload import WebhookPost

log = Log("webhooks")

MAX_WAITING = 128
MAX_WAITING_IN_ALL = 1_024
MIN_SECRET_BYTES = 16
ALLOW = "BULKHEAD_WEBHOOK_PRIVATE_HOSTS"


class Webhooks:
    """The notices of all tenants that have a webhook. `clock` is Unix milliseconds."""

    def __init__(self, settings: Settings, wire: PostingPort, clock: Callable[[], int]) -> None:
        self._hooks, self._events = settings.webhooks, settings.webhook_events
        self._private = {host.lower() for host in settings.webhook_private_hosts}
        self._clock = clock
        self._deliveries = Deliveries(wire, clock, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING_IN_ALL)

    async def on_post_requested(self, message: ReceivedMessage) -> None:
        """Post it, or say why never. Raises HandBack: it comes again."""
        posting = webhook_payload.post_of(message.tenant, message.task, message.body)
        hook = self._hooks.get(message.tenant)
        if hook is None or posting.same_as in self._events.get(message.tenant, ()):
            return

        def log_retry(wait_ms: int, reason: str) -> None:
            _count_outcome("again")
            log.warning(
                "webhook_again", notice=posting.event_id, tenant=message.tenant, after_ms=wait_ms, reason=reason
            )

        try:
            status = await self._deliveries.try_delivery(message, lambda: self._post_once(hook, posting), log_retry)
        except PostRefused as refusal:
            self._give_up(message, posting, str(refusal))
        else:
            _count_outcome("delivered")
            log.info("webhook_delivered", notice=posting.event_id, tenant=message.tenant, status=status)

    async def _post_once(self, hook: Webhook, posting: WebhookPost) -> int:
        parts = urlsplit(hook.url)
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        private = host in self._private or f"{host}:{port}" in self._private
        if parts.scheme != "https" and not private:
            raise PostRefused(f"{host} is not reached by https; give its https URL, or name it in {ALLOW}")
        headers = webhook_payload.signed_headers(posting, _read_secret(hook), self._clock())
        return await self._deliveries.post_once(
            hook.url, host, port, posting.body, headers, private_allowed=private, allow_setting=ALLOW
        )

    @staticmethod
    def _give_up(message: ReceivedMessage, posting: WebhookPost, reason: str) -> None:
        _count_outcome("given_up")
        tenant, task = message.tenant, message.task
        log.error(
            "webhook_given_up", notice=posting.event_id, tenant=tenant, task=task, what=posting.what, reason=reason
        )


def _read_secret(hook: Webhook) -> bytes:
    """Read at each try, so that a changed one counts at once. Raises PostMissed; what is in it is said nowhere."""
    try:
        secret = Path(hook.secret_file).read_bytes().strip()
    except OSError as error:
        raise PostMissed(f"the secret cannot be read: {error.strerror} ({hook.secret_file})") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise PostMissed(f"the secret in {hook.secret_file} has less than {MIN_SECRET_BYTES} bytes")
    return secret


def _count_outcome(outcome: str) -> None:
    metrics.webhooks.add(1, {names.OUTCOME: outcome})
