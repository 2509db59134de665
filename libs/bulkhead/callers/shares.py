"""Shares of one replica that callers hold at once (calls, streams, bytes): in all, per tenant, per person.

In: whose, and how much. Out: the first share that has no room for it. Counts live in the process.
"""

from collections import Counter
from typing import Literal, NamedTuple


class Share(NamedTuple):
    """A share that is full. holder: whose it is. capacity: what it may hold."""

    holder: Literal["person", "tenant", "all"]
    capacity: int


class Shares:
    """Counts by caller. of_*: the most that each tenant and each person may hold."""

    def __init__(self, capacity: int, of_tenant: int, of_person: int) -> None:
        self._capacity, self._of_tenant, self._of_person = capacity, of_tenant, of_person
        self._held: Counter[tuple[str, ...]] = Counter()

    @property
    def capacity(self) -> int:
        """Amount that all together may hold."""
        return self._capacity

    @property
    def held(self) -> int:
        """Amount that all together hold."""
        return self._held[()]

    def first_full_share(self, tenant: str, person: str, more: int = 1) -> Share | None:
        """The first share without room for so much more: the person's own first, so that a caller who takes too much
        hears of it before others are refused."""
        shares = Share("person", self._of_person), Share("tenant", self._of_tenant), Share("all", self._capacity)
        keyed = zip(_share_keys(tenant, person), shares, strict=True)
        return next((share for key, share in keyed if self._held[key] + more > share.capacity), None)

    def hold_amount(self, tenant: str, person: str, amount: int = 1) -> None:
        """Hold so much more, whether it fits or not."""
        for key in _share_keys(tenant, person):
            self._held[key] += amount

    def release_amount(self, tenant: str, person: str, amount: int = 1) -> None:
        """Give it back."""
        for key in _share_keys(tenant, person):
            self._held[key] -= amount
            if not self._held[key]:
                del self._held[key]


def _share_keys(tenant: str, person: str) -> tuple[tuple[str, ...], ...]:
    return (tenant, person), (tenant,), ()
