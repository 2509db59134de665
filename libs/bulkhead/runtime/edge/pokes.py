"""Notices between an edge's replicas: a task has something new, so that every replica that has waiters sees it at once.

The inbox's durable gives each message to one replica. That one says `live.<service>.<tenant>.<task>` (core NATS, not
stored, with the sequence); the others read the task again. A poke is only a hint, sent at most once per task and tick.
"""

import asyncio
import contextlib
from collections.abc import Callable

from bulkhead.bus.port import Bus, BusError, LiveMessage, LiveSubscription
from bulkhead_contracts import subjects

TICK_S = 0.002
MAX_PENDING = 10_000
_INSTANCE = "bulkhead-instance"


class Pokes:
    """Sends and receives pokes. handled: called with tenant, task and sequence of each message that any replica has
    handled. other: with whatever else is said about a task there."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        instance: str,
        handled: Callable[[str, str, int], None],
        other: Callable[[LiveMessage], None] = lambda live: None,
    ) -> None:
        self._bus, self._service, self._instance = bus, service, instance
        self._handled, self._other = handled, other
        self._pending: dict[tuple[str, str], int] = {}
        self._work = asyncio.Event()
        self._subscription: LiveSubscription | None = None

    async def subscribe(self) -> LiveSubscription:
        """Listen to the other replicas."""
        self._subscription = await self._bus.subscribe_live(f"live.{self._service}.>", MAX_PENDING)
        return self._subscription

    def announce_message(self, tenant: str, task: str, sequence: int) -> None:
        """This replica handled a message: its own watchers now, the others' within a tick."""
        self._handled(tenant, task, sequence)
        if len(self._pending) < MAX_PENDING:
            self._pending[tenant, task] = max(sequence, self._pending.get((tenant, task), 0))
            self._work.set()

    async def run(self) -> None:
        """Send and receive, until cancelled."""
        assert self._subscription is not None
        hearing = asyncio.create_task(self._receive_pokes(self._subscription))
        try:
            while True:
                await self._work.wait()
                await asyncio.sleep(TICK_S)
                self._work.clear()
                pending, self._pending = self._pending, {}
                for (tenant, task), sequence in pending.items():
                    # A lost poke costs a moment: watched tasks are read again at an interval anyway.
                    with contextlib.suppress(BusError):
                        await self._bus.publish_live(
                            subjects.live_subject(self._service, tenant, task),
                            str(sequence).encode(),
                            {_INSTANCE: self._instance},
                        )
        finally:
            hearing.cancel()

    async def _receive_pokes(self, subscription: LiveSubscription) -> None:
        async for poke in subscription:
            if poke.headers.get(_INSTANCE) == self._instance:
                continue  # What was handled here is known here.
            parts = poke.subject.split(".")
            if len(parts) == 4 and not poke.body.isdigit():
                self._other(poke)
            elif len(parts) == 4 and len(poke.body) < 20:
                self._handled(parts[2], parts[3], int(poke.body))
