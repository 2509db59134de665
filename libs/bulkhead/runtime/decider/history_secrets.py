"""Redaction of histories: grants and people's words keep their claims and lose their signatures; vouchers go,
and tokens and paths of receivers.

In: messages from the journal. Out: the same messages without signatures; their fold gives the same outputs.
"""

import base64
import json
import re

from bulkhead.bus.port import Stored
from bulkhead_contracts import envelope
from bulkhead_contracts.approval import ApprovalDecided
from bulkhead_contracts.push import PushConfigSet, PushPostRequested
from bulkhead_contracts.task import TaskRequested

GRANT, GRANT_DIGEST = "bulkhead-grant", "ce-grantdigest"
_OF_RECEIVERS = (PushConfigSet.TYPE, PushPostRequested.TYPE)


def without_secrets(messages: list[Stored]) -> list[Stored]:
    """Grants lose their signatures, and what names a grant by its digest names what is left of it.

    Whoever reads the file has no authority by it; a fold of it says the same as a fold of the original.
    """
    tokens = {value for one in messages for key, value in one.headers.items() if key.lower() == GRANT}
    bare = {token: unsigned(token) for token in tokens}
    renamed = {envelope.grant_digest(token): envelope.grant_digest(left) for token, left in bare.items()}
    found = []
    for one in messages:
        headers = {key.lower(): value for key, value in one.headers.items() if not key.lower().startswith("nats-")}
        if GRANT in headers:
            headers[GRANT] = bare[headers[GRANT]]
        if GRANT_DIGEST in headers:
            headers[GRANT_DIGEST] = renamed.get(headers[GRANT_DIGEST], headers[GRANT_DIGEST])
        kept = {key: value for key, value in headers.items() if value}
        found.append(
            Stored(one.subject, kept, _bare(kept.get("ce-type", ""), one.body), one.sequence, one.time_unix_ms)
        )
    return found


def _bare(ce_type: str, body: bytes) -> bytes:
    """The body. No decider reads what changes. What observers signed of a text stays: it is good for nothing
    but the same text in the same task, and what is decided rests on it."""
    kind = ce_type.rpartition(".v")[0]
    if kind not in (TaskRequested.TYPE, ApprovalDecided.TYPE, *_OF_RECEIVERS):
        return body
    try:
        said = json.loads(body)
        token = said.get("token")
    except (ValueError, AttributeError, RecursionError):
        return body  # Nobody reads it, so nobody has authority by it.
    if kind in _OF_RECEIVERS:
        # Both are a client's own: who reads the file could post to its receiver in the mesh's name.
        said |= {"token": "", "url": _origin(str(said.get("url", "")))}
    elif kind == ApprovalDecided.TYPE and isinstance(token, str):
        said["token"] = unsigned(token)
    elif said.pop("voucher", None) is None:
        return body
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}/"


def unsigned(token: str) -> str:
    """A grant's token with its claims, and its task grant's, without signatures; "" for what is no token."""
    parts = token.split(".")
    try:
        claims = json.loads(_unb64(parts[1]))
        if isinstance(claims.get("parent"), str):
            claims["parent"] = unsigned(claims["parent"])
            parts[1] = _b64(json.dumps(claims, separators=(",", ":")).encode())
        return f"{parts[0]}.{parts[1]}."
    except (ValueError, IndexError, AttributeError, RecursionError):
        return ""


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
