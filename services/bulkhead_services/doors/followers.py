"""Followers of the calls in flight here, and the end of calls that nobody follows.

In: followers that come and go here, word of the other replicas. Out: `CallAbandoned` for a call that
nobody follows at any replica, so that its provider is cancelled. Replicas hear each other on
`live.doors.<tenant>.<task>`, which is lossy and not stored: one that is asked and does not answer in
`ANSWER_S` follows nothing.
"""

import asyncio
import contextlib

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, LiveMessage
from bulkhead.runtime.background import cancel_tasks
from bulkhead_contracts import subjects
from bulkhead_contracts.model import CallAbandoned, CallFollowers
from bulkhead_contracts.types import Contract
from bulkhead_services.doors.flight import InFlightCall

ANSWER_S = 1.0
AGAIN_S = 1.0
"""A notice is repeated no sooner."""
MAX_ASKED = 10_000

Place = tuple[str, str, str]
"""Tenant, task, call."""


class FollowerRegistry:
    """after_s: so long a call goes on that nobody follows, for a retry."""

    def __init__(self, bus: Bus, after_s: float) -> None:
        self._bus, self._after_s = bus, after_s
        self._followed = dict[Place, InFlightCall]()
        self._asked = BoundedDict[Place, float](MAX_ASKED)
        self._answers = dict[Place, asyncio.Event]()
        self._alone = dict[Place, asyncio.Task[None]]()
        self._saying: set[asyncio.Task[None]] = set()

    def on_followers_changed(self, place: Place, flight: InFlightCall) -> None:
        """Somebody follows the call now, or nobody does."""
        self.on_call_ended(place)
        flight.abandoned = False
        if flight.followers:
            self._followed[place] = flight
            if asyncio.get_running_loop().time() - self._asked.pop(place, -ANSWER_S) < ANSWER_S:
                self._announce_followed(place)
        else:
            self._alone[place] = asyncio.create_task(self._abandon_when_unfollowed(place, flight))

    def on_call_ended(self, place: Place) -> None:
        """The call has ended."""
        self._followed.pop(place, None)
        if (task := self._alone.pop(place, None)) is not None:
            task.cancel()

    def _announce_followed(self, place: Place) -> None:
        task = asyncio.create_task(self._publish_notice(place, CallFollowers(about=place[2], followed=True)))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _abandon_when_unfollowed(self, place: Place, flight: InFlightCall) -> None:
        """Have its provider cancelled, unless another replica's client follows; looked at again until it ends: that
        replica may be killed, a notice may be lost, or come before the model gateway has begun the call."""
        await asyncio.sleep(self._after_s)
        while True:
            flight.abandoned = not await self._is_followed_elsewhere(place)
            if flight.abandoned:
                await self._publish_notice(place, CallAbandoned(call_id=flight.call_id))
            await asyncio.sleep(max(self._after_s, AGAIN_S))

    async def _is_followed_elsewhere(self, place: Place) -> bool:
        answer = self._answers[place] = asyncio.Event()
        try:
            await self._publish_notice(place, CallFollowers(about=place[2]))
            async with asyncio.timeout(min(ANSWER_S, self._after_s)):
                return await answer.wait()
        except TimeoutError:
            return False
        finally:
            self._answers.pop(place, None)

    async def _publish_notice(self, place: Place, word: Contract) -> None:
        with contextlib.suppress(BusError):
            await self._bus.publish_live(
                subjects.live_subject(subjects.DOORS, *place[:2]), word.model_dump_json().encode()
            )

    def on_live_notice(self, live: LiveMessage) -> None:
        """Word of a replica, this one perhaps."""
        parts = live.subject.split(".")
        try:
            notice = CallFollowers.model_validate_json(live.body)
        except ValidationError:
            return
        place = (parts[2], parts[3], notice.about)
        if notice.followed:
            if (answer := self._answers.get(place)) is not None:
                answer.set()
        elif place in self._followed:
            self._announce_followed(place)
        else:
            # Its client may be on its way here.
            self._asked[place] = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """This replica goes away."""
        await cancel_tasks(*self._alone.values(), *self._saying)
