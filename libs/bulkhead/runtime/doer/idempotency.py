"""State of a call under its idempotency key: the outcome, and the record of a call that has none yet.

In: the newest message of two subjects: of the reply, in the asker's inbox, and of the record, in RECORDS_<DOER>. Out: a
`KeyedCall`, and what of it a request is answered.
"""

from dataclasses import dataclass

from pydantic import BaseModel

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.settlement import DoerReply, settlements_of
from bulkhead_contracts.types import Body


class IdempotencyRecord(BaseModel):
    """Record of a call that has no outcome yet.

    claimed: `request` may have been done. closed: it was not done, and must not be: it was put off (it is asked again
    as another request), or is about to be refused. used: charged for handlings of the call; told when it was put off,
    else (they were cut off, by a restart for one) by whoever answers it.
    """

    request: str
    claimed: bool = False
    closed: bool = False
    used: tuple[Settled, ...] = ()


@dataclass(frozen=True, slots=True)
class CallPlace:
    """Subjects of a call: of the reply, in the asker's inbox, and of the record."""

    key: str
    inbox: str
    reply: str
    record: str


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The newest outcome under a key, made for the request `cause`; sequence: 0 where there is none.

    An outcome that is undone (refused, failed: certainly nothing was done) answers the request that it was made for;
    another request under the same key (a later attempt of the step) may try again. Any other answers all requests.
    """

    body: Body | None = None
    cause: str = ""
    sequence: int = 0

    @property
    def answered(self) -> tuple[str, ...]:
        """The requests that this outcome and those before it were made for."""
        if self.body is None:
            return ()
        earlier = self.body.answered if isinstance(self.body, DoerReply) else ()
        return (*earlier, self.cause)[-bounds.MAX_ANSWERED_BEFORE :]

    def answers(self, request: str) -> bool:
        """Check whether a request has its answer; one without may be tried."""
        return self.body is not None and (not is_undone(self.body) or request in self.answered)


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """All that is stored under a key. record: None where there is none, or the request that it is of was answered."""

    place: CallPlace
    outcome: StoredOutcome
    record: IdempotencyRecord | None
    record_sequence: int
    recorded_unix_ms: int

    @property
    def lost(self) -> tuple[Settled, ...]:
        """Charged for handlings that were cut off, and told by no answer."""
        if self.record is None or self.record.closed:
            return ()
        told_ids = {row.reservation_id for row in settlements_of(self.outcome.body)} if self.outcome.body else set()
        return tuple(row for row in self.record.used if row.reservation_id not in told_ids)

    def was_put_off(self, request: str) -> bool:
        """Check whether this request was put off: it is asked again as another one."""
        return self.record is not None and self.record.closed and self.record.request == request


def is_undone(reply: Body) -> bool:
    """Check whether a reply says that certainly nothing was done."""
    return isinstance(reply, DoerReply) and getattr(reply, "outcome", "") in ("refused", "failed")


def parse_outcome(stored: StoredMessage | None) -> StoredOutcome:
    """The outcome that a reply is."""
    if stored is None:
        return StoredOutcome()
    return StoredOutcome(catalog.decode_body(stored.ce_type, stored.body), stored.cause, stored.sequence)


def parse_call(place: CallPlace, reply: StoredMessage | None, record: StoredMessage | None) -> KeyedCall:
    """The state of a call by the newest messages of its two subjects."""
    outcome = parse_outcome(reply)
    if record is None:
        return KeyedCall(place, outcome, None, 0, 0)
    parsed = IdempotencyRecord.model_validate_json(record.body)
    is_open = parsed.request not in outcome.answered
    return KeyedCall(place, outcome, parsed if is_open else None, record.sequence, record.time_unix_ms)


def total_usage(settled: tuple[Settled, ...]) -> Usage:
    """Usage of some attempts together."""
    return sum((row.usage for row in settled), Usage())


def with_lost_usage(reply: Body, lost: tuple[Settled, ...]) -> Body:
    """The reply with what its request had been charged for before."""
    used = getattr(reply, "usage", None)
    return reply.model_copy(update={"usage": used + total_usage(lost)}) if lost and used else reply
