"""Settlements: the usage of a call in fact, in a message of its own or as a part of the reply to the call."""

import operator
from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds, envelope

from ..result import Usage
from ..types import Body, Contract, Count, Tag, Token

SETTLED = "settled"
"""Index, under its reservation, of the message that settles it."""
SETTLED_FIELD = b'"settled"'
"""Stands in the body of every reply that settles something: the others need not be decoded."""


class Settled(Body, type="mesh.budget.settled"):
    """The doer says what the call really used; idempotent by reservation id.

    It travels in the reply to the call; as a message of its own where no reply goes out, or none that has room for it.
    estimated: nothing is known of what it used (its doer died), so the reservation itself is charged; an estimate that
    the doer made is marked in `usage`. wall_ms: from admission to settlement, by the doer's clock. failed: the code of
    an attempt that brought no answer. unused: other reservations of the task, which are settled with nothing.
    """

    reservation_id: Token
    call_id: Token
    usage: Usage
    estimated: bool = False
    wall_ms: Count = 0
    failed: Tag = ""
    unused: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_CALLS_AHEAD + 1, exclude_if=operator.not_)] = ()

    @classmethod
    def with_nothing(cls, *reservation_ids: str) -> "Settled":
        """Settlement of reservations under which nothing was done."""
        first = reservation_ids[0]
        return cls(reservation_id=first, call_id=first, usage=Usage(), unused=reservation_ids[1:])

    def derive_ce_id(self, doer: str) -> str:
        """`ce-id` of the settlement as a message of its own, which it bears in a reply, too."""
        return envelope.derive_id(doer, self.reservation_id, SETTLED)


class DoerReply(Contract):
    """Reply of a doer to a request, as each of theirs is.

    settled: what the attempts at the request used, each once; budget reads it where the reply lies. answered: ids of
    the requests under the same key that were told before that nothing was done.
    """

    settled: Annotated[
        tuple[Settled, ...], Field(max_length=bounds.MAX_SETTLED_IN_REPLY, exclude_if=operator.not_)
    ] = ()
    answered: Annotated[
        tuple[Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)], ...],
        Field(max_length=bounds.MAX_ANSWERED_BEFORE, exclude_if=operator.not_),
    ] = ()


def settlements_of(body: Body) -> tuple[Settled, ...]:
    """The settlements that a message tells, in either form, each of one reservation."""
    rows = (body,) if isinstance(body, Settled) else body.settled if isinstance(body, DoerReply) else ()
    if not any(row.unused for row in rows):
        return rows
    return tuple(
        settlement
        for row in rows
        for settlement in (row.model_copy(update={"unused": ()}), *map(Settled.with_nothing, row.unused))
    )
