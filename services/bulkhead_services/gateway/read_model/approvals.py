"""The approvals and the uncertain writes of a tenant: an index of what the tool executor told the gateway.

In: a tenant. Out: rows. Bounded per tenant: the oldest that have ended go first. A replica that restarts reads again.
"""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.gateway_api.approvals import State
from bulkhead.gateway_api.writes import WriteState
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.tool import WriteDoubted, WriteResolved
from bulkhead_services.gateway.read_model.feeds import INBOX, READ_BATCH

MAX_TENANTS = 1_000
MAX_APPROVALS = 10_000


@dataclass(slots=True)
class ApprovalRow:
    """One approval. sequence: of its request in the inbox. task_ended: nothing waits for it any more."""

    task: str
    request: ApprovalRequested
    sequence: int
    ended: ApprovalEnded | None = None
    task_ended: bool = False

    def state_at(self, now_unix_ms: int) -> State:
        """The state at that time; one whose time is over has expired, also before the executor said so."""
        if self.ended is not None:
            return self.ended.outcome
        if self.task_ended:
            return "abandoned"
        return "expired" if now_unix_ms >= self.request.expires_unix_ms else "waiting"


@dataclass(slots=True)
class WriteRow:
    """One uncertain write. sequence: of the word in the inbox that it is one. ended: what a person said of it."""

    task: str
    doubt: WriteDoubted
    sequence: int
    ended: WriteResolved | None = None

    @property
    def state(self) -> WriteState:
        """State: what is known of it."""
        if self.ended is None:
            return "uncertain"
        return "happened" if self.ended.resolution.happened else "not_happened"


Row = TypeVar("Row", ApprovalRow, WriteRow)


class _TenantRows:
    def __init__(self) -> None:
        self.after = 0
        self.approvals: dict[str, ApprovalRow] = {}
        self.writes: dict[str, WriteRow] = {}
        self.lock = asyncio.Lock()


class ApprovalIndex:
    """The tenants' approvals and uncertain writes, as this replica has read them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tenants = BoundedDict[str, _TenantRows](MAX_TENANTS)

    async def list_rows(self, tenant: str) -> list[ApprovalRow]:
        """The newest first. Raises BusError."""
        return sorted((await self._read_on(tenant)).approvals.values(), key=lambda row: -row.sequence)

    async def find_row(self, tenant: str, approval_id: str) -> ApprovalRow | None:
        """One of them. Raises BusError."""
        return (await self._read_on(tenant)).approvals.get(approval_id)

    async def list_writes(self, tenant: str) -> list[WriteRow]:
        """Uncertain writes, the newest first. Raises BusError."""
        return sorted((await self._read_on(tenant)).writes.values(), key=lambda row: -row.sequence)

    async def find_write(self, tenant: str, write_id: str) -> WriteRow | None:
        """One of them. Raises BusError."""
        return (await self._read_on(tenant)).writes.get(write_id)

    async def _read_on(self, tenant: str) -> _TenantRows:
        index = self._tenants.get_refreshed(tenant)
        if index is None:
            index = self._tenants[tenant] = _TenantRows()
        subject = f"mesh.tool_executor.gateway.*.{subjects.check_token(tenant)}.*.*"
        async with index.lock:
            while batch := await self._bus.read(INBOX, subject, after=index.after, limit=READ_BATCH):
                for stored in batch:
                    _apply_stored(index, stored)
                index.after = batch[-1].sequence
                if len(batch) < READ_BATCH:
                    break
            _forget_oldest(index.approvals)
            _forget_oldest(index.writes)
        return index


def _apply_stored(index: _TenantRows, stored: StoredMessage) -> None:
    try:
        body = catalog.decode_body(stored.ce_type, stored.body)
    except catalog.DecodeError:
        return  # A newer executor's word; a newer gateway reads it.
    match body:
        case ApprovalRequested(approval_id=approval_id):
            index.approvals.setdefault(approval_id, ApprovalRow(stored.task, body, stored.sequence))
        case ApprovalEnded(approval_id=approval_id):
            if (approval := index.approvals.get(approval_id)) is not None and approval.ended is None:
                approval.ended = body
        case WriteDoubted(write_id=write_id):
            # A write that was resolved, made again and is in doubt again waits for another word.
            if (doubted := index.writes.get(write_id)) is None or doubted.ended is not None:
                index.writes[write_id] = WriteRow(stored.task, body, stored.sequence)
        case WriteResolved(write_id=write_id):
            if (write := index.writes.get(write_id)) is not None and write.ended is None:
                write.ended = body
        case _:
            pass


def _forget_oldest(rows: dict[str, Row]) -> None:
    over = len(rows) - MAX_APPROVALS
    if over > 0:
        oldest = sorted(rows, key=lambda name: (rows[name].ended is None, rows[name].sequence))
        for name in oldest[:over]:
            del rows[name]
