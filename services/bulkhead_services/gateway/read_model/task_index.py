"""The tasks of a tenant, the newest first: an index of the `TaskRequested` in the inbox, read on as it grows.

In: a tenant. Out: (sequence, task) pairs. Bounded per tenant; older tasks are still there by their id. A purge takes
the oldest first: what lies before the first message that is left is forgotten here; what it took from among the others
is left to the caller, who reads each task anyway.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.session import SessionOpened
from bulkhead_contracts.task import TaskRequested
from bulkhead_services.gateway.read_model.feeds import INBOX, READ_BATCH

MAX_TENANTS = 1_000


@dataclass(frozen=True, slots=True)
class TaskIndexPage:
    """(sequence, task), the newest first. more: whether there are others below. total: of all pages, at this moment."""

    rows: list[tuple[int, str]]
    more: bool
    total: int


class _TenantTasks:
    def __init__(self) -> None:
        self.after: dict[str, int] = {}
        self.first: dict[str, tuple[int, str]] = {}
        """Sequence and sender of each task's request."""
        self.sessions: dict[str, tuple[int, frozenset[str]]] = {}
        """Sequence of each session's opening, and who may take part."""
        self.newest: list[tuple[int, str]] | None = None
        """The tasks in order; None after a change."""
        self.lock = asyncio.Lock()


class TaskIndex:
    """The tenants' indexes of this replica; a restart reads them again."""

    def __init__(self, bus: Bus, bound: int) -> None:
        self._bus, self._bound = bus, bound
        self._tenants = BoundedDict[str, _TenantTasks](MAX_TENANTS)

    async def list_page(
        self, tenant: str, publishers: Iterable[str], before: int, size: int, opened_by: str = ""
    ) -> TaskIndexPage:
        """Up to `size` tasks below the sequence `before` (0: from the newest).

        publishers: the outside senders that act for this tenant. opened_by: the sender of all that is found; "" for
        any. Raises BusError.
        """
        index = self._tenants.get_refreshed(tenant)
        if index is None:
            index = self._tenants[tenant] = _TenantTasks()
        async with index.lock:
            senders = ("gateway", subjects.DOORS, *publishers)
            await asyncio.gather(*(self._catch_up(index, sender, tenant) for sender in senders))
            if index.newest is None:
                index.newest = self._order_tasks(index)
            listed = index.newest
            if opened_by:
                listed = [row for row in listed if index.first[row[1]][1] == opened_by]
        start = bisect_right(listed, -before, key=lambda row: -row[0]) if before else 0
        return TaskIndexPage(listed[start : start + size], len(listed) > start + size, len(listed))

    async def list_sessions(self, tenant: str, person: str) -> list[str]:
        """Ids of the sessions in which a person takes part, the newest first; deleted ones too. Raises BusError."""
        await self.list_page(tenant, (), 0, 0)
        sessions = self._tenants[tenant].sessions
        mine = sorted(((row[0], session) for session, row in sessions.items() if person in row[1]), reverse=True)
        return [session for _, session in mine]

    def _order_tasks(self, index: _TenantTasks) -> list[tuple[int, str]]:
        newest = sorted(((sequence, task) for task, (sequence, _) in index.first.items()), reverse=True)
        for _, task in newest[self._bound :]:
            del index.first[task]
        return newest[: self._bound]

    async def _catch_up(self, index: _TenantTasks, sender: str, tenant: str) -> None:
        await self._read_on(index, sender, tenant)
        await self._forget_purged(index, sender, tenant)

    async def _read_on(self, index: _TenantTasks, sender: str, tenant: str) -> None:
        subject = f"mesh.{sender}.gateway.*.{tenant}.*.*"
        while batch := await self._bus.read(INBOX, subject, after=index.after.get(sender, 0), limit=READ_BATCH):
            for stored in batch:
                if stored.ce_type.startswith(TaskRequested.TYPE + ".") and _is_readable(stored.subject):
                    task = stored.task
                    listed = index.first.get(task)
                    # The first request is the one. The broker takes a second of the gateway's when the first is gone.
                    if listed is None or stored.sequence < listed[0] or listed[1] == sender == "gateway":
                        index.first[task], index.newest = (stored.sequence, sender), None
                elif sender == "gateway" and stored.ce_type.startswith(SessionOpened.TYPE + "."):
                    self._add_session(index, stored)
            index.after[sender] = batch[-1].sequence
            if len(batch) < READ_BATCH:
                return

    def _add_session(self, index: _TenantTasks, stored: StoredMessage) -> None:
        opened = SessionOpened.model_validate_json(stored.body)
        people = frozenset({opened.requester.person, *opened.participants})
        index.sessions.setdefault(stored.task, (stored.sequence, people))
        if len(index.sessions) > self._bound:
            del index.sessions[min(index.sessions, key=lambda session: index.sessions[session][0])]

    async def _forget_purged(self, index: _TenantTasks, sender: str, tenant: str) -> None:
        for earliest in await self._bus.read(INBOX, f"mesh.{sender}.gateway.*.{tenant}.*.*", limit=1):
            purged = [
                task for task, listed in index.first.items() if listed[0] < earliest.sequence and listed[1] == sender
            ]
            for task in purged:
                del index.first[task]
                index.newest = None


def _is_readable(subject: str) -> bool:
    """Publishers choose the last tokens; what is no task id of ours is not listed."""
    try:
        subjects.parse(subject)
    except subjects.SubjectError:
        return False
    return True
