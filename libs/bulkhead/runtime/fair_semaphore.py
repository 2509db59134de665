"""Places for slow calls, fair by tenant: whose calls are slow holds up itself before it holds up others.

Enters: a tenant that wants a place. Leaves: a place, given back by `leave`. Nobody's running call is taken away: some
places may be kept from each tenant, so that who comes meanwhile begins at once. A place that is given back goes to who
holds the fewest (max-min fairness), among those to who has waited longest.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class Places:
    """Of this replica. most: how many there are; kept: how many of them no tenant may hold beside all the others;
    share: what it may hold. closed: the replica drains, and nobody waits any more."""

    def __init__(self, most: int, *, kept: int = 0) -> None:
        self.most, self.share, self.closed = most, most - kept, False
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []

    @property
    def used(self) -> int:
        """How many are taken."""
        return self._held.total()

    def waiting(self, tenant: str) -> int:
        """How many of a tenant wait for one."""
        return sum(one[0] == tenant and not one[2].done() for one in self._waiting)

    def spent(self, tenant: str) -> bool:
        """Whether this tenant's own calls keep its next one waiting."""
        return self._held[tenant] >= self.share

    @asynccontextmanager
    async def held(self, tenant: str) -> AsyncIterator[None]:
        """Within it one of them is this tenant's, however long that takes to come; they are not to be closed."""
        await self.enter(tenant, None)
        try:
            yield
        finally:
            self.leave(tenant)

    async def enter(
        self, tenant: str, wait_s: float | None, cut: asyncio.Event | None = None, since_ms: int = 0
    ) -> bool:
        """True with a place; False where none was had within wait_s, or before `cut` was set or these were closed.
        since_ms: when it began to wait, where that was elsewhere or earlier; told by all or by none."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, since_ms, place))
        self._give()
        if place.done():
            return True
        cutting = asyncio.ensure_future(cut.wait()) if cut is not None else None
        waits_for: set[asyncio.Future[Any]] = {place} if cutting is None else {place, cutting}
        try:
            if not self.closed:
                await asyncio.wait(waits_for, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave(tenant)  # It was given in the moment in which nobody wanted it any more.
            raise
        finally:
            for one in waits_for:
                one.cancel()
        return not place.cancelled()

    def leave(self, tenant: str) -> None:
        """Give one back."""
        self._held[tenant] -= 1
        self._held += Counter()  # Forgets who holds none.
        self._give()

    def close(self) -> None:
        """Let nobody wait any more: what is begun now could not be ended."""
        self.closed = True
        for *_, place in self._waiting:
            place.cancel()

    def _give(self) -> None:
        self._waiting = [one for one in self._waiting if not one[2].done()]
        while self.used < self.most and (able := [one for one in self._waiting if not self.spent(one[0])]):
            found = min(able, key=lambda one: (self._held[one[0]], one[1]))
            self._waiting.remove(found)
            self._held[found[0]] += 1
            found[2].set_result(None)
