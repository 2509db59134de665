"""A doer's idempotency records: a claim, then the outcome, under one key.

In: the newest message of the key's subject. Out: `IdempotencyRecord`, and what of it a request is
answered.
"""

from pydantic import BaseModel

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.types import Body

MAX_EARLIER = 8
"""Requests under one key whose answer, that nothing was done, stays known."""


class RequestAnswer(BaseModel):
    """The answer to one request."""

    request: str = ""
    reply_type: str = ""
    reply: str = ""
    settled: tuple[Settled, ...] = ()


class IdempotencyRecord(RequestAnswer):
    """Entry under an idempotency key: a claim, then the outcome.

    undone: the outcome is that certainly nothing was done (refused, failed). It answers the request that it
    was made for; another request under the same key (a later attempt of the step) may try again. earlier:
    what those before it were answered, which stands: one that is delivered once more must not do what its
    asker was told was not done. lost: charged for handlings that were cut off, by a restart for one; whoever
    answers the request tells it.
    """

    claimed: bool = False
    undone: bool = False
    earlier: tuple[RequestAnswer, ...] = ()
    lost: tuple[Settled, ...] = ()

    def answer_to(self, request: str) -> RequestAnswer | None:
        """None for one that is not answered yet, and may be tried."""
        earlier_answer = next((answer for answer in self.earlier if answer.request == request), None)
        if earlier_answer is None and self.reply_type and (not self.undone or self.request == request):
            return self
        return earlier_answer

    def was_put_off(self, request: str) -> bool:
        """Check whether this request was put off: it is asked again as another one."""
        return self.undone and not self.reply_type and self.request == request

    def answers_to_keep(self) -> tuple[RequestAnswer, ...]:
        """All that whoever tries again has to remember."""
        mine = self.undone and bool(self.reply_type)
        last = (RequestAnswer(**{name: getattr(self, name) for name in RequestAnswer.model_fields}),) if mine else ()
        return (*self.earlier, *last)[-MAX_EARLIER:]


def parse_record(stored: StoredMessage | None) -> tuple[IdempotencyRecord | None, int]:
    """The record and its sequence; None and 0 where there is none."""
    if stored is None:
        return None, 0
    return IdempotencyRecord.model_validate_json(stored.body), stored.sequence


def total_usage(settled: tuple[Settled, ...]) -> Usage:
    """Usage of a call when it was put off: its asker is told then."""
    return sum((row.usage for row in settled), Usage())


def with_lost_usage(reply: Body, lost: tuple[Settled, ...]) -> Body:
    """The reply with what its request had been charged for before."""
    used = getattr(reply, "usage", None)
    return reply.model_copy(update={"usage": sum((row.usage for row in lost), used)}) if lost and used else reply
