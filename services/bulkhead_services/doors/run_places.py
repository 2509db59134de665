"""Places of runs: a run holds one of its tenant's places while a call of it is in flight, or waits for its beginning.

In: uses of runs, news of runs at other replicas. Out: `PlaceReturned` and `PlaceTaken` to the gateway. A place that is
not used for a moment is returned, and asked for again before the next call, which waits in its tenant's line. Each
replica says so for itself; a place that a killed replica held is returned by another one.
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
from bulkhead_contracts.task import PlaceReturned, PlaceTaken
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import RunFeed, RunFeeds
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.run_call import CallsInFlight
from bulkhead_services.doors.settings import Settings

LOOK_S = 0.25
BEGIN_S = 10.0
"""So long the call for which a run has its place may take to begin."""
IDLE_S = 1.0
"""A place is kept for so long after the last call: most agents make the next one by then."""
KEEP_IN_LINE_S = 5.0
"""A run that got no place in time stays in the line for so long after the time to ask again."""
AWAY_S = 3.0
"""A gateway that does not answer in so long is away: an open run goes on, and counts when it is back."""
MAX_PLACES = 10_000
"""Runs whose places this replica may return."""
log = Log("doors.places")


@dataclass(slots=True)
class RunPlace:
    """The place of a run that the gateway has for it, in its line at least. elsewhere: not this replica uses it, but
    another one, as far as is known here. opened: this replica asked for the run. granted: its calls may begin. waiting:
    calls that wait for it. keep_until_s: it is not returned before; time of the loop.
    """

    elsewhere: bool = False
    opened: bool = False
    granted: bool = False
    waiting: int = 0
    keep_until_s: float = 0.0
    regaining: "asyncio.Task[None] | None" = None


class RunPlaces:
    """The places of this replica's runs. in_flight: the calls of each door."""

    def __init__(
        self, context: Context, settings: Settings, feeds: RunFeeds, in_flight: tuple[CallsInFlight[Any], ...]
    ) -> None:
        self._context, self._settings, self._feeds, self._in_flight = context, settings, feeds, in_flight
        self._places = BoundedDict[tuple[str, str], RunPlace](MAX_PLACES)

    def note_activity(self, tenant: str, task: str) -> None:
        """Note a message of this run, of another replica's call perhaps: it may be killed before it says more."""
        place = self._places.setdefault((tenant, task), RunPlace(elsewhere=True))
        if place.elsewhere:
            place.keep_until_s = _loop_time_s() + self._settings.call_timeout_s

    def note_use(self, tenant: str, task: str) -> None:
        """Note that the call for which a run has its place has begun here."""
        if (place := self._places.get((tenant, task))) is not None:
            place.keep_until_s = _loop_time_s() + IDLE_S

    @contextmanager
    def waiting_for(self, feed: RunFeed, *, opened: bool) -> Iterator[RunPlace]:
        """A call waits until its run has begun. opened: this replica has just asked for it."""
        place = self._places.setdefault((feed.tenant, feed.task), RunPlace())
        place.opened = place.opened or opened
        place.elsewhere = not place.opened  # The gateway counts the opener alone until another one wants the place.
        place.waiting += 1
        try:
            yield place
        finally:
            place.waiting -= 1
            if place.elsewhere:
                place.keep_until_s = _loop_time_s() + self._settings.call_timeout_s
            elif feed.is_open:
                place.granted, place.keep_until_s = True, _loop_time_s() + BEGIN_S

    def refuse_waiting(self, feed: RunFeed, place: RunPlace) -> DoorRefusal:
        """The refusal of a call whose run has got no place in time."""
        refusal = refusals.run_not_begun(feed.task, feed.queued, self._settings.open_wait_s)
        # Whoever comes again in time goes on waiting where it stood; else the run leaves the line.
        place.keep_until_s = _loop_time_s() + (refusal.retry_after_s or 0.0) + KEEP_IN_LINE_S
        return refusal

    async def regain_place(self, feed: RunFeed) -> None:
        """See to it that an open run has a place for its next call. Raises DoorRefusal, BusError."""
        place = self._places.setdefault((feed.tenant, feed.task), self._place_elsewhere())
        if not place.granted:
            if place.regaining is None:
                place.regaining = asyncio.create_task(self._wait_for_turn(feed, place))
                place.regaining.add_done_callback(lambda done: _on_regain_done(place, done))
            await asyncio.shield(place.regaining)
        place.keep_until_s = _loop_time_s() + BEGIN_S

    async def _wait_for_turn(self, feed: RunFeed, place: RunPlace) -> None:
        place.waiting += 1
        try:
            wait_s, asked_sequence = self._settings.open_wait_s, feed.sequence
            feed.queued = None  # Where it stood before.
            # In its line it stays where it stands, and the other replicas hear that somebody waits.
            body = PlaceTaken(person=feed.actor, replica=self._context.instance)
            await self._tell_gateway((feed.tenant, feed.task), body, "taken")
            place.elsewhere = False

            def is_granted() -> bool:
                return feed.granted_sequence > asked_sequence or feed.is_over

            is_answered = await self._feeds.wait_until(
                feed, lambda: is_granted() or feed.queued is not None, min(wait_s, AWAY_S)
            )
            if not is_answered:
                log.warning("gateway_away", task=feed.task)
            elif not await self._feeds.wait_until(feed, is_granted, wait_s):
                raise self.refuse_waiting(feed, place)
            place.granted = True
        finally:
            place.waiting -= 1

    async def run(self) -> None:
        """Return what is not used, at intervals; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for key, place in list(self._places.items()):
                try:
                    await self._return_if_unused(key, place)
                except BusError as error:
                    log.debug("place_not_returned", task=key[1], reason=str(error))
                    break

    async def _return_if_unused(self, key: tuple[str, str], place: RunPlace) -> None:
        if place.waiting:
            return
        now_s, elsewhere = _loop_time_s(), place.elsewhere
        if any(calls.has_call_of(*key) for calls in self._in_flight):
            place.keep_until_s = max(now_s + IDLE_S, place.keep_until_s if elsewhere else 0.0)
        elif now_s >= place.keep_until_s:
            # First: a call that comes meanwhile asks for it again.
            self._places.pop(key)
            if not elsewhere:  # Another replica may use it, and be killed.
                self._places[key] = self._place_elsewhere()
            try:
                replica = "" if elsewhere else self._context.instance
                await self._tell_gateway(key, PlaceReturned(replica=replica), "returned")
            except BusError:
                if (newer := self._places.get(key)) is None or newer.elsewhere:
                    self._places[key] = RunPlace(elsewhere=elsewhere)
                raise

    def _place_elsewhere(self) -> RunPlace:
        """The place of a run that this replica does not use: returned for all when nothing of the run is heard."""
        return RunPlace(elsewhere=True, keep_until_s=_loop_time_s() + self._settings.call_timeout_s)

    async def _tell_gateway(self, key: tuple[str, str], body: PlaceReturned | PlaceTaken, index: str) -> None:
        tenant, task = key
        # Said as often as it changes, and by each replica: no two of these are one message.
        index = f"{index}/{task}/{self._context.instance}/{self._context.clock()}"
        await self._context.publisher.send("gateway", body, tenant=tenant, task=task, index=index)


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()


def _on_regain_done(place: RunPlace, regaining: "asyncio.Task[None]") -> None:
    place.regaining = None
    if not regaining.cancelled():
        regaining.exception()  # All who waited for it may have gone.
