"""Looks for single facts in the streams: what of a reservation, or of its settlement, is stored.

In: a bus, a reservation. Out: its fact, whether it was settled.
"""

from bulkhead.bus.port import Bus, Stored
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.consume import batched_reservations, inbound
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger.rebuild import JOURNAL, JOURNAL_INBOX, PAGE, SETTLED_INBOX

CLOCKS_MS = 3_600_000
"""Greatest difference of the clocks of a doer, this service and the broker when a fact is looked up by its time."""


async def settled_before(bus: Bus, tenant: str, task: str, service: str, reservation_id: str, before: int) -> bool:
    """Whether a reservation's settlement lies in the inbox below a sequence: then it was charged. Raises BusError."""
    subject, after = subjects.mesh(service, "budget", tenant, task), 0
    while page := await bus.read(SETTLED_INBOX, subject, after=after, limit=PAGE):
        for stored in page:
            if stored.sequence >= before:
                return False
            try:
                body = inbound.read(stored, "budget").body
            except Unreadable:
                continue
            if isinstance(body, Settled) and body.reservation_id == reservation_id:
                return True
        after = page[-1].sequence
    return False


async def measured(bus: Bus, tenant: str, task: str) -> Usage:
    """What providers and tools told of a task's calls that were settled, without the estimates. Raises BusError."""
    found: dict[tuple[str, str], Usage] = {}
    subject, after = subjects.task_filter("budget", tenant, task), 0
    while page := await bus.read(SETTLED_INBOX, subject, after=after, limit=PAGE):
        for stored in page:
            try:
                message = inbound.read(stored, "budget")
            except Unreadable:
                continue
            if isinstance(message.body, Settled):
                found.setdefault((message.sender, message.body.reservation_id), message.body.usage)
        after = page[-1].sequence
    return Usage(
        input_tokens=sum(one.input_tokens + one.output_tokens - one.estimated_tokens for one in found.values()),
        cost_usd_micros=sum(one.cost_usd_micros - one.estimated_usd_micros for one in found.values()),
    )


async def find_fact(
    bus: Bus, tenant: str, task: str, service: str, reservation_id: str, since_unix_ms: int
) -> Reserved | None:
    """The journal's fact of one reservation, if it is there: the last, for one before it may have come too late.

    since_unix_ms: it was asked for no earlier; those that were stored together are looked through from there on, and a
    little before. Raises BusError.
    """
    found: list[tuple[int, Reserved]] = []
    book = batched_reservations.subject(tenant)
    last = await bus.last(JOURNAL_INBOX, book)
    since = since_unix_ms - CLOCKS_MS
    first = await last_before(bus, JOURNAL_INBOX, book, since, last.sequence) if last is not None else 0
    for subject, start in ((subjects.mesh("budget", JOURNAL, tenant, task), 0), (book, first)):
        after = start
        while page := await bus.read(JOURNAL_INBOX, subject, after=after, limit=PAGE):
            found += [
                (stored.sequence, body)
                for stored in page
                for body in _reserved(stored, task)
                if (body.service, body.reservation_id) == (service, reservation_id)
            ]
            after = page[-1].sequence
    return max(found, key=lambda one: one[0])[1] if found else None


def _reserved(stored: Stored, task: str) -> list[Reserved]:
    """Of one task, in one message."""
    try:
        message = inbound.read(stored, JOURNAL)
    except Unreadable:
        return []
    return [
        one.body for one in batched_reservations.each(message) if isinstance(one.body, Reserved) and one.task == task
    ]
