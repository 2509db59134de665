"""Unpacking of facts that were stored together as one message.

In: a readable message. Out: the message itself, or for `ReservedTogether` one `Reserved` per row, with its own task, id
and cause; of a doer's message the settlements that it tells.
"""

from collections.abc import Iterator
from dataclasses import replace

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import ReservedTogether
from bulkhead_contracts.settlement import settlements_of

LEDGER_TENANT = "ledger"
"""Stands for the tenant in the subject of facts of several tasks; the tenant's name stands for the task."""


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
        yield ReceivedMessage(
            head,
            row.reserved,
            message.task if message.tenant == LEDGER_TENANT else message.tenant,
            row.task,
            message.sender,
            message.sequence,
            message.time_unix_ms,
            receiver=message.receiver,
        )


def unpack_settlements(message: ReceivedMessage) -> Iterator[ReceivedMessage]:
    """The settlements that a doer's message tells, each as a message of its own."""
    if message.sender in catalog.DOERS:
        for body in settlements_of(message.body):
            own_id = body.derive_ce_id(message.sender)
            head = replace(message.envelope, id=own_id, type=body.ce_type(), cause=body.reservation_id)
            yield replace(message, envelope=head, body=body)
