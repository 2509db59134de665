"""Tenants' webhooks: events, notices and approvals in, one signed POST out of each, until somebody took it.

At least once: what was taken and not acknowledged to the broker is posted again, under the same id. A receiver that is
down holds up nobody: a notice goes back to the inbox between tries, and only so many of a tenant may wait there.

To verify: HMAC-SHA256 with the shared secret over `<Bulkhead-Timestamp>.<body as it came>`, in hex, is what stands
behind `v1=` in `Bulkhead-Signature`; the timestamp is of now, within minutes. `Bulkhead-Event-Id` tells doubles.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.envelope import CONTENT_TYPE, format_rfc3339
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.outbound.delivery import Deliveries, PostMissed, PostRefused
from bulkhead_services.tool_executor.settings import Settings, Webhook

log = Log("webhooks")

MAX_WAITING = 128
MAX_WAITING_IN_ALL = 1_024
MIN_SECRET_BYTES = 16
ALLOW_SETTING = "BULKHEAD_WEBHOOK_PRIVATE_HOSTS"
ALERT, MESH, APPROVAL = "budget.alert", "mesh.", "approval.requested"
ALERTS = frozenset({"share", "rate"})
"""Kinds that are about an account; the others say what happened: `mesh.halted`, `mesh.breaker_opened`, ..."""
CLOUD_EVENT = "application/cloudevents+json"

_COPIED_FIELDS = ("kind", "account", "unit", "percent", "spent", "limit", "reached_unix_ms", "what")


@dataclass(frozen=True, slots=True)
class WebhookPost:
    """Content of one post, the same bytes at every try. summary: for the log. event_type: that of the event."""

    event_id: str
    summary: str
    body: bytes
    event_type: str = ""
    media_type: str = CONTENT_TYPE


class Webhooks:
    """The notices of all tenants that have a webhook. `clock` is Unix milliseconds."""

    def __init__(self, settings: Settings, runner: ToolRunner, clock: Callable[[], int]) -> None:
        self._hooks, self._events = settings.webhooks, settings.webhook_events
        self._private = {host.lower() for host in settings.webhook_private_hosts}
        self._clock = clock
        self._deliveries = Deliveries(runner, clock, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING_IN_ALL)

    async def on_post_requested(self, message: ReceivedMessage) -> None:
        """Post it, or say why never. Raises HandBack: it comes again."""
        posting = post_of(message.tenant, message.task, message.body)
        hook = self._hooks.get(message.tenant)
        if hook is None or posting.event_type in self._events.get(message.tenant, ()):
            return

        def log_retry(wait_ms: int, reason: str) -> None:
            _count_outcome("again")
            log.warning(
                "webhook_again", notice=posting.event_id, tenant=message.tenant, after_ms=wait_ms, reason=reason
            )

        try:
            status = await self._deliveries.try_delivery(message, lambda: self._post_once(hook, posting), log_retry)
        except PostRefused as refusal:
            _count_outcome("given_up")
            tenant, task, reason = message.tenant, message.task, str(refusal)
            summary = posting.summary
            log.error(
                "webhook_given_up", notice=posting.event_id, tenant=tenant, task=task, what=summary, reason=reason
            )
        else:
            _count_outcome("delivered")
            log.info("webhook_delivered", notice=posting.event_id, tenant=message.tenant, status=status)

    async def _post_once(self, hook: Webhook, posting: WebhookPost) -> int:
        parts = urlsplit(hook.url)
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        private = host in self._private or f"{host}:{port}" in self._private
        if parts.scheme != "https" and not private:
            raise PostRefused(f"{host} is not reached by https; give its https URL, or name it in {ALLOW_SETTING}")
        headers = signed_headers(posting, _read_secret(hook), self._clock())
        return await self._deliveries.post_once(
            hook.url, host, port, posting.body, headers, private_allowed=private, allow_setting=ALLOW_SETTING
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


# The post. Pure.


def post_of(tenant: str, task: str, request: Body) -> WebhookPost:
    """Post that a message asks for."""
    match request:
        case EventPostRequested():
            return WebhookPost(request.id, request.event, _event_body(task, request), media_type=CLOUD_EVENT)
        case NoticeRequested():
            fields = _notice_fields(tenant, task, request)
            halted = fields["type"] == MESH + "halted" and request.account == f"task:{tenant}:{task}"
            event_type = "task.halted" if halted else fields["type"]
            return WebhookPost(request.notice, request.what, _encode_json(fields), event_type)
    assert isinstance(request, ApprovalRequested)
    fields = {"type": APPROVAL, "id": request.approval_id, "tenant": tenant, "task": task}
    fields |= request.model_dump(mode="json", exclude={"call_id"})
    what_to_do = (
        f"`bulkhead approvals grant {request.approval_id}` or `deny`; over HTTP POST "
        f"/v1/approvals/{request.approval_id}"
    )
    summary = f"{request.tool} waits for an approval"
    return WebhookPost(request.approval_id, summary, _encode_json(fields | {"what_to_do": what_to_do}), APPROVAL)


def _event_body(task: str, request: EventPostRequested) -> bytes:
    """CloudEvents 1.0 in its structured form, with the attributes that it has on the bus."""
    fields = {"specversion": "1.0", "id": request.id, "source": "gateway", "type": request.event, "subject": task}
    fields |= {"time": format_rfc3339(request.time_unix_ms), "datacontenttype": CONTENT_TYPE}
    return _encode_json(fields | {"data": json.loads(request.data_json)})


def _encode_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _notice_fields(tenant: str, task: str, request: NoticeRequested) -> dict[str, Any]:
    """task is named when it is about that task; others tell what the tenant did."""
    is_about_task = request.account == f"task:{tenant}:{task}" or request.account.startswith(f"step:{tenant}:{task}/")
    event = ALERT if request.kind in ALERTS else MESH + request.kind
    fields: dict[str, Any] = {
        "type": event,
        "id": request.notice,
        "tenant": tenant,
        "task": task if is_about_task else "",
    }
    fields |= {name: getattr(request, name) for name in _COPIED_FIELDS}
    return fields | {"what_to_do": request.hint, "told_unix_ms": request.told_unix_ms}


def signed_headers(posting: WebhookPost, secret: bytes, now_unix_ms: int) -> dict[str, str]:
    """Signed at the moment of the try, so that a recorded one is old soon."""
    stamp = str(now_unix_ms // 1000)
    return {
        "content-type": posting.media_type,
        "bulkhead-event-id": posting.event_id,
        "bulkhead-timestamp": stamp,
        "bulkhead-signature": f"v1={sign_body(secret, stamp, posting.body)}",
    }


def sign_body(secret: bytes, stamp: str, body: bytes) -> str:
    """Hex of HMAC-SHA256 over `<stamp>.<body>`."""
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
