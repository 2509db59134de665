"""Looks for single facts in the streams: what of a reservation, or of its settlement, is stored.

In: a bus, a reservation. Out: its fact, whether it was settled.
"""

from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import batched_reservations, inbound
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger.checkpoint import JOURNAL, JOURNAL_INBOX, SETTLED_INBOX
from bulkhead_services.budget.ledger.rebuild import PAGE

CLOCKS_MS = 3_600_000
"""Greatest difference of the clocks of a doer, this service and the broker when a fact is looked up by its time."""


async def was_settled_before(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, before_sequence: int
) -> bool:
    """True when a reservation's settlement lies in the inbox below a sequence: then it was charged.
    Raises BusError.
    """
    subject, after = subjects.mesh_subject(service, "budget", tenant, task), 0
    while page := await bus.read(SETTLED_INBOX, subject, after=after, limit=PAGE):
        for stored in page:
            if stored.sequence >= before_sequence:
                return False
            try:
                body = inbound.read_message(stored, "budget").body
            except Unreadable:
                continue
            if isinstance(body, Settled) and body.reservation_id == reservation_id:
                return True
        after = page[-1].sequence
    return False


async def measured_usage(bus: Bus, tenant: str, task: str) -> Usage:
    """Usage that providers and tools told of a task's settled calls, without the estimates. Raises BusError."""
    usages: dict[tuple[str, str], Usage] = {}
    subject, after = subjects.task_filter("budget", tenant, task), 0
    while page := await bus.read(SETTLED_INBOX, subject, after=after, limit=PAGE):
        for stored in page:
            try:
                message = inbound.read_message(stored, "budget")
            except Unreadable:
                continue
            if isinstance(message.body, Settled):
                usages.setdefault((message.sender, message.body.reservation_id), message.body.usage)
        after = page[-1].sequence
    return Usage(
        input_tokens=sum(
            usage.input_tokens + usage.output_tokens - usage.estimated_tokens for usage in usages.values()
        ),
        cost_usd_micros=sum(usage.cost_usd_micros - usage.estimated_usd_micros for usage in usages.values()),
    )


async def find_fact(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, since_unix_ms: int
) -> Reserved | None:
    """The journal's fact of one reservation, if it is there: the last, for one before it may have come too late.

    since_unix_ms: it was asked for no earlier; those that were stored together are looked through from there on, and a
    little before. Raises BusError.
    """
    matches: list[tuple[int, Reserved]] = []
    book = batched_reservations.batch_subject(tenant)
    last = await bus.last(JOURNAL_INBOX, book)
    since = since_unix_ms - CLOCKS_MS
    first = await last_before(bus, JOURNAL_INBOX, book, since, last.sequence) if last is not None else 0
    for subject, start in ((subjects.mesh_subject("budget", JOURNAL, tenant, task), 0), (book, first)):
        after = start
        while page := await bus.read(JOURNAL_INBOX, subject, after=after, limit=PAGE):
            matches += [
                (stored.sequence, body)
                for stored in page
                for body in _reservations_of_task(stored, task)
                if (body.service, body.reservation_id) == (service, reservation_id)
            ]
            after = page[-1].sequence
    return max(matches, key=lambda one: one[0])[1] if matches else None


def _reservations_of_task(stored: StoredMessage, task: str) -> list[Reserved]:
    """Facts of one task, in one message."""
    try:
        message = inbound.read_message(stored, JOURNAL)
    except Unreadable:
        return []
    return [
        fact.body
        for fact in batched_reservations.unpack_facts(message)
        if isinstance(fact.body, Reserved) and fact.task == task
    ]
