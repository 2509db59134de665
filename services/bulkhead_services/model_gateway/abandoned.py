"""Calls of outside agents that nobody follows any more: doors says so live, and the replica that makes one cuts it.

In: `live.doors.<tenant>.<task>.abandoned`. Out: an event for each call in flight here. A notice that is lost costs what
the call still uses: it goes on to its end, as it would without.
"""

import asyncio
from weakref import WeakValueDictionary

from pydantic import ValidationError

from bulkhead.bus.port import Bus, LiveMessage, LiveSubscription
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.doer.protocol import Job
from bulkhead_contracts import subjects
from bulkhead_contracts.model import CallAbandoned, ModelCallRequested
from bulkhead_services.model_gateway.providers.port import ProviderFault

ABANDONED = ProviderFault(
    "abandoned",
    "nobody followed the call any more, and it was cut",
    "send the request again to have it made anew",
    consumed=False,
    refused=True,
)
MAX_PENDING_NOTICES = 10_000
CallKey = tuple[str, str, str]
"""Tenant, task, call."""


class AbandonedCalls:
    """Notices that this replica hears."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # Only as long as a call waits for one.
        self._events = WeakValueDictionary[CallKey, asyncio.Event]()
        self._subscription: LiveSubscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises BusError."""
        self._subscription = await self._bus.subscribe_live(f"live.{subjects.DOORS}.*.*.abandoned", MAX_PENDING_NOTICES)
        self._task = asyncio.create_task(self._hear_notices(self._subscription))

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await cancel_tasks(self._task)
        if self._subscription is not None:
            await self._subscription.close()

    def event_of(self, job: Job[ModelCallRequested]) -> asyncio.Event:
        """Set once nobody follows this call."""
        call_key = (job.tenant, job.task, job.request.call_id)
        event = self._events.get(call_key)
        if event is None:
            event = self._events[call_key] = asyncio.Event()
        return event

    async def _hear_notices(self, subscription: LiveSubscription) -> None:
        async for live in subscription:
            self.hear_notice(live)

    def hear_notice(self, message: LiveMessage) -> None:
        """One notice; of a run alone."""
        parts = message.subject.split(".")
        if not subjects.is_of_doors(parts[3]):
            return
        try:
            call_id = CallAbandoned.model_validate_json(message.body).call_id
        except ValidationError:
            return
        if (event := self._events.get((parts[2], parts[3], call_id))) is not None:
            event.set()
