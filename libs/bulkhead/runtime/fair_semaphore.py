"""A semaphore for slow calls that is fair between tenants: a tenant with slow calls delays itself before
others.

In: a tenant that wants a slot. Out: a slot, given back by `release_slot`. A running call is never
interrupted: some slots may be kept from each tenant, so that another tenant's call begins at once. A free
slot goes to the tenant that holds the fewest (max-min fairness), and among equals to the call that has
waited longest. Within a tenant, people whom the callers name take turns.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bulkhead.bounded_dict import BoundedDict

MAX_PEOPLE = 10_000
"""People whose last turn is remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A call that waits. since_ms: orders those of equal claim."""

    tenant: str
    person: str
    since_ms: int
    slot: asyncio.Future[None]


class FairSemaphore:
    """Slots of one replica. capacity: how many there are; kept: how many of them are out of reach for each tenant;
    tenant_capacity: how many one tenant may hold. closed: the replica drains, and no call waits any more."""

    def __init__(self, capacity: int, *, kept: int = 0) -> None:
        self.capacity, self.tenant_capacity, self.closed = capacity, capacity - kept, False
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []
        self._turns, self._last_turns = 0, BoundedDict[tuple[str, str], int](MAX_PEOPLE)

    @property
    def used(self) -> int:
        """Number of slots that are taken."""
        return self._held.total()

    @property
    def demand(self) -> int:
        """Number of slots that are taken or waited for."""
        return self.used + sum(not waiter.slot.done() for waiter in self._waiting)

    def count_waiting(self, tenant: str) -> int:
        """Number of a tenant's calls that wait for a slot."""
        return sum(waiter.tenant == tenant and not waiter.slot.done() for waiter in self._waiting)

    def is_at_tenant_capacity(self, tenant: str) -> bool:
        """Check whether this tenant's own calls keep its next one waiting."""
        return self._held[tenant] >= self.tenant_capacity

    @asynccontextmanager
    async def hold_slot(self, tenant: str, person: str = "") -> AsyncIterator[None]:
        """A context with a slot for this tenant; it waits without a limit, and must not be used after `close`."""
        await self.acquire_slot(tenant, None, person=person)
        try:
            yield
        finally:
            self.release_slot(tenant)

    async def acquire_slot(
        self, tenant: str, wait_s: float | None, cut: asyncio.Event | None = None, since_ms: int = 0, person: str = ""
    ) -> bool:
        """Wait for a slot; true if it came within wait_s, before `cut` was set and before `close`. since_ms: when
        the call began to wait, where that was earlier or elsewhere; given by all callers or by none.
        """
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(tenant, person, since_ms, slot))
        self._give_slots()
        if slot.done():
            return True
        cut_wait = asyncio.ensure_future(cut.wait()) if cut is not None else None
        waits_for: set[asyncio.Future[Any]] = {slot} if cut_wait is None else {slot, cut_wait}
        try:
            if not self.closed:
                await asyncio.wait(waits_for, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self.release_slot(tenant)  # The slot was given in the moment in which the caller gave up.
            raise
        finally:
            for future in waits_for:
                future.cancel()
        return not slot.cancelled()

    def release_slot(self, tenant: str) -> None:
        """Give a slot back."""
        self._held[tenant] -= 1
        self._held += Counter()  # Drops tenants without a slot.
        self._give_slots()

    def close(self) -> None:
        """End all waiting: a call that began now could not finish."""
        self.closed = True
        for waiter in self._waiting:
            waiter.slot.cancel()

    def _give_slots(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter.slot.done()]
        while self.used < self.capacity and (
            eligible := [waiter for waiter in self._waiting if not self.is_at_tenant_capacity(waiter.tenant)]
        ):
            tenant = min(eligible, key=lambda waiter: (self._held[waiter.tenant], waiter.since_ms)).tenant
            colleagues = (waiter for waiter in eligible if waiter.tenant == tenant)
            chosen = min(colleagues, key=lambda waiter: (self._last_turn_of(waiter), waiter.since_ms))
            self._waiting.remove(chosen)
            self._held[tenant] += 1
            self._turns += 1
            if chosen.person:
                self._last_turns[tenant, chosen.person] = self._turns
            chosen.slot.set_result(None)

    def _last_turn_of(self, waiter: _Waiter) -> int:
        return self._last_turns.get((waiter.tenant, waiter.person), 0)
