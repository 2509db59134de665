"""Decoding of a stored message: its address, envelope, catalog row and body are checked here.

In: what the broker stored. Out: `ReceivedMessage`, or `Unreadable` with the reason. The same code reads a
live delivery and a message of a fold, so that both always agree on what can be read.

A message has four forms: `bus.port.StoredMessage` at rest, `bus.port.BusDelivery` while a consumer has to answer
for it, `ReceivedMessage` once it is read (a doer's `Job` is one whose grant was verified), and the pure
`flow.InboxMessage` of a decision.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

from bulkhead.bus.port import StoredMessage
from bulkhead.flow import bounded
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body


def _release_nothing() -> None:
    """The default of `release`: nothing waits for the end of a message that was not delivered."""


def _prepare_nothing(answer: Body) -> None:
    """The default of `prepare`: no sender waits for an answer to a stored message."""


class CauseFields(TypedDict):
    """The arguments of `Publisher.send` for a message of the same task that another one causes."""

    tenant: str
    task: str
    cause: str


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A stored message or a request, decoded as the latest version and checked against the catalog.

    sender is enforced by the broker. sequence is 0 for requests; time_unix_ms is the broker's. attempts: 1 on the first
    delivery. headers: as they were stored. epoch: changes when another replica may have been served in between.
    release: lets the next message of the task begin, before what this one says is durable. prepare: makes an answer
    ready to be sent while the handler still waits; it goes out if the handler returns this very one.
    """

    envelope: Envelope
    body: Body
    tenant: str
    task: str
    sender: str
    sequence: int
    time_unix_ms: int
    attempts: int = 1
    receiver: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    release: Callable[[], None] = _release_nothing
    prepare: Callable[[Body], None] = _prepare_nothing

    def as_request(self, prepare: Callable[[Body], None]) -> "ReceivedMessage":
        """A request whose sender waits for the reply."""
        return replace(self, prepare=prepare)

    @property
    def cause_fields(self) -> CauseFields:
        """Tenant, task and cause of what is said because of this message."""
        return {"tenant": self.tenant, "task": self.task, "cause": self.envelope.id}


def _check_keys_once(body: bytes) -> None:
    """What is written outside must read the same to every reader. Raises Unreadable."""
    try:
        bounded.load_json(body.decode(), once=True)
    except ValueError as error:
        raise Unreadable("malformed_body", f"the body is refused: {error}") from error


def read_message(
    stored: StoredMessage,
    service: str,
    *,
    attempts: int = 1,
    epoch: int = 0,
    release: Callable[[], None] = _release_nothing,
) -> ReceivedMessage:
    """Check everything that needs no grant; attempts, epoch, release: of its delivery. Raises Unreadable.

    The subject's <from> is the author (the broker enforces it); an envelope that names another source, or a type
    that the catalog does not let this author say to this service, is a lie; the latter may be the word of a newer
    version, whose catalog has the edge.
    """
    try:
        address = subjects.parse(stored.subject)
        head = envelope.parse(stored.headers)
        if address.receiver != service:
            raise Unreadable("misdelivered", f"{stored.subject} is not for {service}")
        if head.source != address.sender:
            raise Unreadable("forged_source", f"ce-source {head.source!r} but published by {address.sender!r}")
        is_catalog_type = head.type.rpartition(".v")[0] in catalog.BY_TYPE
        if is_catalog_type and not catalog.is_allowed(head.type, address.sender, service):
            raise Unreadable("not_in_catalog", f"{address.sender} may not say {head.type} to {service}", later=True)
        body = catalog.decode_body(head.type, stored.body)
        if address.sender.startswith(subjects.PUBLISHER):
            _check_keys_once(stored.body)
    except subjects.SubjectError as error:
        raise Unreadable("bad_subject", str(error)) from error
    except envelope.EnvelopeError as error:
        raise Unreadable("bad_envelope", str(error)) from error
    except catalog.DecodeError as error:
        raise Unreadable(error.code, str(error), later=error.later) from error
    place = address.tenant, address.task, address.sender
    stored_at = stored.sequence, stored.time_unix_ms
    return ReceivedMessage(head, body, *place, *stored_at, attempts, service, stored.headers, epoch, release)
