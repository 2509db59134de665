"""Places for calls that this replica answers at once: in all, per tenant, per person.

In: a claim. Out: a place, or a Refusal (429, 503) that an SDK may repeat.
"""

from collections.abc import Callable

from bulkhead.callers.shares import Shares
from bulkhead.runtime.component import Pool
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.settings import Settings


class Places:
    """Calls under way."""

    def __init__(self, settings: Settings) -> None:
        self._shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)

    def pool(self) -> Pool:
        """Calls under way, of those that this replica may have."""
        return Pool(self._shares.most, self._shares.held)

    def take(self, claim: RequesterClaim) -> Callable[[], None]:
        """Take a place; the returned function gives it back, once. Raises Refusal."""
        if (full := self._shares.full(claim.tenant, claim.person)) is not None:
            raise refusals.too_many_calls(full, "under way", "wait for the answer of one of them")
        self._shares.take(claim.tenant, claim.person)
        taken = [(claim.tenant, claim.person)]

        def release() -> None:
            if taken:
                self._shares.give(*taken.pop())

        return release
