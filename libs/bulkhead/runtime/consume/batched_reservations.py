"""Unpacking of facts that were stored together as one message.

In: a readable message of the journal's inbox. Out: the message itself, or for `ReservedTogether` one `Reserved` per
row, with its own task, id and cause.
"""

from collections.abc import Iterator
from dataclasses import replace

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import ReservedTogether

LEDGER_TENANT = "ledger"
"""Stands for the tenant in the subject of such a message; the tenant's name stands for the task."""


def batch_subject(tenant: str) -> str:
    """Subject under which those of a tenant lie."""
    return subjects.mesh_subject("budget", "journal", LEDGER_TENANT, tenant)


def unpack_facts(message: ReceivedMessage) -> Iterator[ReceivedMessage]:
    """The facts of one message, in their order."""
    body = message.body
    if not isinstance(body, ReservedTogether):
        yield message
        return
    for row in body.rows:
        head = replace(
            message.envelope,
            id=row.id,
            type=row.reserved.ce_type(),
            cause=row.cause,
            actor=row.actor,
            grant_digest=row.grant_digest,
        )
        # The tenant's name stands for the task in the subject.
        yield ReceivedMessage(
            head,
            row.reserved,
            message.task,
            row.task,
            message.sender,
            message.sequence,
            message.time_unix_ms,
            receiver=message.receiver,
        )
