"""Redaction of histories: grants and people's words keep their claims and lose their signatures; vouchers go,
and tokens and paths of receivers, whose ratings are, and what labels say.

In: messages from the journal. Out: the same messages without signatures; their fold gives the same outputs.
"""

import base64
import json
import re

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import envelope
from bulkhead_contracts.approval import ApprovalDecided
from bulkhead_contracts.push import PushConfigSet, PushPostRequested
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.task import TaskRequested

GRANT, GRANT_DIGEST = "bulkhead-grant", "ce-grantdigest"
_OF_RECEIVERS = (PushConfigSet.TYPE, PushPostRequested.TYPE)


def without_secrets(messages: list[StoredMessage]) -> list[StoredMessage]:
    """Grants lose their signatures, and what names a grant by its digest names what is left of it.

    Whoever reads the file has no authority by it; a fold of it says the same as a fold of the original.
    """
    tokens = {value for message in messages for key, value in message.headers.items() if key.lower() == GRANT}
    bare = {token: strip_signature(token) for token in tokens}
    renamed = {envelope.grant_digest(token): envelope.grant_digest(stripped) for token, stripped in bare.items()}
    cleaned = []
    for message in messages:
        headers = {key.lower(): value for key, value in message.headers.items() if not key.lower().startswith("nats-")}
        if GRANT in headers:
            headers[GRANT] = bare[headers[GRANT]]
        if GRANT_DIGEST in headers:
            headers[GRANT_DIGEST] = renamed.get(headers[GRANT_DIGEST], headers[GRANT_DIGEST])
        kept_headers = {key: value for key, value in headers.items() if value}
        cleaned.append(
            StoredMessage(
                message.subject,
                kept_headers,
                _bare_body(kept_headers.get("ce-type", ""), message.body),
                message.sequence,
                message.time_unix_ms,
            )
        )
    return cleaned


def _bare_body(ce_type: str, body: bytes) -> bytes:
    """The body. No decider reads what changes. What observers signed of a text stays: it is good for nothing
    but the same text in the same task, and what is decided rests on it."""
    kind = ce_type.rpartition(".v")[0]
    if kind not in (TaskRequested.TYPE, ApprovalDecided.TYPE, TaskRated.TYPE, *_OF_RECEIVERS):
        return body
    try:
        fields = json.loads(body)
        token = fields.get("token")
    except (ValueError, AttributeError, RecursionError):
        return body  # Nobody reads it, so nobody has authority by it.
    if kind in _OF_RECEIVERS:
        # Both are a client's own: who reads the file could post to its receiver in the mesh's name.
        fields |= {"token": "", "url": _origin_of(str(fields.get("url", "")))}
    elif kind == TaskRated.TYPE:
        # Whose word it is, operators and auditors read with the task; of a blind label nobody does, nor what it says.
        fields |= {"person": "-", "comment": ""}
        if fields.get("kind") == "label":
            fields |= {"score": "good", "role": "-"}
    elif kind == ApprovalDecided.TYPE and isinstance(token, str):
        fields["token"] = strip_signature(token)
    elif fields.pop("voucher", None) is None:
        return body
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _origin_of(url: str) -> str:
    scheme, _, address = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', address, maxsplit=1)[0].rpartition('@')[2]}/"


def strip_signature(token: str) -> str:
    """A grant's token with its claims, and its task grant's, without signatures; "" for what is no token."""
    parts = token.split(".")
    try:
        claims = json.loads(_decode_b64(parts[1]))
        if isinstance(claims.get("parent"), str):
            claims["parent"] = strip_signature(claims["parent"])
            parts[1] = _encode_b64(json.dumps(claims, separators=(",", ":")).encode())
        return f"{parts[0]}.{parts[1]}."
    except (ValueError, IndexError, AttributeError, RecursionError):
        return ""


def _encode_b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode_b64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
