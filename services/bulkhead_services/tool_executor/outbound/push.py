"""Push notifications: one post of a task in, posted until somebody took it; what became of it, to the gateway.

At least once: what was taken and not acknowledged to the broker is posted again. A URL is a client's: it is checked
against the tenant's row here, whoever has checked it before, and again at each try. One that is deleted meanwhile is
posted no more: that is on record, for every replica. A post has A2A's form: of 1.0 a StreamResponse (section 4.3.3), a
statusUpdate, and at the end of a task with an answer its artifactUpdate before that; of 0.3 a Task.
"""

import json
from typing import Any

from bulkhead.a2a.push_urls import PushTarget, PushUrlForbidden, parse_push_url
from bulkhead.a2a.states import a2a_state
from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import WrongLastSequence
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.text.plain_text import escape_controls
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.push import PushConfigDeleted, PushEnded, PushPostRequested
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.outbound.delivery import Deliveries, PostRefused

log = Log("push")
MAX_WAITING = 256
MAX_WAITING_IN_ALL = 1_024
STOP_TRIES = 8
TOKEN_HEADER = "X-A2A-Notification-Token"  # noqa: S105 - a header's name
MEDIA_TYPES = {"1.0": "application/a2a+json", "0.3": envelope.CONTENT_TYPE}
ANSWER_ARTIFACT = "answer"
ALLOW_SETTING = "`push.private_hosts` of the tenant's row"


class PushSender:
    """Those of all tenants whose row has `push`."""

    def __init__(self, context: Context, quotas: TenantQuotas, runner: ToolRunner) -> None:
        self._context, self._quotas = context, quotas
        self._deliveries = Deliveries(
            runner, context.clock, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING_IN_ALL
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

        def log_retry(wait_ms: int, reason: str) -> None:
            _count_outcome("again")
            log.warning("push_again", **_log_fields(message, request), after_ms=wait_ms, reason=reason)

        self._quotas.reload_if_changed()
        try:
            target = parse_push_url(request.url, self._quotas.push_policy_of(message.tenant))
            await self._deliveries.try_delivery(message, lambda: self._post_all(message, request, target), log_retry)
        except (PushUrlForbidden, PostRefused) as error:
            _count_outcome("given_up")
            log.error("push_given_up", **_log_fields(message, request), reason=str(error))
            await self._send_ended(
                message,
                PushEnded(**_setting_ids(request), outcome="given_up", reason=str(error)[: bounds.MAX_REASON_CHARS]),
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
        headers, host, port = post_headers(request), target.host, target.port
        for body in post_bodies(message.task, request, answer):
            status = await self._deliveries.post_once(
                request.url, host, port, body, headers, private_allowed=target.private, allow_setting=ALLOW_SETTING
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


def _setting_ids(request: PushPostRequested) -> dict[str, Any]:
    return {"config_id": request.config_id, "setting": request.setting, "update": request.update}


def _log_fields(message: ReceivedMessage, request: PushPostRequested) -> dict[str, Any]:
    """Never the URL or the token: they are the client's secrets."""
    return {"tenant": message.tenant, "task": message.task, "config": request.config_id, "status": request.status}


def _count_outcome(outcome: str) -> None:
    metrics.pushes.add(1, {names.OUTCOME: outcome})


# The post. Pure.


def post_bodies(task: str, request: PushPostRequested, answer: str | None) -> tuple[bytes, ...]:
    """Bodies to post, in this order. answer: None where there is none, or it cannot be read any more."""
    messages = (_messages_of_0_3 if request.form == "0.3" else _messages_of_1_0)(task, request, answer)
    return tuple(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() for message in messages)


def post_headers(request: PushPostRequested) -> dict[str, str]:
    """The client's own token, by which it knows that it asked for this."""
    return {"content-type": MEDIA_TYPES[request.form]} | ({TOKEN_HEADER: request.token} if request.token else {})


def _messages_of_1_0(task: str, request: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    ids = {"taskId": task, "contextId": request.context_id or task}
    status: dict[str, Any] = {
        "state": a2a_state(request.status, request.asks),
        "timestamp": envelope.format_rfc3339(request.at_unix_ms),
    }
    if request.reason:
        status["message"] = {
            "role": "ROLE_AGENT",
            "parts": [{"text": escape_controls(request.reason)}],
            **_message_ids(task, request),
        }
    updates: list[dict[str, Any]] = []
    if answer is not None:
        parts = [
            {"text": escape_controls(answer), "mediaType": "text/plain"},
            {"data": _answer_metadata(request), "mediaType": envelope.CONTENT_TYPE},
        ]
        artifact = {"artifactId": ANSWER_ARTIFACT, "name": ANSWER_ARTIFACT, "parts": parts}
        updates.append({"artifactUpdate": {**ids, "artifact": artifact, "lastChunk": True}})
    metadata = {"bulkhead": {"status": request.status}}
    return [*updates, {"statusUpdate": {**ids, "status": status, "metadata": metadata}}]


def _messages_of_0_3(task: str, request: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"kind": "task", "id": task, "contextId": request.context_id or task}
    name = a2a_state(request.status, request.asks).removeprefix("TASK_STATE_").lower().replace("_", "-")
    message["status"] = {"state": name, "timestamp": envelope.format_rfc3339(request.at_unix_ms)}
    if request.reason:
        parts = [{"kind": "text", "text": escape_controls(request.reason)}]
        message["status"]["message"] = {
            "kind": "message",
            "role": "agent",
            "parts": parts,
            **_message_ids(task, request),
        }
    if answer is not None:
        answer_parts = [
            {"kind": "text", "text": escape_controls(answer)},
            {"kind": "data", "data": _answer_metadata(request)},
        ]
        message["artifacts"] = [{"artifactId": ANSWER_ARTIFACT, "name": ANSWER_ARTIFACT, "parts": answer_parts}]
    return [message | {"metadata": {"bulkhead": {"status": request.status}}}]


def _message_ids(task: str, request: PushPostRequested) -> dict[str, str]:
    return {"messageId": f"{task}-{request.update}", "taskId": task, "contextId": request.context_id or task}


def _answer_metadata(request: PushPostRequested) -> dict[str, Any]:
    answered = {"answered": request.answered} if request.answered is not None else {}
    return {"standing": request.standing, "complete": request.complete, **answered}
