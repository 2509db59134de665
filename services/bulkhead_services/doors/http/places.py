"""Places for calls that this replica answers at once: in all, per tenant, per person.

In: a claim. Out: a place, or a DoorRefusal (429, 503) that an SDK may repeat.
"""

from collections.abc import Callable

from bulkhead.callers.shares import Shares
from bulkhead.runtime.component import Pool
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.settings import Settings


class CallPlaces:
    """Calls under way. what: how they are told of."""

    def __init__(self, shares: Shares, what: str = "under way") -> None:
        self._shares, self._what = shares, what

    @classmethod
    def of_calls(cls, settings: Settings) -> "CallPlaces":
        """For calls of models, tools and agents."""
        return cls(Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person))

    @classmethod
    def of_polls(cls, settings: Settings) -> "CallPlaces":
        """For programs that wait for a step: they take no place of a call."""
        of_tenant = settings.max_step_polls_per_tenant
        return cls(Shares(settings.max_step_polls, of_tenant, of_tenant), "that wait for a step")

    def call_pool(self) -> Pool:
        """Calls under way, of those that this replica may have."""
        return Pool(self._shares.capacity, self._shares.held)

    def take_place(self, claim: RequesterClaim) -> Callable[[], None]:
        """Take a place; the returned function gives it back, once. Raises DoorRefusal."""
        if (full := self._shares.first_full_share(claim.tenant, claim.person)) is not None:
            raise refusals.too_many_calls(full, self._what, "wait for the answer of one of them")
        self._shares.hold_amount(claim.tenant, claim.person)
        unreleased = [(claim.tenant, claim.person)]

        def release() -> None:
            if unreleased:
                self._shares.release_amount(*unreleased.pop())

        return release
