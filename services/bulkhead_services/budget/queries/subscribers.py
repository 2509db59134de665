"""Progress of a tenant's outside subscribers, for people who ask.

In: SubscribersRequested (rpc, from the gateway, which established who asks and whose the names are). Out:
SubscribersReplied: the broker's own counts, which are asked for at this moment, and no event.
"""

from collections.abc import Callable

from bulkhead.bus.port import Bus, BusError, DurableCounts
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import SubscriberLoad, SubscribersReplied, SubscribersRequested
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import check_reader

DAY_MS = 24 * 3600 * 1000


class SubscriberQuery:
    """Answers from the broker's counts of durables."""

    def __init__(self, bus: Bus, clock: Callable[[], int]) -> None:
        self._bus, self._clock = bus, clock

    async def answer_subscribers(self, message: ReceivedMessage) -> SubscribersReplied:
        """Counts at this moment."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, SubscribersRequested)
        if (failure := check_reader(body.requester, tenant, f"see the subscribers of {tenant}")) is not None:
            return SubscribersReplied(failure=failure)
        rows = []
        try:
            for name in body.names:
                counts = None
                if name.startswith(subjects.SUBSCRIBER):
                    counts = await self._bus.durable_counts(subjects.EVENTS_STREAM, name)
                rows.append(subscriber_load(name, counts, self._clock()))
        except BusError as error:
            reason = f"the broker does not tell what waits for subscribers: {error}"
            return SubscribersReplied(failure=Failure.from_text("unavailable", reason, "ask again in a moment"))
        return SubscribersReplied(subscribers=tuple(rows))


def subscriber_load(name: str, counts: DurableCounts | None, now_unix_ms: int) -> SubscriberLoad:
    """One row, from its durable's counts; None where there is no such durable. Pure."""
    if counts is None:
        return SubscriberLoad(name=name)
    active = now_unix_ms - counts.quiet_ms
    # A durable that never had an event is quiet since the beginning of time, by a clock that is not this one.
    return SubscriberLoad(
        name=name,
        pending=counts.pending,
        in_work=counts.in_work,
        asking=counts.asking,
        active_unix_ms=active if active > DAY_MS else 0,
    )
