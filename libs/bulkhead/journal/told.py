"""A task's messages as budget tells them to a gateway, made into what the folds of the journal read. Pure.

In: pages of `ToldMessage`. Out: stored messages, in an order in which they were said.
"""

from collections.abc import Iterable
from dataclasses import replace

from bulkhead.bus.port import StoredMessage
from bulkhead.journal.order import BEHIND_MS, published_unix_ms
from bulkhead_contracts import subjects
from bulkhead_contracts.journal import ToldMessage


def stored_of(message: ToldMessage, tenant: str, task: str) -> StoredMessage:
    """The message as a stream has it."""
    subject = subjects.mesh_subject(message.sender, message.receiver, tenant, task)
    return StoredMessage(
        subject, dict(message.headers), message.body.encode(), message.sequence, message.stored_unix_ms
    )


def as_in_inbox(message: ToldMessage, tenant: str, task: str) -> StoredMessage:
    """The same with the number that it has in its inbox, as portable histories have it."""
    return replace(stored_of(message, tenant, task), sequence=message.inbox_sequence)


def in_journal_order(messages: Iterable[StoredMessage]) -> list[StoredMessage]:
    """The messages as the journal has them; those of one that was made again (it has one inbox behind the other,
    under the times of its making) by their authors' times.
    """
    stored = list(messages)
    if not any(message.time_unix_ms - published_unix_ms(message) > BEHIND_MS for message in stored):
        return stored
    timed = [replace(message, time_unix_ms=min(message.time_unix_ms, published_unix_ms(message))) for message in stored]
    return sorted(timed, key=lambda one: one.time_unix_ms)
