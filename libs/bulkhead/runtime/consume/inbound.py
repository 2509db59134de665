"""From a stored message to one that can be handled: address, envelope, catalog and body are checked here.

In: what the broker stored. Out: `Inbound`, or `Unreadable` with the reason. The same code reads a live delivery
and a message of a fold, so that both always agree on what can be read.
"""

from dataclasses import dataclass

from bulkhead.bus.port import Stored
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.subjects import Address
from bulkhead_contracts.types import Body


class Unreadable(Exception):
    """Cannot be read here; `later` tells that an upgraded reader might."""

    def __init__(self, code: str, reason: str, *, later: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.later = later


@dataclass(frozen=True, slots=True)
class Inbound:
    """A readable message of an inbox."""

    address: Address
    envelope: Envelope
    body: Body
    sequence: int
    time_unix_ms: int


def read(stored: Stored, service: str) -> Inbound:
    """Check everything that needs no grant. Raises Unreadable.

    The subject's <from> is the author (the broker enforces it); an envelope that names another source, or a type
    that the catalog does not let this author say to this service, is a lie.
    """
    try:
        address = subjects.parse(stored.subject)
        head = envelope.parse(stored.headers)
        if address.receiver != service:
            raise Unreadable("misdelivered", f"{stored.subject} is not for {service}")
        if head.source != address.sender:
            raise Unreadable("forged_source", f"ce-source {head.source!r} but published by {address.sender!r}")
        known = head.type.rpartition(".v")[0] in catalog.BY_TYPE
        if known and not catalog.allowed(head.type, address.sender, service):
            raise Unreadable("not_in_catalog", f"{address.sender} may not say {head.type} to {service}")
        body = catalog.decode(head.type, stored.body)
    except subjects.SubjectError as error:
        raise Unreadable("bad_subject", str(error)) from error
    except envelope.EnvelopeError as error:
        raise Unreadable("bad_envelope", str(error)) from error
    except catalog.DecodeError as error:
        raise Unreadable(error.code, str(error), later=error.later) from error
    return Inbound(address, head, body, stored.sequence, stored.time_unix_ms)
