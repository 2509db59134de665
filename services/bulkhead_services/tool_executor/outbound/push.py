"""Push notifications: one post of a task in, posted until somebody took it; what became of it, to the gateway.

At least once: what was taken and not acknowledged to the broker is posted again. A URL is a client's: it is checked
against the tenant's row here, whoever has checked it before, and again at each try. One that is deleted meanwhile is
posted no more: that is on record, for every replica.
"""

from typing import Any

from bulkhead.a2a.push_urls import PushTarget, PushUrlForbidden, parse_push_url
from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import WrongLastSequence
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.push import PushConfigDeleted, PushEnded, PushPostRequested
from bulkhead_services.tool_executor.outbound import push_payload
from bulkhead_services.tool_executor.outbound.delivery import Deliveries, PostingPort, PostRefused

log = Log("push")
MAX_WAITING = 256
MAX_WAITING_IN_ALL = 1_024
STOP_TRIES = 8
ALLOW = "`push.private_hosts` of the tenant's row"


class PushSender:
    """Those of all tenants whose row has `push`."""

    def __init__(self, context: Context, quotas: TenantQuotas, wire: PostingPort) -> None:
        self._context, self._quotas = context, quotas
        self._deliveries = Deliveries(
            wire, context.clock, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING_IN_ALL
        )
        self._records = subjects.records_stream(context.service)

    async def on_push_post_requested(self, message: ReceivedMessage) -> None:
        """Post it, or say why never. Raises HandBack: it comes again."""
        request = message.body
        assert isinstance(request, PushPostRequested)
        if await self._last_stopped_setting(message, request.config_id) >= request.setting:
            _count_outcome("stopped")
            log.info("push_stopped", **_log_fields(message, request))
            return
        self._quotas.reload_if_changed()
        try:
            target = parse_push_url(request.url, self._quotas.push_policy_of(message.tenant))
            await self._deliveries.try_delivery(
                message, lambda: self._post_all(message, request, target), _RetryLog(message, request)
            )
        except (PushUrlForbidden, PostRefused) as error:
            _count_outcome("given_up")
            log.error("push_given_up", **_log_fields(message, request), reason=str(error))
            await self._send_ended(
                message, PushEnded(**_setting_ids(request), outcome="given_up", reason=_cut_reason(str(error)))
            )
            return
        _count_outcome("delivered")
        log.info("push_delivered", **_log_fields(message, request), host=target.host)
        await self._send_ended(message, PushEnded(**_setting_ids(request), outcome="delivered"))

    async def on_push_config_deleted(self, message: ReceivedMessage) -> None:
        """Post nothing more for the settings of a config up to this one. Raises BusError."""
        body = message.body
        assert isinstance(body, PushConfigDeleted)
        subject = self._record_subject(message, body.config_id)
        for _ in range(STOP_TRIES):
            stored = await self._context.bus.last(self._records, subject)
            if stored is not None and int(stored.body) >= body.setting:
                return
            sequence = stored.sequence if stored is not None else 0
            try:
                await self._write_record(subject, str(body.setting).encode(), sequence)
                return
            except WrongLastSequence:
                continue  # Another one of the task was deleted, or this one by another replica.

    async def _post_all(self, message: ReceivedMessage, request: PushPostRequested, target: PushTarget) -> int:
        answer, status = None, 0
        if request.answer is not None:
            try:
                answer = await self._context.blobs.get_text(message.tenant, request.answer)
            except (BlobMissing, BlobCorrupt):
                answer = None  # Its time is over; the task can be asked for.
        headers, host, port = push_payload.post_headers(request), target.host, target.port
        for body in push_payload.post_bodies(message.task, request, answer):
            status = await self._deliveries.post_once(
                request.url, host, port, body, headers, private_allowed=target.private, allow_setting=ALLOW
            )
        return status

    async def _send_ended(self, message: ReceivedMessage, body: PushEnded) -> None:
        head = message.envelope
        await self._context.publisher.send(
            "gateway", body, tenant=message.tenant, task=message.task, cause=head.id, traceparent=head.traceparent
        )

    async def _last_stopped_setting(self, message: ReceivedMessage, config_id: str) -> int:
        stored = await self._context.bus.last(self._records, self._record_subject(message, config_id))
        return int(stored.body) if stored is not None else 0

    async def _write_record(self, subject: str, body: bytes, sequence: int) -> None:
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{body.decode()}/{sequence}")
        headers, publish = {"content-type": envelope.CONTENT_TYPE}, self._context.bus.publish
        await publish_persistently(lambda: publish(subject, body, headers, message_id, expect_last_on_subject=sequence))

    def _record_subject(self, message: ReceivedMessage, config_id: str) -> str:
        key = envelope.derive_id("push", config_id, "stopped")
        return subjects.record_subject(self._context.service, message.tenant, message.task, key)


class _RetryLog:
    """Tells the log that a post comes again."""

    def __init__(self, message: ReceivedMessage, request: PushPostRequested) -> None:
        self._message, self._asked = message, request

    def __call__(self, wait_ms: int, reason: str) -> None:
        _count_outcome("again")
        log.warning("push_again", **_log_fields(self._message, self._asked), after_ms=wait_ms, reason=reason)


def _setting_ids(request: PushPostRequested) -> dict[str, Any]:
    return {"config_id": request.config_id, "setting": request.setting, "update": request.update}


def _log_fields(message: ReceivedMessage, request: PushPostRequested) -> dict[str, Any]:
    """Never the URL or the token: they are the client's secrets."""
    return {"tenant": message.tenant, "task": message.task, "config": request.config_id, "status": request.status}


def _cut_reason(reason: str) -> str:
    return reason[: bounds.MAX_REASON_CHARS]


def _count_outcome(outcome: str) -> None:
    metrics.pushes.add(1, {names.OUTCOME: outcome})
