"""Looks for single facts in the streams: what of a reservation, or of its settlement, is stored.

In: a bus, a reservation. Out: its fact, whether it was settled.
"""

from collections.abc import AsyncIterator, Collection

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger.checkpoint import JOURNAL, JOURNAL_INBOX
from bulkhead_services.budget.ledger.replies import settlements_of_task

CLOCKS_MS = 3_600_000
"""Greatest difference of the clocks of a doer, this service and the broker when a fact is looked up by its time."""
BROKERS_MS = 60_000
"""Greatest difference of the clocks of the brokers that store two streams."""


async def was_settled_before(bus: Bus, settlement: ReceivedMessage) -> bool:
    """True when the reservation was settled before this: then it was charged.

    Of two in one inbox the first was; of a message and a reply the older, and none where their brokers' clocks may
    differ by as much: charged twice is better than never. Raises BusError.
    """
    body = settlement.body
    assert isinstance(body, Settled)
    async for earlier in settlements_of_task(bus, settlement.tenant, settlement.task, (settlement.sender,)):
        assert isinstance(earlier.body, Settled)
        if earlier.body.reservation_id != body.reservation_id:
            continue
        if earlier.receiver == settlement.receiver and earlier.sequence < settlement.sequence:
            return True
        if earlier.receiver != settlement.receiver and earlier.time_unix_ms + BROKERS_MS < settlement.time_unix_ms:
            return True
    return False


async def measured_usage(bus: Bus, tenant: str, task: str) -> Usage:
    """Usage that providers and tools told of a task's settled calls, without the estimates. Raises BusError."""
    usages: dict[tuple[str, str], Usage] = {}
    async for message in settlements_of_task(bus, tenant, task):
        assert isinstance(message.body, Settled)
        usages.setdefault((message.sender, message.body.reservation_id), message.body.usage)
    tokens = sum(usage.input_tokens + usage.output_tokens - usage.estimated_tokens for usage in usages.values())
    cost = sum(usage.cost_usd_micros - usage.estimated_usd_micros for usage in usages.values())
    return Usage(input_tokens=min(tokens, bounds.MAX_TOKENS), cost_usd_micros=min(cost, bounds.MAX_COST_USD_MICROS))


async def find_fact(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, since_unix_ms: int
) -> Reserved | None:
    """The journal's fact of one reservation, as `find_facts` finds it. Raises BusError."""
    return (await find_facts(bus, tenant, task, service, (reservation_id,), since_unix_ms)).get(reservation_id)


async def find_facts(
    bus: Bus, tenant: str, task: str, service: str, reservation_ids: Collection[str], since_unix_ms: int
) -> dict[str, Reserved]:
    """The journal's facts of reservations that are there, by id: the last, for one before it may have come too late.

    since_unix_ms: none was asked for earlier; those that were stored together are looked through from there on, and a
    little before. Raises BusError.
    """
    newest: dict[str, tuple[int, Reserved]] = {}
    book = packed_facts.batch_subject(tenant)
    last = await bus.last(JOURNAL_INBOX, book)
    since = since_unix_ms - CLOCKS_MS
    first = await last_before(bus, JOURNAL_INBOX, book, since, last.sequence) if last is not None else 0
    for subject, after in ((subjects.mesh_subject("budget", JOURNAL, tenant, task), 0), (book, first)):
        async for message in _readable_messages(bus, JOURNAL, subject, after):
            for fact in packed_facts.unpack_facts(message):
                body = fact.body
                if (
                    isinstance(body, Reserved)
                    and (fact.task, body.service) == (task, service)
                    and body.reservation_id in reservation_ids
                    and (body.reservation_id not in newest or message.sequence > newest[body.reservation_id][0])
                ):
                    newest[body.reservation_id] = (message.sequence, body)
    return {reservation_id: body for reservation_id, (_, body) in newest.items()}


async def _readable_messages(bus: Bus, inbox: str, subject: str, after: int = 0) -> AsyncIterator[ReceivedMessage]:
    """Messages of an inbox; what cannot be read is passed over."""
    async for stored in stored_messages(bus, subjects.inbox_stream(inbox), subject, after=after):
        try:
            message = inbound.read_message(stored, inbox)
        except Unreadable:
            continue
        yield message
