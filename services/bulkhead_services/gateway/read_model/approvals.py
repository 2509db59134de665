"""The approvals of a tenant, the newest first: an index of what the tool executor told the gateway.

In: a tenant. Out: rows. Bounded per tenant: the oldest that have ended go first. A replica that restarts reads again.
"""

import asyncio
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.gateway_api.approvals import State
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
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


class _TenantApprovals:
    def __init__(self) -> None:
        self.after = 0
        self.rows: dict[str, ApprovalRow] = {}
        self.lock = asyncio.Lock()


class ApprovalIndex:
    """The tenants' approvals, as this replica has read them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tenants = BoundedDict[str, _TenantApprovals](MAX_TENANTS)

    async def list_rows(self, tenant: str) -> list[ApprovalRow]:
        """The newest first. Raises BusError."""
        return sorted((await self._read_on(tenant)).values(), key=lambda row: -row.sequence)

    async def find_row(self, tenant: str, approval_id: str) -> ApprovalRow | None:
        """One of them. Raises BusError."""
        return (await self._read_on(tenant)).get(approval_id)

    async def _read_on(self, tenant: str) -> dict[str, ApprovalRow]:
        index = self._tenants.get_refreshed(tenant)
        if index is None:
            index = self._tenants[tenant] = _TenantApprovals()
        subject = f"mesh.tool_executor.gateway.*.{subjects.check_token(tenant)}.*.*"
        async with index.lock:
            while batch := await self._bus.read(INBOX, subject, after=index.after, limit=READ_BATCH):
                for stored in batch:
                    _apply_stored(index.rows, stored)
                index.after = batch[-1].sequence
                if len(batch) < READ_BATCH:
                    break
            _forget_oldest(index.rows)
        return index.rows


def _apply_stored(rows: dict[str, ApprovalRow], stored: StoredMessage) -> None:
    try:
        body = catalog.decode_body(stored.ce_type, stored.body)
    except catalog.DecodeError:
        return  # A newer executor's word; a newer gateway reads it.
    if isinstance(body, ApprovalRequested):
        rows.setdefault(body.approval_id, ApprovalRow(stored.task, body, stored.sequence))
    elif isinstance(body, ApprovalEnded) and (row := rows.get(body.approval_id)) is not None and row.ended is None:
        row.ended = body


def _forget_oldest(rows: dict[str, ApprovalRow]) -> None:
    over = len(rows) - MAX_APPROVALS
    if over > 0:
        oldest = sorted(rows.values(), key=lambda row: (row.ended is None, row.sequence))
        for row in oldest[:over]:
            del rows[row.request.approval_id]
