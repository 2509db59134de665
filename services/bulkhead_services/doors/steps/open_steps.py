"""The delegated steps without an answer that this replica knows, oldest first.

In: word that a message of a task was handled, somewhere; the own inbox, at a start its newest messages. Out: their
feeds, and a wake-up for those who wait for a step. Nothing here is authoritative: the feeds are.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bulkhead.bus.port import Bus, BusError
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.step import DelegationRequested
from bulkhead_services.doors.feed import INBOX, SERVICE, Feeds
from bulkhead_services.doors.steps.feed import StepFeed

MAX_OPEN = 10_000
"""Hand-overs that this replica knows of."""
LOOK_BACK = 50_000
"""So many of the newest messages are looked through at a start for steps that nobody has answered."""
AGAIN_S = 1.0
log = Log("doors.steps")

Place = tuple[str, str, str]
"""Tenant, task, call."""


@dataclass(slots=True)
class Open:
    """A hand-over without an answer. heard_unix_ms: when its holder was last heard of; number: of that taking."""

    feed: StepFeed
    heard_unix_ms: int = 0
    number: int = 0


class OpenSteps:
    """Of this replica."""

    def __init__(self, bus: Bus, clock: Callable[[], int], feeds: Feeds) -> None:
        self._bus, self._clock, self._feeds = bus, clock, feeds
        self._open: dict[Place, Open] = {}
        self._of_task: dict[tuple[str, str], set[Place]] = {}
        self._read: dict[tuple[str, str], int] = {}
        """Up to where the worker's messages of a task are read."""
        self._dirty: set[tuple[str, str]] = set()
        self._news = asyncio.Event()
        self.wake = asyncio.Event()
        """Set when a step is new; another one takes its place then."""

    def feed(self, tenant: str, task: str, call_id: str) -> StepFeed:
        """The feed of a hand-over, perhaps empty."""
        key = (tenant, task, call_id)
        return self._feeds.known(key, lambda: StepFeed(self._bus, tenant, task, call_id))

    def get(self, place: Place) -> Open | None:
        """One of them."""
        return self._open.get(place)

    def all(self) -> list[tuple[Place, Open]]:
        """All of them."""
        return list(self._open.items())

    async def of_task(self, tenant: str, task: str) -> list[Place]:
        """Those of a task, from the inbox as it stands. Raises BusError."""
        await self._discover(tenant, task)
        return list(self._of_task.get((tenant, task), ()))

    def heard(self, open_: Open, *, now: bool = False) -> None:
        """Its holder was heard of now; a taking that is new here counts as a beat."""
        number = open_.feed.taken.number if open_.feed.taken is not None else 0
        if now or number != open_.number:
            open_.number, open_.heard_unix_ms = number, self._clock()

    def handled(self, tenant: str, task: str, sequence: int) -> None:
        """A message of this task was handled somewhere."""
        if subjects.is_of_doors(task):
            return
        for place in self._of_task.get((tenant, task), ()):
            self._feeds.poke(place, sequence)
        self._dirty.add((tenant, task))
        self._news.set()

    async def run(self) -> None:
        """Learn of hand-overs, those before the start first; until cancelled."""
        began = False
        while True:
            try:
                if not began:
                    await self._look_back()
                    began = True
                await self._news.wait()
                self._news.clear()
                while self._dirty:
                    await self._look(*next(iter(self._dirty)))
            except BusError as error:
                log.warning("steps_not_read", reason=str(error))
                self._news.set()
                await asyncio.sleep(AGAIN_S)

    async def _look(self, tenant: str, task: str) -> None:
        for place in await self.of_task(tenant, task):
            feed = self.feed(*place)
            await feed.refresh()
            if feed.answered_by is not None:
                self.drop(place)
        self._dirty.discard((tenant, task))

    async def _look_back(self) -> None:
        of_worker = f"mesh.worker.{SERVICE}.>"
        last = await self._bus.last(INBOX, of_worker)
        after = max(0, last.sequence - LOOK_BACK) if last is not None else 0
        seen: dict[tuple[str, str], None] = {}
        while page := await self._bus.read(INBOX, of_worker, after=after):
            seen |= dict.fromkeys((stored.tenant, stored.task) for stored in page)
            after = page[-1].sequence
        for tenant, task in seen:
            await self._discover(tenant, task)

    async def _discover(self, tenant: str, task: str) -> None:
        """The hand-overs of a task that are not known here."""
        of_task = subjects.mesh("worker", SERVICE, tenant, task)
        after = self._read.pop((tenant, task), 0)
        while page := await self._bus.read(INBOX, of_task, after=after):
            for stored in page:
                if stored.ce_type != DelegationRequested.ce_type():
                    continue
                try:
                    call_id = DelegationRequested.model_validate_json(stored.body).call_id
                except ValueError:
                    continue
                await self._begin((tenant, task, call_id))
            after = page[-1].sequence
        if after:
            self._read[tenant, task] = after
            while len(self._read) > MAX_OPEN:
                self._read.pop(next(iter(self._read)))

    async def _begin(self, place: Place) -> None:
        if place in self._open:
            return
        feed = self.feed(*place)
        await feed.refresh()
        if place not in self._open and feed.answered_by is None and feed.request is not None:
            while len(self._open) >= MAX_OPEN:
                self.drop(next(iter(self._open)))
            self._open[place] = Open(feed)
            self._of_task.setdefault(place[:2], set()).add(place)
            self.heard(self._open[place])
            self.wake.set()
            self.wake = asyncio.Event()

    def drop(self, place: Place) -> None:
        """It is answered, or too many are known."""
        if self._open.pop(place, None) is not None:
            of_task = self._of_task[place[:2]]
            of_task.discard(place)
            if not of_task:
                del self._of_task[place[:2]]
