"""The envelope of a body: CloudEvents 1.0, binary mode in NATS headers.

`ce-id` derives from the cause, so a repeated handler repeats its ids. The body is canonical JSON.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from bulkhead_contracts import bounds

CONTENT_TYPE = "application/json"


class EnvelopeError(ValueError):
    """Headers that are missing, malformed or over their bound."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of one message.

    id: 32 hex, hash of emitter, cause and index. type: `mesh.step.assigned.v1`. source: the service's name.
    time_unix_ms: for doers and edges their clock, for deciders the time of the cause.
    cause: id of the message that caused this one ("" for the first). actor: on whose authority.
    grant: the narrowest grant token that covers it ("" on facts and replies); grant_digest stays on all.
    """

    id: str
    type: str
    source: str
    time_unix_ms: int
    cause: str = ""
    actor: str = ""
    grant: str = ""
    grant_digest: str = ""
    approval: str = ""
    traceparent: str = ""
    logic: int = 1

    def to_headers(self) -> dict[str, str]:
        """NATS headers of the envelope; empty attributes are left out."""
        attributes = {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-type": self.type,
            "ce-source": self.source,
            "ce-time": format_rfc3339(self.time_unix_ms),
            "content-type": CONTENT_TYPE,
            "ce-causeid": self.cause,
            "ce-actor": self.actor,
            "ce-grantdigest": self.grant_digest,
            "ce-approvalid": self.approval,
            "ce-logicversion": str(self.logic),
            "traceparent": self.traceparent,
            "bulkhead-grant": self.grant,
        }
        return {key: value for key, value in attributes.items() if value}


@lru_cache(maxsize=64)
def format_rfc3339(unix_ms: int) -> str:
    """A time as `ce-time` has it. One decision's messages share theirs."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=256)
def _unix_ms(text: str) -> int:
    """Raises ValueError. What deciders say bears the time of its cause: it comes again and again."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def derive_id(emitter: str, cause: str, index: int | str) -> str:
    """`ce-id` of the index-th message that `emitter` sends because of `cause`: 32 hex digits."""
    return hashlib.blake2b(f"{emitter}/{cause}/{index}".encode(), digest_size=16).hexdigest()


def message_id(service_key: bytes, *parts: str) -> str:
    """`Nats-Msg-Id`: nobody without the service's key can occupy another's id.

    For a message its parts are subject and ce-id: a ce-id derives from its cause, and an outside publisher who
    chooses a cause's id must not reach beyond its own tenant and task.
    """
    keyed = _keyed_hash(service_key).copy()
    keyed.update("\n".join(parts).encode())
    return keyed.hexdigest()[:32]


@lru_cache(maxsize=64)
def _keyed_hash(key: bytes) -> hmac.HMAC:
    """To look the hash up by its name costs a service that has slept more than all the rest of an id."""
    return hmac.new(key, digestmod="sha256")


def grant_digest(token: str) -> str:
    """32 hex digits naming a grant token; "" for none."""
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest() if token else ""


def parse(headers: Mapping[str, str]) -> Envelope:
    """Read an envelope; raises EnvelopeError that says which attribute is wrong."""
    lower = {key.lower(): value for key, value in headers.items()}
    for name in ("ce-id", "ce-type", "ce-source", "ce-time"):
        if not lower.get(name):
            raise EnvelopeError(f"header {name} is missing")
    if len("".join(lower)) + len("".join(lower.values())) > bounds.MAX_HEADER_BYTES:
        raise EnvelopeError(f"headers exceed {bounds.MAX_HEADER_BYTES} bytes")
    if len(lower["ce-id"]) > 64 or len(lower["ce-type"]) > 100:
        raise EnvelopeError("ce-id or ce-type is too long")
    try:
        time_unix_ms = _unix_ms(lower["ce-time"])
        logic = int(lower.get("ce-logicversion", "1"))
    except ValueError as error:
        raise EnvelopeError(f"ce-time or ce-logicversion is malformed: {error}") from error
    return Envelope(
        id=lower["ce-id"],
        type=lower["ce-type"],
        source=lower["ce-source"],
        time_unix_ms=time_unix_ms,
        cause=lower.get("ce-causeid", ""),
        actor=lower.get("ce-actor", ""),
        grant=lower.get("bulkhead-grant", ""),
        grant_digest=lower.get("ce-grantdigest", ""),
        approval=lower.get("ce-approvalid", ""),
        traceparent=lower.get("traceparent", ""),
        logic=logic,
    )
