"""Body and signature of a webhook notice. Pure.

In: `EventPostRequested`, `NoticeRequested` or `ApprovalRequested`. Out: the body, and the headers that prove its
origin.

To verify: HMAC-SHA256 with the shared secret over `<Bulkhead-Timestamp>.<body as it came>`, in hex, is what stands
behind `v1=` in `Bulkhead-Signature`; the timestamp is of now, within minutes. `Bulkhead-Event-Id` tells doubles.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.envelope import CONTENT_TYPE, format_rfc3339
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.types import Body

ALERT, MESH, APPROVAL = "budget.alert", "mesh.", "approval.requested"
ALERTS = frozenset({"share", "rate"})
"""Kinds that are about an account; the others say what happened: `mesh.halted`, `mesh.breaker_opened`, ..."""
CLOUD_EVENT = "application/cloudevents+json"

_SAME = ("kind", "account", "unit", "percent", "spent", "limit", "reached_unix_ms", "what")


@dataclass(frozen=True, slots=True)
class WebhookPost:
    """Content of one post, the same bytes at every try. what: of it, for the log. same_as: the event that tells it,
    too.
    """

    event_id: str
    what: str
    body: bytes
    same_as: str = ""
    media_type: str = CONTENT_TYPE


def post_of(tenant: str, task: str, request: Body) -> WebhookPost:
    """Post that a message asks for."""
    match request:
        case EventPostRequested():
            return WebhookPost(request.id, request.event, _event_body(task, request), media_type=CLOUD_EVENT)
        case NoticeRequested():
            fields = _notice_fields(tenant, task, request)
            halted = fields["type"] == MESH + "halted" and request.account == f"task:{tenant}:{task}"
            same_as = "task.halted" if halted else fields["type"]
            return WebhookPost(request.notice, request.what, _encode_json(fields), same_as)
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
    fields |= {name: getattr(request, name) for name in _SAME}
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
