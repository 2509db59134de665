"""A task's messages as budget tells them to a gateway, made into what the folds of the journal read. Pure.

In: pages of `ToldMessage`. Out: stored messages, in an order in which they were said.
"""

from collections.abc import Iterable
from dataclasses import replace

from bulkhead.bus.port import Stored
from bulkhead.journal.order import BEHIND_MS, said_at
from bulkhead_contracts import subjects
from bulkhead_contracts.journal import ToldMessage


def stored_of(message: ToldMessage, tenant: str, task: str) -> Stored:
    """The message as a stream has it."""
    subject = subjects.mesh(message.sender, message.receiver, tenant, task)
    return Stored(subject, dict(message.headers), message.body.encode(), message.sequence, message.stored_unix_ms)


def as_in_inbox(message: ToldMessage, tenant: str, task: str) -> Stored:
    """The same with the number that it has in its inbox, as portable histories have it."""
    return replace(stored_of(message, tenant, task), sequence=message.inbox_sequence)


def in_order(messages: Iterable[Stored]) -> list[Stored]:
    """As the journal has them; those of one that was made again (it has one inbox behind the other, under the times of
    its making) by their authors' times."""
    found = list(messages)
    if not any(one.time_unix_ms - said_at(one) > BEHIND_MS for one in found):
        return found
    timed = [replace(one, time_unix_ms=min(one.time_unix_ms, said_at(one))) for one in found]
    return sorted(timed, key=lambda one: one.time_unix_ms)
