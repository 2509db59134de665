"""What the runtime gives a service's composition root (`app.py`)."""

from dataclasses import dataclass

from bulkhead.blobs import Blobs
from bulkhead.bus.port import Bus
from bulkhead.grants import Signer, Verifier


@dataclass(frozen=True, slots=True)
class Context:
    """One running service: its bus under its own identity, its blobs, its keys."""

    service: str
    instance: str
    bus: Bus
    blobs: Blobs
    signer: Signer
    verifier: Verifier
    message_key: bytes
    """HMAC key of `Nats-Msg-Id`."""
