"""What this replica knows of tasks: stored messages re-read from the inbox, live text heard, watchers woken.

In: pokes (a message of this task was handled, by whichever replica), text deltas. Out: `Feed`s with a view and the
facts in stream order. Nothing here is authoritative: a feed that was forgotten is read again from the stream, and what
a purge has removed there is forgotten here: its id may begin a new task.
"""

import asyncio
import bisect
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, BusUnavailable, Live, Stored
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.live_text import text_delta
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import TEXT, TextDelta
from bulkhead_contracts.plan import PlanAdopted
from bulkhead_contracts.task import StepEnded, TaskRequested, facts
from bulkhead_contracts.tool import WritesReplied
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.read_model.events import Fact, LiveText, Position, fact_of, hear
from bulkhead_services.gateway.read_model.pushes import Pushes
from bulkhead_services.gateway.read_model.task_view import ENDED, View, fold

log = Log("gateway.feeds")
READ_BATCH = 256
REREAD_ATTEMPTS = 6
MAX_LIVE_STEPS = 2 * bounds.MAX_PLAN_STEPS
INBOX = subjects.inbox_stream("gateway")
FOLLOWERS_S = 600.0
"""So far no follower of the broker lags behind; no task is purged that soon."""
LOOK_AGAIN_S = 15.0
"""So long an ended task is shown as it was last read: facts that come after its end, and its purge, are rare."""


class Feed:
    """One task: its view, its facts, its live texts. `version` grows whenever there is something new.

    writes: those that may or may not have been done, as told at that time of the context's clock.
    """

    def __init__(self, bus: Bus, tenant: str, task: str) -> None:
        self.tenant, self.task = tenant, task
        self.view, self.pushes = View(), Pushes()
        self.opening: Received | None = None
        self.facts: list[Fact] = []
        self.live: dict[str, LiveText] = {}
        self.sequence = 0
        self.first = 0
        self.version = 0
        self.watchers = 0
        self.wanted = 0
        self.accepted_at = 0.0
        self.looked_at = -LOOK_AGAIN_S
        self.writes: tuple[int, WritesReplied] | None = None
        self._ended_attempts: dict[str, int] = {}
        self._bus = bus
        self._filter = subjects.task_filter("gateway", tenant, task)
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()

    @property
    def known(self) -> bool:
        """Whether anything of this task is in the inbox."""
        return self.sequence > 0

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.view.status in ENDED

    async def refresh(self, at_least: int = 0) -> None:
        """Read on from where this feed stands. Raises BusError. Nothing to do when `at_least` is known already."""
        async with self._reading:
            if not at_least or self.sequence < at_least:
                await self._read_on()

    async def bodies(self, most: int) -> list[Body]:
        """What the task's first messages tell, at most so many messages. Raises BusError."""
        found: list[Body] = []
        after = read = 0
        while read < most:
            batch = await self._bus.read(INBOX, self._filter, after=after, limit=min(READ_BATCH, most - read))
            if not batch:
                break
            after, read = batch[-1].sequence, read + len(batch)
            for message in filter(None, map(_received, batch)):
                found += facts(message.body)
        return found

    async def look_again(self) -> None:
        """Read on, and from the beginning when what this feed stands on was purged. Raises BusError."""
        async with self._reading:
            if self.first and not await self._stands():
                self._restart()
                self.notify()
            await self._read_on()
            self.looked_at = asyncio.get_running_loop().time()

    async def _read_on(self) -> None:
        while batch := await self._bus.read(INBOX, self._filter, after=self.sequence, limit=READ_BATCH):
            for stored in batch:
                message = _received(stored)
                if message is not None and await self._begins_anew(message):
                    self._restart()
                self.first = self.first or stored.sequence
                self.sequence = stored.sequence
                if message is not None:
                    self._take(message)
            self.notify()
            if len(batch) < READ_BATCH:
                return

    async def _begins_anew(self, message: Received) -> bool:
        """Whether this is the request of a new task under the id of one that was purged."""
        if self.opening is None or not isinstance(message.body, TaskRequested):
            return False
        # The broker takes the gateway's own request only where none of its messages lies: then the first one is gone.
        return self.opening.sender == message.sender == "gateway" or not await self._stands()

    async def _stands(self) -> bool:
        """Whether the first message that was read here is still the task's first."""
        found = await self._bus.read(INBOX, self._filter, limit=1)
        return bool(found) and found[0].sequence == self.first

    def _restart(self) -> None:
        self.view, self.pushes, self.opening = View(), Pushes(), None
        self.first = self.sequence = self.wanted = 0
        self.writes = None
        self.facts.clear()
        self.live.clear()
        self._ended_attempts.clear()

    def _take(self, message: Received) -> None:
        for part, body in enumerate(facts(message.body)):
            self._tell(replace(message, body=body), part)

    def _tell(self, message: Received, part: int) -> None:
        before, self.view = self.view, fold(self.view, message)
        self.pushes.take(message, before, self.view)
        if self.view.request_sequence == message.sequence:
            self.opening = message
        fact = fact_of(message, before, self.view, part)
        if fact is None:
            return
        self.facts.append(fact)
        if isinstance(message.body, PlanAdopted):
            self._ended_attempts.clear()
        elif isinstance(message.body, StepEnded):
            self._ended_attempts[fact.step_id] = fact.attempt
            heard = self.live.get(fact.step_id)
            if heard is not None and heard.attempt <= fact.attempt:
                del self.live[fact.step_id]
        elif fact.last:
            self.live.clear()

    def hear(self, delta: TextDelta, epoch: int) -> None:
        """A live piece of text."""
        if self.ended or delta.attempt <= self._ended_attempts.get(delta.step_id, -1):
            return  # Late: the stored record has it whole.
        known = self.live.get(delta.step_id)
        if known is None and len(self.live) >= MAX_LIVE_STEPS:
            return
        place, most = (delta.call_id, delta.attempt, delta.offset), bounds.MAX_ANSWER_CHARS
        heard = hear(known, *place, delta.text, epoch=epoch, max_chars=most, verified=delta.verified)
        if heard is not None:
            self.live[delta.step_id] = heard
            self.notify()

    def after(self, position: Position) -> list[Fact]:
        """Facts beyond a position."""
        here = (position.sequence, position.part)
        return self.facts[bisect.bisect_right(self.facts, here, key=lambda fact: (fact.sequence, fact.part)) :]

    def notify(self) -> None:
        """Wake whoever waits."""
        self.version += 1
        self._wake.set()
        self._wake = asyncio.Event()

    async def changed(self, seen: int, timeout_s: float | None = None) -> bool:
        """Wait until `version` is no longer `seen`; False after the timeout."""
        if self.version != seen:
            return True
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def _received(stored: Stored) -> Received | None:
    try:
        return inbound.read(stored, "gateway")
    except Unreadable as error:
        log.debug("unreadable_in_feed", sequence=stored.sequence, code=error.code)
        return None


class Feeds:
    """The feeds of this replica, bounded: unwatched ones are forgotten, the longest unused first."""

    def __init__(self, bus: Bus, *, recent: int, live: int, reread_s: float) -> None:
        self._bus, self._recent, self._reread_s = bus, recent, reread_s
        self._feeds: OrderedDict[tuple[str, str], Feed] = OrderedDict()
        self._with_live = BoundedDict[tuple[str, str], None](live, self._silent)
        self._epochs = itertools.count(1)
        self._rereading: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    def feed(self, tenant: str, task: str) -> Feed:
        """The feed of a task, perhaps empty: call `refresh` before believing it."""
        key = (tenant, task)
        found = self._feeds.get(key)
        if found is None:
            found = self._feeds[key] = Feed(self._bus, tenant, task)
            self._forget()
        self._feeds.move_to_end(key)
        return found

    async def fresh(self, tenant: str, task: str) -> Feed:
        """The feed as the inbox has it now; of an ended task, as it had it LOOK_AGAIN_S ago. Raises BusError."""
        found = self.feed(tenant, task)
        now = asyncio.get_running_loop().time()
        if not found.ended or found.wanted > found.sequence:
            await found.refresh()
            await self._until_known(found)
            found.looked_at = now
        if found.ended and now - found.looked_at >= LOOK_AGAIN_S:
            await found.look_again()
        return found

    def accepted(self, tenant: str, task: str, sequence: int) -> None:
        """Its request was stored at `sequence`, and the client is told so: from now on nobody says that there is
        none."""
        found = self.feed(tenant, task)
        found.wanted = max(found.wanted, sequence)
        found.accepted_at = asyncio.get_running_loop().time()

    @staticmethod
    async def _until_known(feed: Feed) -> None:
        """Of a task that was accepted here a moment ago something is found; later on it may have been purged. Raises
        BusError."""
        for attempt in range(REREAD_ATTEMPTS):
            lately = asyncio.get_running_loop().time() - feed.accepted_at < FOLLOWERS_S
            if feed.known or not feed.wanted or not lately:
                return
            await asyncio.sleep(0.01 * 2**attempt)
            await feed.refresh()
        if not feed.known:
            raise BusUnavailable(
                f"task {feed.task} is stored, and the broker that was asked has not got it yet; ask again in a moment"
            )

    @property
    def closing(self) -> bool:
        """Whether this replica goes away."""
        return self._closed.is_set()

    @contextmanager
    def watching(self, feed: Feed) -> Iterator[None]:
        """While somebody watches, the feed is kept and re-read at every poke."""
        self._feeds[feed.tenant, feed.task] = feed
        feed.watchers += 1
        try:
            yield
        finally:
            feed.watchers -= 1

    def poke(self, tenant: str, task: str, sequence: int) -> None:
        """A message of this task was stored at `sequence`: watchers are to see it."""
        key = (tenant, task)
        found = self._feeds.get(key)
        if found is None:
            return
        found.wanted = max(found.wanted, sequence)
        if found.watchers and key not in self._rereading and found.sequence < found.wanted:
            task_ = asyncio.create_task(self._reread(found))
            self._rereading[key] = task_
            task_.add_done_callback(lambda _: self._rereading.pop(key, None))

    async def _reread(self, feed: Feed) -> None:
        for attempt in range(REREAD_ATTEMPTS):
            before = -1
            while before < feed.sequence < feed.wanted:
                before = feed.sequence
                await self._refresh(feed)
            if feed.sequence >= feed.wanted:
                return
            # A follower may lag behind the leader that acknowledged; the interval catches what this does not.
            await asyncio.sleep(0.01 * 2**attempt)

    @staticmethod
    async def _refresh(feed: Feed) -> None:
        try:
            await feed.refresh()
        except BusError as error:
            log.warning("reread_failed", task=feed.task, reason=str(error))

    def hear(self, live: Live) -> None:
        """A text delta from `live.model_gateway.<tenant>.<task>`."""
        if (heard := text_delta(live)) is not None and heard[2].part == TEXT:
            tenant, task, delta = heard
            self.feed(tenant, task).hear(delta, next(self._epochs))
            self._with_live[tenant, task] = None

    def _silent(self, key: tuple[str, str], _: None) -> None:
        if key in self._feeds:
            self._feeds[key].live.clear()

    async def run(self) -> None:
        """Re-read every watched feed each `reread_s`, in case a poke was lost; returns after `close`."""
        while not self.closing:
            try:
                await asyncio.wait_for(self._closed.wait(), self._reread_s)
            except TimeoutError:
                watched = [feed for feed in self._feeds.values() if feed.watchers and not feed.ended]
                await asyncio.gather(*(self._refresh(feed) for feed in watched))

    def close(self) -> None:
        """End all watching: clients come back elsewhere, with their position."""
        self._closed.set()
        for found in self._feeds.values():
            found.notify()

    def _forget(self) -> None:
        while len(self._feeds) > self._recent:
            newest = next(reversed(self._feeds))
            idle = next((key for key, feed in self._feeds.items() if not feed.watchers and key != newest), None)
            if idle is None:
                return  # All are watched: max_streams is the bound then.
            del self._feeds[idle]
            self._with_live.pop(idle, None)

    def sizes(self) -> Mapping[str, int]:
        """How much is held, for tests and readiness."""
        return {"feeds": len(self._feeds), "live": len(self._with_live)}
