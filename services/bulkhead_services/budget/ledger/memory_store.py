"""The ledger in this process's memory, for a mesh in one process (BULKHEAD_REDIS_URL=memory://) and for simulations.

In and out: as port.Store. It is rebuilt from the journal at every start; one replica only.
"""

from collections.abc import Awaitable, Callable, Sequence

from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.model import Answer, Balance, Entry, Ledger, Scope, Settlement, Stale, Sum
from bulkhead_services.budget.ledger.store import LOOK_MS, Fenced, Revision

SERVER = "memory"
Looks = dict[str, tuple[int, int]]
"""By tenant: the revision of its limits, and when somebody last looked (unix ms)."""


def stale(looks: Looks, revision: Revision | None, now_unix_ms: int) -> Stale | None:
    """Why scopes that were made of this revision may not be used now."""
    if revision is None:
        return None
    known, looked = looks.get(revision.tenant, (0, -LOOK_MS))
    return Stale(known) if known != revision.number or abs(now_unix_ms - looked) > LOOK_MS else None


def look(looks: Looks, revision: Revision, now_unix_ms: int) -> bool:
    """Take down that these limits were read; False when later ones are known."""
    if looks.get(revision.tenant, (-1, 0))[0] > revision.number:
        return False
    looks[revision.tenant] = (revision.number, now_unix_ms)
    return True


class MemoryStore:
    """See port.Store."""

    def __init__(self, *, lease_ms: int) -> None:
        self._ledger = Ledger(lease_ms)
        self._written: dict[str, Ledger] = {}
        self._stands = ""
        self._kept: dict[str, bytes] = {}
        self._looks: Looks = {}
        self._lock = ""
        self.epoch = ""

    def adopt(self, epoch: str) -> None:
        """See port.Store."""
        self.epoch = epoch

    def on_change(self, call: Callable[[], None]) -> None:
        """See port.Store. There is no other server."""

    async def reserve(
        self, key: str, ask: Sum, scopes: Sequence[Scope], now_unix_ms: int, revision: Revision | None = None
    ) -> Answer:
        """See core.reserve, port.Store.reserve."""
        ledger = self._standing()
        old = stale(self._looks, revision, now_unix_ms)
        return old if old is not None else model.reserve(ledger, key, ask, tuple(scopes), now_unix_ms)

    async def holds(self, key: str) -> bool:
        """See port.Store."""
        return model.holds(self._standing(), key)

    async def stop(self, scope: str) -> Balance:
        """See core.stop."""
        return model.stop(self._standing(), scope)

    async def balance(self, scope: str) -> Balance:
        """See port.Store."""
        return self._standing().balances.get(scope, Balance())

    async def look(self, revision: Revision, now_unix_ms: int) -> bool:
        """See port.Store."""
        self._standing()
        return look(self._looks, revision, now_unix_ms)

    async def release(self, key: str) -> None:
        """See core.release."""
        model.release(self._standing(), key)

    async def settle(self, key: str, usage: Sum, estimated: bool) -> Settlement:
        """See core.settle."""
        return model.settle(self._standing(), key, usage, estimated)

    async def restore(self, key: str, ask: Sum, scopes: Sequence[Scope], at_unix_ms: int) -> Settlement:
        """See core.restore."""
        return model.restore(self._standing(), key, ask, tuple(scopes), at_unix_ms)

    def _standing(self) -> Ledger:
        if not self.epoch or self.epoch != self._stands:
            raise Fenced("no ledger has been built, or it was built anew")
        return self._ledger

    async def connect(self) -> str:
        """See port.Store."""
        self.epoch = ""
        return SERVER

    async def current(self, server: str) -> str:
        """See port.Store."""
        return self._stands

    async def lock(self, token: str, lock_ms: int) -> bool:
        """See port.Store."""
        self._lock, self._stands = token, ""
        return True

    async def keep_lock(self, token: str, lock_ms: int) -> bool:
        """See port.Store."""
        return self._lock == token

    async def unlock(self, token: str) -> None:
        """See port.Store."""
        if self._lock == token:
            self._lock = ""

    async def write(
        self, token: str, ledger: Ledger, since_unix_ms: int, on_batch: Callable[[], Awaitable[None]]
    ) -> None:
        """See port.Store."""
        self._written = {token: ledger}
        await on_batch()

    async def switch(self, token: str, server: str) -> bool:
        """See port.Store."""
        if self._lock != token:
            return False
        self._ledger, self._lock = self._written.pop(token), ""
        self._stands = self.epoch = f"{token} {server}"
        return True

    async def bury(self) -> None:
        """Nothing is left over."""

    async def lead(self, role: str, holder: str, lease_ms: int) -> bool:
        """See port.Store. One replica only: it leads."""
        return True

    async def resign(self, role: str, holder: str) -> None:
        """See port.Store. There is no other."""

    async def keep(self, name: str, value: bytes) -> None:
        """See port.Store."""
        self._kept[name] = value

    async def kept(self, name: str) -> bytes:
        """See port.Store."""
        return self._kept.get(name, b"")

    async def dump(self) -> tuple[dict[str, Entry], dict[str, Balance]]:
        """See port.Store."""
        return dict(self._standing().entries), dict(self._standing().balances)

    async def close(self) -> None:
        """Nothing is open."""
