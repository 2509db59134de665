"""Review dates of the prompts that tasks get: how many are past.

In: what `production` stands for, read now and then. Out: a gauge, of all tenants together.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.telemetry.log import Log
from bulkhead_contracts.prompt import PRODUCTION, PromptVersion

log = Log("registry")
READ_S = 600.0
MAX_VERSIONS = 20_000

ReadVersion = Callable[[str, str, int], Awaitable[PromptVersion | None]]
"""Tenant, prompt, number."""


class ReviewDates:
    """Review dates of all tenants. A version never changes, so each is read once."""

    def __init__(self, labels: ReleaseLabels, read_version: ReadVersion, clock: Callable[[], int]) -> None:
        self._labels, self._read_version, self._clock = labels, read_version, clock
        self._known = BoundedDict[tuple[str, str, int], str](MAX_VERSIONS)
        self._used: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def start(self, background: BackgroundTasks) -> None:
        """Begin to read."""
        self._task = background.start("review dates", self._read_often())

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            await cancel_tasks(self._task)

    def count_overdue(self) -> int:
        """Versions whose day is over, by UTC."""
        today = datetime.fromtimestamp(self._clock() / 1000, UTC).date().isoformat()
        return sum(day < today for day in self._used)

    async def read_dates(self) -> None:
        """Read the dates of the versions that tasks get now. Raises BusError."""
        await self._labels.read_new()
        used = []
        for (tenant, label), release in self._labels.list_standing():
            for row in release.prompts if label == PRODUCTION else ():
                key = tenant, row.prompt, row.number
                if key not in self._known:
                    version = await self._read_version(*key)
                    self._known[key] = version.review_by if version is not None else ""
                used.append(self._known[key])
        self._used = [day for day in used if day]

    async def _read_often(self) -> None:
        while True:
            try:
                await self.read_dates()
            except BusError as error:
                log.warning("review_dates_unread", reason=str(error))
            await asyncio.sleep(READ_S)
