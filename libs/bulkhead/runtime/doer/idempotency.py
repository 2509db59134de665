"""What a doer has on record under an idempotency key: a claim, or what requests were answered.

In: the newest message of the key's subject. Out: `Record`, and what of it a request is answered or still to be told.
"""

from pydantic import BaseModel

from bulkhead.bus.port import Stored
from bulkhead.runtime.doer.deferred_calls import SINCE_LOGIC
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Usage
from bulkhead_contracts.types import Body

MAX_EARLIER = 8
"""Requests under one key whose answer, that nothing was done, stays known."""


class Answered(BaseModel):
    """What a request was answered."""

    request: str = ""
    reply_type: str = ""
    reply: str = ""
    settled: tuple[Settled, ...] = ()


class Record(Answered):
    """What stands under an idempotency key: a claim, then the outcome.

    undone: the outcome is that certainly nothing was done (refused, failed). It answers the request that it was
    made for; another request under the same key (a later attempt of the step) may try again. earlier: what those before
    it were answered, which stands: one that is delivered once more must not do what its asker was told was not done.
    """

    claimed: bool = False
    undone: bool = False
    earlier: tuple[Answered, ...] = ()

    def answer_to(self, request: str) -> Answered | None:
        """None for one that is not answered yet, and may be tried."""
        told = next((one for one in self.earlier if one.request == request), None)
        if told is None and self.reply_type and (not self.undone or self.request == request):
            return self
        return told

    def put_off(self, request: str) -> bool:
        """Whether this request was put off: it is asked again as another one."""
        return self.undone and not self.reply_type and self.request == request

    def answered(self) -> tuple[Answered, ...]:
        """All that whoever tries again has to remember."""
        mine = self.undone and bool(self.reply_type)
        last = (Answered(**{name: getattr(self, name) for name in Answered.model_fields}),) if mine else ()
        return (*self.earlier, *last)[-MAX_EARLIER:]


def parse(stored: Stored | None) -> tuple[Record | None, int]:
    """The record and its sequence; None and 0 where there is none."""
    if stored is None:
        return None, 0
    return Record.model_validate_json(stored.body), stored.sequence


def untold(record: Record | None, head: Envelope) -> tuple[Settled, ...]:
    """What a call had used when it was put off, as far as its asker has not been told: it is told then, but for earlier
    decision logic."""
    return () if record is None or record.reply_type or head.logic >= SINCE_LOGIC else record.settled


def told_when_put_off(spent: tuple[Settled, ...], head: Envelope) -> Usage:
    """Askers of earlier decision logic are told with the answer."""
    return sum((one.usage for one in spent), Usage()) if head.logic >= SINCE_LOGIC else Usage()


def with_spent(reply: Body, before: tuple[Settled, ...]) -> Body:
    """The reply with what its call had spent before it was put off: those settlements were said then."""
    used = getattr(reply, "usage", None)
    return reply.model_copy(update={"usage": sum((one.usage for one in before), used)}) if before and used else reply
