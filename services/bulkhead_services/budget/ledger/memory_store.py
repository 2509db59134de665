"""The ledger in this process's memory, for a mesh in one process (BULKHEAD_REDIS_URL=memory://) and for
simulations.

In and out: as LedgerStore. It is rebuilt from the journal at every start; one replica only.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.model import (
    Balance,
    LedgerState,
    ReservationEntry,
    ReserveAnswer,
    Scope,
    SettlementResult,
    StaleLimits,
    UnitSums,
)
from bulkhead_services.budget.ledger.store import LIMITS_READ_MS, Fenced, LimitsRevision

SERVER = "memory"
LimitReads = dict[str, tuple[int, int]]
"""By tenant: the revision of its limits, and when somebody last looked (unix ms)."""


def stale_limits(limit_reads: LimitReads, revision: LimitsRevision | None, now_unix_ms: int) -> StaleLimits | None:
    """Why scopes that were made of this revision may not be used now."""
    if revision is None:
        return None
    known_revision, looked_unix_ms = limit_reads.get(revision.tenant, (0, -LIMITS_READ_MS))
    return (
        StaleLimits(known_revision)
        if known_revision != revision.number or abs(now_unix_ms - looked_unix_ms) > LIMITS_READ_MS
        else None
    )


def record_read(limit_reads: LimitReads, revision: LimitsRevision, now_unix_ms: int) -> bool:
    """Take down that these limits were read; False when later ones are known."""
    if limit_reads.get(revision.tenant, (-1, 0))[0] > revision.number:
        return False
    limit_reads[revision.tenant] = (revision.number, now_unix_ms)
    return True


class MemoryStore:
    """See LedgerStore."""

    def __init__(self, *, lease_ms: int) -> None:
        self._ledger = LedgerState(lease_ms)
        self._written: dict[str, LedgerState] = {}
        self._standing_epoch = ""
        self._values: dict[str, bytes] = {}
        self._limit_reads: LimitReads = {}
        self._reply_positions: dict[str, int] = {}
        self._lock = ""
        self.epoch = ""

    def adopt_epoch(self, epoch: str) -> None:
        """See LedgerStore."""
        self.epoch = epoch

    def on_server_change(self, callback: Callable[[], None]) -> None:
        """See LedgerStore. There is no other server."""

    async def reserve(
        self,
        key: str,
        ask: UnitSums,
        scopes: Sequence[Scope],
        now_unix_ms: int,
        revision: LimitsRevision | None = None,
        margin: int = 0,
    ) -> ReserveAnswer:
        """See model.reserve, LedgerStore.reserve."""
        ledger = self._standing_ledger()
        old = stale_limits(self._limit_reads, revision, now_unix_ms)
        return old if old is not None else model.reserve(ledger, key, ask, tuple(scopes), now_unix_ms, margin)

    async def is_held_or_settled(self, key: str) -> bool:
        """See LedgerStore."""
        return model.is_held_or_settled(self._standing_ledger(), key)

    async def stop_scope(self, scope: str) -> Balance:
        """See model.stop_scope."""
        return model.stop_scope(self._standing_ledger(), scope)

    async def read_balance(self, scope: str) -> Balance:
        """See LedgerStore."""
        return self._standing_ledger().balances.get(scope, Balance())

    async def record_limits_read(self, revision: LimitsRevision, now_unix_ms: int) -> bool:
        """See LedgerStore."""
        self._standing_ledger()
        return record_read(self._limit_reads, revision, now_unix_ms)

    async def release(self, key: str) -> None:
        """See model.release."""
        model.release(self._standing_ledger(), key)

    async def settle(self, key: str, usage: UnitSums, estimated: bool) -> SettlementResult:
        """See model.settle."""
        return model.settle(self._standing_ledger(), key, usage, estimated)

    async def restore(self, key: str, ask: UnitSums, scopes: Sequence[Scope], at_unix_ms: int) -> SettlementResult:
        """See model.restore."""
        return model.restore(self._standing_ledger(), key, ask, tuple(scopes), at_unix_ms)

    async def reply_positions(self) -> Mapping[str, int]:
        """See LedgerStore."""
        return dict(self._reply_positions)

    async def move_reply_position(self, edge: str, sequence: int) -> None:
        """See LedgerStore."""
        self._standing_ledger()
        if sequence > self._reply_positions.get(edge, 0):
            self._reply_positions[edge] = sequence

    async def mark_replies_read(self, at_unix_ms: int) -> None:
        """See LedgerStore."""
        ledger = self._standing_ledger()
        ledger.read_unix_ms = max(ledger.read_unix_ms, at_unix_ms)

    def _standing_ledger(self) -> LedgerState:
        if not self.epoch or self.epoch != self._standing_epoch:
            raise Fenced("no ledger has been built, or it was built anew")
        return self._ledger

    async def connect(self) -> str:
        """See LedgerStore."""
        self.epoch = ""
        return SERVER

    async def current_epoch(self, server: str) -> str:
        """See LedgerStore."""
        return self._standing_epoch

    async def lock_rebuild(self, token: str, lock_ms: int) -> bool:
        """See LedgerStore."""
        self._lock, self._standing_epoch = token, ""
        return True

    async def keep_rebuild_lock(self, token: str, lock_ms: int) -> bool:
        """See LedgerStore."""
        return self._lock == token

    async def unlock_rebuild(self, token: str) -> None:
        """See LedgerStore."""
        if self._lock == token:
            self._lock = ""

    async def write_ledger(
        self, token: str, ledger: LedgerState, since_unix_ms: int, on_batch: Callable[[], Awaitable[None]]
    ) -> None:
        """See LedgerStore."""
        self._written = {token: ledger}
        await on_batch()

    async def activate_ledger(self, token: str, server: str, reply_positions: Mapping[str, int]) -> bool:
        """See LedgerStore."""
        if self._lock != token:
            return False
        self._reply_positions = dict(reply_positions)
        self._ledger, self._lock = self._written.pop(token), ""
        self._standing_epoch = self.epoch = f"{token} {server}"
        return True

    async def delete_dead_ledgers(self) -> None:
        """Delete none: none is left."""

    async def take_lead(self, role: str, holder: str, lease_ms: int) -> bool:
        """See LedgerStore. One replica only: it leads."""
        return True

    async def resign_lead(self, role: str, holder: str) -> None:
        """See LedgerStore. There is no other."""

    async def put_value(self, name: str, value: bytes) -> None:
        """See LedgerStore."""
        self._values[name] = value

    async def get_value(self, name: str) -> bytes:
        """See LedgerStore."""
        return self._values.get(name, b"")

    async def dump_ledger(self) -> tuple[dict[str, ReservationEntry], dict[str, Balance]]:
        """See LedgerStore."""
        return dict(self._standing_ledger().entries), dict(self._standing_ledger().balances)

    async def close(self) -> None:
        """Close none."""
