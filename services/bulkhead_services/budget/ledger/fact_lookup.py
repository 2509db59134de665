"""Looks for single facts in the streams: what of a reservation, or of its settlement, is stored.

In: a bus, a reservation. Out: its fact, whether it was settled.
"""

from collections.abc import AsyncIterator

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import batched_reservations, inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger.checkpoint import JOURNAL, JOURNAL_INBOX

CLOCKS_MS = 3_600_000
"""Greatest difference of the clocks of a doer, this service and the broker when a fact is looked up by its time."""


async def was_settled_before(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, before_sequence: int
) -> bool:
    """True when a reservation's settlement lies in the inbox below a sequence: then it was charged.
    Raises BusError.
    """
    async for message in _readable_messages(bus, "budget", subjects.mesh_subject(service, "budget", tenant, task)):
        if message.sequence >= before_sequence:
            return False
        if isinstance(message.body, Settled) and message.body.reservation_id == reservation_id:
            return True
    return False


async def measured_usage(bus: Bus, tenant: str, task: str) -> Usage:
    """Usage that providers and tools told of a task's settled calls, without the estimates. Raises BusError."""
    usages: dict[tuple[str, str], Usage] = {}
    async for message in _readable_messages(bus, "budget", subjects.task_filter("budget", tenant, task)):
        if isinstance(message.body, Settled):
            usages.setdefault((message.sender, message.body.reservation_id), message.body.usage)
    tokens = sum(usage.input_tokens + usage.output_tokens - usage.estimated_tokens for usage in usages.values())
    cost = sum(usage.cost_usd_micros - usage.estimated_usd_micros for usage in usages.values())
    return Usage(input_tokens=min(tokens, bounds.MAX_TOKENS), cost_usd_micros=min(cost, bounds.MAX_COST_USD_MICROS))


async def find_fact(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, since_unix_ms: int
) -> Reserved | None:
    """The journal's fact of one reservation, if it is there: the last, for one before it may have come too late.

    since_unix_ms: it was asked for no earlier; those that were stored together are looked through from there on, and a
    little before. Raises BusError.
    """
    match: Reserved | None = None
    newest = 0
    book = batched_reservations.batch_subject(tenant)
    last = await bus.last(JOURNAL_INBOX, book)
    since = since_unix_ms - CLOCKS_MS
    first = await last_before(bus, JOURNAL_INBOX, book, since, last.sequence) if last is not None else 0
    for subject, after in ((subjects.mesh_subject("budget", JOURNAL, tenant, task), 0), (book, first)):
        async for message in _readable_messages(bus, JOURNAL, subject, after):
            for fact in batched_reservations.unpack_facts(message):
                body = fact.body
                if (
                    isinstance(body, Reserved)
                    and (fact.task, body.service, body.reservation_id) == (task, service, reservation_id)
                    and message.sequence > newest
                ):
                    match, newest = body, message.sequence
    return match


async def _readable_messages(bus: Bus, inbox: str, subject: str, after: int = 0) -> AsyncIterator[ReceivedMessage]:
    """Messages of an inbox; what cannot be read is passed over."""
    async for stored in stored_messages(bus, subjects.inbox_stream(inbox), subject, after=after):
        try:
            message = inbound.read_message(stored, inbox)
        except Unreadable:
            continue
        yield message
