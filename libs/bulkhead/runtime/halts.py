"""Halts and kill switches as a doer sees them: read at start, then live; re-read now and then, since live is lossy.

In: entries of KV_CONTROL. Out: the halt that applies to a job, and an event that cuts its streams.
"""

import asyncio
from collections import OrderedDict

from pydantic import ValidationError

from bulkhead.bus.port import Bus, BusError
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Halt

log = Log("halts")

REREAD_S = 2.0
MAX_HALTS = 100_000


class Halts:
    """The live view of all halts."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._found: dict[tuple[str, str, str], Halt] = {}
        """Switches of tenants, tools and models: few, set by people, never forgotten."""
        self._tasks: OrderedDict[tuple[str, str, str], Halt] = OrderedDict()
        self._events: dict[tuple[str, str], asyncio.Event] = {}
        self._after = 0

    async def run(self) -> None:
        """Follow the control entries until cancelled."""
        await asyncio.gather(self._follow(), self._reread())

    async def load(self) -> None:
        """Read what stands now. Raises BusError."""
        while page := await self._bus.read(subjects.CONTROL_STREAM, "$KV.CONTROL.>", after=self._after):
            for stored in page:
                self._take(stored.body)
            self._after = page[-1].sequence

    def find(self, tenant: str, task: str, resource: str = "") -> Halt | None:
        """The halt of the task, its tenant, or the tool or model it wants to use."""
        for key in (("task", tenant, task), ("tenant", "", tenant), ("tool", "", resource), ("model", "", resource)):
            halt = self._tasks.get(key) or self._found.get(key)
            if halt is not None and halt.active:
                return halt
        return None

    def event(self, tenant: str, task: str) -> asyncio.Event:
        """Set when the task or its tenant is halted."""
        event = self._events.setdefault((tenant, task), asyncio.Event())
        if self.find(tenant, task):
            event.set()
        if len(self._events) > MAX_HALTS:
            self._events = {key: one for key, one in self._events.items() if not one.is_set()}
        return event

    def _take(self, body: bytes) -> None:
        try:
            halt = Halt.model_validate_json(body)
        except ValidationError:
            return
        found = (halt.scope, halt.tenant, halt.name)
        if halt.scope == "task":
            self._tasks[found] = halt
            self._tasks.move_to_end(found)
            while len(self._tasks) > MAX_HALTS:
                self._tasks.popitem(last=False)
        else:
            self._found[found] = halt
        for (tenant, task), event in self._events.items():
            if found in (("task", tenant, task), ("tenant", "", tenant)):
                event.set() if self.find(tenant, task) else event.clear()

    async def _follow(self) -> None:
        subscription = await self._bus.subscribe_live("control.live.>")
        async for entry in subscription:
            self._take(entry.body)

    async def _reread(self) -> None:
        while True:
            try:
                await self.load()
            except BusError as error:
                log.warning("halts_unread", reason=str(error))
            await asyncio.sleep(REREAD_S)
