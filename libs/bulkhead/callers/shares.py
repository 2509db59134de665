"""What callers hold of one replica at once (calls, streams, bytes): in all, per tenant, per person.

In: whose, and how much. Out: the first share that has no room for it. Counts live in the process.
"""

from collections import Counter
from typing import Literal, NamedTuple


class Share(NamedTuple):
    """A share that is full. of: whose it is. most: what it may hold."""

    of: Literal["person", "tenant", "all"]
    most: int


class Shares:
    """Counts by caller. of_*: the most that each tenant and each person may hold."""

    def __init__(self, most: int, of_tenant: int, of_person: int) -> None:
        self._most, self._of_tenant, self._of_person = most, of_tenant, of_person
        self._held: Counter[tuple[str, ...]] = Counter()

    @property
    def most(self) -> int:
        """What all together may hold."""
        return self._most

    @property
    def held(self) -> int:
        """What all together hold."""
        return self._held[()]

    def full(self, tenant: str, person: str, more: int = 1) -> Share | None:
        """The first share without room for so much more: the person's own first, so that a caller who takes too much
        hears of it before others are refused."""
        shares = Share("person", self._of_person), Share("tenant", self._of_tenant), Share("all", self._most)
        keyed = zip(_keys(tenant, person), shares, strict=True)
        return next((share for key, share in keyed if self._held[key] + more > share.most), None)

    def take(self, tenant: str, person: str, amount: int = 1) -> None:
        """So much is held now, whether it fits or not."""
        for key in _keys(tenant, person):
            self._held[key] += amount

    def give(self, tenant: str, person: str, amount: int = 1) -> None:
        """Give it back."""
        for key in _keys(tenant, person):
            self._held[key] -= amount
            if not self._held[key]:
                del self._held[key]


def _keys(tenant: str, person: str) -> tuple[tuple[str, ...], ...]:
    return (tenant, person), (tenant,), ()
