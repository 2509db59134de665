"""The replies of doers as they lie in the inboxes of those who asked: the settlements of their calls travel in them.

In: the catalog's edges, stored messages. Out: pages of an edge from a position on, and the settlements in them. An
edge's position is a sequence of the asker's inbox: every settlement up to it is in the ledger.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.journal.reader import place_of
from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry.log import Log
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.settlement import SETTLED_FIELD

log = Log("budget.replies")

BUDGET = "budget"
PAGE = 64
"""Replies may be large, and so many settlements go to Redis together."""
MAX_SEQUENCE = 2**63


class ReplyEdge(NamedTuple):
    """Replies of one doer to one asker."""

    doer: str
    asker: str

    @property
    def name(self) -> str:
        """The edge in the ledger and in checkpoints."""
        return f"{self.doer}.{self.asker}"

    @property
    def stream(self) -> str:
        """The asker's inbox."""
        return subjects.inbox_stream(self.asker)

    @property
    def subject(self) -> str:
        """Filter of all of them."""
        return f"mesh.{self.doer}.{self.asker}.>"

    def of_tenant(self, tenant: str) -> str:
        """Filter of one tenant's."""
        return f"mesh.{self.doer}.{self.asker}.*.{subjects.check_token(tenant)}.>"

    def of_task(self, tenant: str, task: str) -> str:
        """Filter of one task's."""
        return f"mesh.{self.doer}.{self.asker}.{place_of(task, tenant)}"


EDGES = tuple(ReplyEdge(*edge) for edge in catalog.SETTLEMENT_EDGES)


def is_settling(stored: StoredMessage) -> bool:
    """Check whether a message may be a reply that settles something, without decoding it."""
    return SETTLED_FIELD in stored.body and (stored.sender, stored.receiver) in EDGES


def settlements_in(stored: StoredMessage) -> Sequence[ReceivedMessage]:
    """The settlements that a doer's message tells, each as a message of its own. Raises Unreadable for what only a
    newer budget can read; what nobody can is passed over: its reservations count in full."""
    if stored.receiver != BUDGET and SETTLED_FIELD not in stored.body:
        return ()
    try:
        return tuple(packed_facts.unpack_settlements(inbound.read_message(stored, stored.receiver)))
    except Unreadable as error:
        if error.later:
            raise
        log.error("reply_unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
        return ()


async def read_settlements(
    bus: Bus, edge: ReplyEdge, after: int, until: int = MAX_SEQUENCE
) -> tuple[list[ReceivedMessage], int, bool]:
    """The settlements of one page of an edge between two sequences; how far it reaches, and whether more may lie there.

    It ends before a reply that only a newer budget can read: a settlement that is read late costs room, one that is
    passed over money. Raises BusError.
    """
    settlements: list[ReceivedMessage] = []
    page = await bus.read(edge.stream, edge.subject, after=after, limit=PAGE)
    for stored in page:
        if stored.sequence > until:
            return settlements, after, False
        try:
            settlements += settlements_in(stored)
        except Unreadable as error:
            log.warning("replies_not_read_on", edge=edge.name, sequence=stored.sequence, reason=error.reason)
            return settlements, after, False
        after = stored.sequence
    return settlements, after, len(page) == PAGE


async def reply_ends(bus: Bus) -> dict[str, int]:
    """The sequence of the last reply of every edge, as far as whoever answers has it. Raises BusError."""
    newest = {edge.name: await bus.last(edge.stream, edge.subject) for edge in EDGES}
    return {name: stored.sequence if stored is not None else 0 for name, stored in newest.items()}


async def settlements_of_task(
    bus: Bus, tenant: str, task: str, doers: Sequence[str] = catalog.DOERS
) -> AsyncIterator[ReceivedMessage]:
    """Everything that doers settled in a task, by messages of their own and in replies; what cannot be read is passed
    over. Raises BusError."""
    places = [(subjects.inbox_stream(BUDGET), subjects.mesh_subject(doer, BUDGET, tenant, task)) for doer in doers]
    places += [(edge.stream, edge.of_task(tenant, task)) for edge in EDGES if edge.doer in doers]
    for stream, subject in places:
        async for stored in stored_messages(bus, stream, subject):
            try:
                settlements = settlements_in(stored)
            except Unreadable:
                continue
            for settlement in settlements:
                yield settlement
