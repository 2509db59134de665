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
from bulkhead_contracts.envelope import CONTENT_TYPE, rfc3339
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.types import Body

ALERT, MESH, APPROVAL = "budget.alert", "mesh.", "approval.requested"
ALERTS = frozenset({"share", "rate"})
"""Kinds that are about an account; the others say what happened: `mesh.halted`, `mesh.breaker_opened`, ..."""
CLOUD_EVENT = "application/cloudevents+json"

_SAME = ("kind", "account", "unit", "percent", "spent", "limit", "reached_unix_ms", "what")


@dataclass(frozen=True, slots=True)
class Posting:
    """What is posted, the same bytes at every try. what: of it, for the log. same_as: the event that tells it, too."""

    event_id: str
    what: str
    body: bytes
    same_as: str = ""
    media_type: str = CONTENT_TYPE


def posting_of(tenant: str, task: str, asked: Body) -> Posting:
    """What a message wants posted."""
    match asked:
        case EventPostRequested():
            return Posting(asked.id, asked.event, _event(task, asked), media_type=CLOUD_EVENT)
        case NoticeRequested():
            told = _notice(tenant, task, asked)
            halted = told["type"] == MESH + "halted" and asked.account == f"task:{tenant}:{task}"
            same_as = "task.halted" if halted else told["type"]
            return Posting(asked.notice, asked.what, _json(told), same_as)
    assert isinstance(asked, ApprovalRequested)
    told = {"type": APPROVAL, "id": asked.approval_id, "tenant": tenant, "task": task}
    told |= asked.model_dump(mode="json", exclude={"call_id"})
    how = f"`bulkhead approvals grant {asked.approval_id}` or `deny`; over HTTP POST /v1/approvals/{asked.approval_id}"
    what = f"{asked.tool} waits for an approval"
    return Posting(asked.approval_id, what, _json(told | {"what_to_do": how}), APPROVAL)


def _event(task: str, asked: EventPostRequested) -> bytes:
    """CloudEvents 1.0 in its structured form, with the attributes that it has on the bus."""
    told = {"specversion": "1.0", "id": asked.id, "source": "gateway", "type": asked.event, "subject": task}
    told |= {"time": rfc3339(asked.time_unix_ms), "datacontenttype": CONTENT_TYPE}
    return _json(told | {"data": json.loads(asked.data_json)})


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _notice(tenant: str, task: str, asked: NoticeRequested) -> dict[str, Any]:
    """task is named when it is about that task; others tell what the tenant did."""
    own = asked.account == f"task:{tenant}:{task}" or asked.account.startswith(f"step:{tenant}:{task}/")
    event = ALERT if asked.kind in ALERTS else MESH + asked.kind
    told: dict[str, Any] = {"type": event, "id": asked.notice, "tenant": tenant, "task": task if own else ""}
    told |= {name: getattr(asked, name) for name in _SAME}
    return told | {"what_to_do": asked.hint, "told_unix_ms": asked.told_unix_ms}


def headers_of(asked: Posting, secret: bytes, now_unix_ms: int) -> dict[str, str]:
    """Signed at the moment of the try, so that a recorded one is old soon."""
    stamp = str(now_unix_ms // 1000)
    return {
        "content-type": asked.media_type,
        "bulkhead-event-id": asked.event_id,
        "bulkhead-timestamp": stamp,
        "bulkhead-signature": f"v1={sign(secret, stamp, asked.body)}",
    }


def sign(secret: bytes, stamp: str, body: bytes) -> str:
    """Hex of HMAC-SHA256 over `<stamp>.<body>`."""
    return hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
