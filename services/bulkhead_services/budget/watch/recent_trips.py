"""The last findings of each tenant, for people who ask: the facts that the watch has read. Pure.

In: `Tripped` facts. Out: those of a tenant, the newest first. A watch that starts remembers what it reads again.
"""

from collections import deque

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import TaskTrip, Tripped

MAX_TENANTS = 1_000


class RecentTrips:
    """A bounded number of each of the last tenants."""

    def __init__(self) -> None:
        self._found = BoundedDict[str, deque[TaskTrip]](MAX_TENANTS)

    def fold_tripped(self, stored: StoredMessage) -> None:
        """One fact; what cannot be read tells nothing, and a repeated one nothing new."""
        tenant, task = stored.subject.rsplit(".", 2)[1:]
        try:
            task_trip = TaskTrip(task=task, trip=Tripped.model_validate_json(stored.body))
        except ValueError:
            return
        trips = self._found.setdefault(tenant, deque(maxlen=bounds.MAX_TRIPS_LISTED))
        if all(earlier.trip.trip != task_trip.trip.trip for earlier in trips):
            trips.append(task_trip)

    def trips_of(self, tenant: str) -> tuple[TaskTrip, ...]:
        """The newest first."""
        return tuple(sorted(self._found.get(tenant, ()), key=lambda one: -one.trip.tripped_unix_ms))
