"""Places of runs: a run holds one of its tenant's places while a call of it is in flight, or waits for its beginning.

In: uses of runs, news of runs at other replicas. Out: `PlaceReturned` and `PlaceTaken` to the gateway. Both are said by
the last state alone, so that a call which is over at the next look says nothing; a place that a killed replica held is
returned by another one.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.task import PlaceReturned, PlaceTaken
from bulkhead_services.doors.feed import RunFeed, RunFeeds
from bulkhead_services.doors.run_call import CallsInFlight
from bulkhead_services.doors.settings import Settings

LOOK_S = 0.25
MAX_PLACES = 10_000
"""Runs whose places this replica may return."""
log = Log("doors.places")


@dataclass(slots=True)
class RunPlace:
    """The place of a run. held: as the gateway was told. elsewhere: another replica uses it, as far as is known here.
    waiting: calls that wait for its beginning. keep_until_s: it is not returned before; time of the loop."""

    held: bool
    elsewhere: bool = False
    waiting: int = 0
    keep_until_s: float = 0.0


class RunPlaces:
    """The places of this replica's runs. in_flight: the calls of each door."""

    def __init__(
        self, context: Context, settings: Settings, feeds: RunFeeds, in_flight: tuple[CallsInFlight[Any], ...]
    ) -> None:
        self._context, self._settings, self._feeds, self._in_flight = context, settings, feeds, in_flight
        self._places = BoundedDict[tuple[str, str], RunPlace](MAX_PLACES)

    def note_use(self, tenant: str, task: str) -> None:
        """Note that a call of this run is begun here."""
        if subjects.is_of_doors(task):
            place = self._places.setdefault((tenant, task), RunPlace(held=False))
            place.elsewhere, place.keep_until_s = False, 0.0

    def note_activity(self, tenant: str, task: str) -> None:
        """Note a message of this run, of another replica's call perhaps: it may be killed before it says more."""
        place = self._places.setdefault((tenant, task), RunPlace(held=True, elsewhere=True))
        if place.elsewhere:
            place.keep_until_s = asyncio.get_running_loop().time() + self._settings.call_timeout_s

    @contextmanager
    def waiting_for(self, feed: RunFeed) -> Iterator[RunPlace]:
        """A call waits until its run has begun."""
        place = self._places.setdefault((feed.tenant, feed.task), RunPlace(held=True))
        place.held, place.elsewhere, place.keep_until_s = True, False, 0.0
        place.waiting += 1
        try:
            yield place
        finally:
            place.waiting -= 1

    async def run(self) -> None:
        """Say what has changed, at intervals; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for key, place in list(self._places.items()):
                try:
                    await self._tell_change(key, place)
                except BusError as error:
                    log.debug("place_not_told", task=key[1], reason=str(error))
                    break

    async def _tell_change(self, key: tuple[str, str], place: RunPlace) -> None:
        if place.waiting or any(calls.has_call_of(*key) for calls in self._in_flight):
            if not place.held:
                await self._tell_gateway(key, place, PlaceTaken(), "taken")
        elif asyncio.get_running_loop().time() >= place.keep_until_s:
            if place.held and not self._feeds.run_feed(*key).is_over:
                await self._tell_gateway(key, place, PlaceReturned(), "returned")
            else:
                self._places.pop(key, None)

    async def _tell_gateway(
        self, key: tuple[str, str], place: RunPlace, body: PlaceReturned | PlaceTaken, index: str
    ) -> None:
        tenant, task = key
        # Said as often as it changes, and by each replica: no two of these are one message.
        index = f"{index}/{task}/{self._context.instance}/{self._context.clock()}"
        await self._context.publisher.send("gateway", body, tenant=tenant, task=task, index=index)
        place.held = isinstance(body, PlaceTaken)
