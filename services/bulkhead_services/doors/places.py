"""Places for calls that this replica answers at once: in all, per tenant, per person.

In: a claim. Out: a place, or a DoorRefusal (429, 503) that an SDK may repeat.
"""

from contextlib import ExitStack

from bulkhead.callers.shares import Shares
from bulkhead.runtime.component import Pool
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors import refusals
from bulkhead_services.doors.settings import Settings


class CallPlaces:
    """Places of one kind of call. kind, hint: for a caller who has too many."""

    def __init__(self, shares: Shares, kind: str, hint: str) -> None:
        self._shares, self._kind, self._hint = shares, kind, hint

    @classmethod
    def of_calls(
        cls, settings: Settings, kind: str = "under way", hint: str = "wait for the answer of one of them"
    ) -> "CallPlaces":
        """For calls of models, tools and agents."""
        shares = Shares(settings.max_calls, settings.max_calls_per_tenant, settings.max_calls_per_person)
        return cls(shares, kind, hint)

    @classmethod
    def of_polls(cls, settings: Settings) -> "CallPlaces":
        """For programs that wait for a step: they take no place of a call."""
        of_tenant = settings.max_step_polls_per_tenant
        shares = Shares(settings.max_step_polls, of_tenant, of_tenant)
        return cls(shares, "that wait for a step", "wait for the answer of one of them")

    def call_pool(self) -> Pool:
        """Calls under way, of those that this replica may have."""
        return Pool(self._shares.capacity, self._shares.held)

    def check_place(self, claim: RequesterClaim) -> None:
        """Judge whether a place is free. Raises DoorRefusal."""
        if (full := self._shares.first_full_share(claim.tenant, claim.person)) is not None:
            raise refusals.too_many_calls(full, self._kind, self._hint)

    def take_place(self, claim: RequesterClaim) -> ExitStack:
        """Take a free place; the end of the returned context gives it back. Raises DoorRefusal."""
        self.check_place(claim)
        return self.hold_place(claim)

    def hold_place(self, claim: RequesterClaim) -> ExitStack:
        """Take a place, free or not; the end of the returned context gives it back."""
        self._shares.hold_amount(claim.tenant, claim.person)
        place = ExitStack()
        place.callback(self._shares.release_amount, claim.tenant, claim.person)
        return place
