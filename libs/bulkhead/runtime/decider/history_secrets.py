"""Redaction of histories: grants keep their claims and lose their signatures.

In: messages from the journal. Out: the same messages without signatures; their fold gives the same outputs.
"""

import base64
import json

from bulkhead.bus.port import Stored
from bulkhead_contracts import envelope

GRANT, GRANT_DIGEST = "bulkhead-grant", "ce-grantdigest"


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
        found.append(Stored(one.subject, kept, one.body, one.sequence, one.time_unix_ms))
    return found


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
