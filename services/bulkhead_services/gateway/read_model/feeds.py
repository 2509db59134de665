"""Feeds of tasks at this replica: stored messages re-read from the inbox, live text heard, watchers woken.

In: pokes (a message of this task was handled, by whichever replica), text deltas. Out: `InboxFeed`s with
a view and the facts in stream order. Nothing here is authoritative: a feed that was forgotten is read
again from the stream, and what a purge has removed there is forgotten here: its id may begin a new task.
"""

import asyncio
import bisect
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, BusUnavailable, LiveMessage, StoredMessage
from bulkhead.flow import replace
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.live_text import live_call, text_delta
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import TEXT, TextDelta
from bulkhead_contracts.plan import PlanAdopted
from bulkhead_contracts.task import StepEnded, StepStarted, TaskRequested, list_facts
from bulkhead_contracts.tool import LiveCall, WritesReplied
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.read_model.events import (
    FeedFact,
    LiveStepText,
    StreamPosition,
    extend_live_text,
    fact_of,
)
from bulkhead_services.gateway.read_model.pushes import TaskPushes
from bulkhead_services.gateway.read_model.task_view import ENDED, TaskView, fold_message

log = Log("gateway.feeds")
READ_BATCH = 256
REREAD_ATTEMPTS = 6
MAX_LIVE_STEPS = 2 * bounds.MAX_DRAFT_STEPS
MAX_LIVE_CALLS = 128
"""Words about calls that a feed remembers for who comes later: two of each call, of the last ones."""
INBOX = subjects.inbox_stream("gateway")
FOLLOWERS_S = 600.0
"""So far no follower of the broker lags behind; no task is purged that soon."""
LOOK_AGAIN_S = 15.0
"""So long an ended task is shown as it was last read: facts that come after its end, and its purge, are rare."""


class InboxFeed:
    """One task: its view, its facts, its live texts. `version` grows whenever there is something new.

    doubtful_writes: those that may or may not have been done, as told at that time of the context's clock.
    """

    def __init__(self, bus: Bus, tenant: str, task: str, *, only_view: bool = False) -> None:
        """only_view: nobody will watch it, so that facts and pushes are left out."""
        self.tenant, self.task = tenant, task
        self._only_view = only_view
        self.view, self.pushes = TaskView(), TaskPushes()
        self.opening: ReceivedMessage | None = None
        self.facts: list[FeedFact] = []
        self.live: dict[str, LiveStepText] = {}
        self.calls: deque[tuple[int, LiveCall]] = deque(maxlen=MAX_LIVE_CALLS)
        self._calls_heard = 0
        self._steps_started: dict[str, int] = {}
        """By step, the broker's time of its first start."""
        self.sequence = 0
        self.first_sequence = 0
        self.version = 0
        self.watchers = 0
        self.awaited_sequence = 0
        self.accepted_at_s = 0.0
        self.reread_at_s = -LOOK_AGAIN_S
        self.doubtful_writes: tuple[int, WritesReplied] | None = None
        self._ended_attempts: dict[str, int] = {}
        self._bus = bus
        self._filter = subjects.task_filter("gateway", tenant, task)
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()

    @property
    def is_known(self) -> bool:
        """True if anything of this task is in the inbox."""
        return self.sequence > 0

    @property
    def has_ended(self) -> bool:
        """True if nothing can follow."""
        return self.view.status in ENDED

    async def refresh(self, at_least: int = 0) -> None:
        """Read on from where this feed stands. Raises BusError. Nothing to do when `at_least` is known already."""
        async with self._reading:
            if not at_least or self.sequence < at_least:
                await self._read_on()

    async def read_bodies(self, most: int) -> list[Body]:
        """Bodies of the task's first messages, of at most so many messages. Raises BusError."""
        bodies: list[Body] = []
        after = message_count = 0
        while message_count < most:
            batch = await self._bus.read(INBOX, self._filter, after=after, limit=min(READ_BATCH, most - message_count))
            if not batch:
                break
            after, message_count = batch[-1].sequence, message_count + len(batch)
            for message in filter(None, map(_decode_stored, batch)):
                bodies += list_facts(message.body)
        return bodies

    async def look_again(self) -> None:
        """Read on, and from the beginning when what this feed stands on was purged. Raises BusError."""
        async with self._reading:
            if self.first_sequence and not await self._is_first_intact():
                self._start_over()
                self.wake_watchers()
            await self._read_on()
            self.reread_at_s = asyncio.get_running_loop().time()

    async def _read_on(self) -> None:
        while batch := await self._bus.read(INBOX, self._filter, after=self.sequence, limit=READ_BATCH):
            for stored in batch:
                message = _decode_stored(stored)
                if message is not None and await self._begins_anew(message):
                    self._start_over()
                self.first_sequence = self.first_sequence or stored.sequence
                self.sequence = stored.sequence
                if message is not None:
                    self._apply_message(message)
            self.wake_watchers()
            if len(batch) < READ_BATCH:
                return

    async def _begins_anew(self, message: ReceivedMessage) -> bool:
        """True for the request of a new task under the id of one that was purged."""
        if self.opening is None or not isinstance(message.body, TaskRequested):
            return False
        # The broker takes the gateway's own request only where none of its messages lies: then the first one is gone.
        return self.opening.sender == message.sender == "gateway" or not await self._is_first_intact()

    async def _is_first_intact(self) -> bool:
        """True if the first message that was read here is still the task's first."""
        earliest = await self._bus.read(INBOX, self._filter, limit=1)
        return bool(earliest) and earliest[0].sequence == self.first_sequence

    def _start_over(self) -> None:
        self.view, self.pushes, self.opening = TaskView(), TaskPushes(), None
        self.first_sequence = self.sequence = self.awaited_sequence = 0
        self.doubtful_writes = None
        self.facts.clear()
        self.live.clear()
        self.calls.clear()
        self._steps_started.clear()
        self._ended_attempts.clear()

    def _apply_message(self, message: ReceivedMessage) -> None:
        for part, body in enumerate(list_facts(message.body)):
            self._apply_fact(replace(message, body=body), part)

    def _apply_fact(self, message: ReceivedMessage, part: int) -> None:
        before, self.view = self.view, fold_message(self.view, message)
        if self.view.request_sequence == message.sequence:
            self.opening = message
        if self._only_view:
            return
        self.pushes.apply_message(message, before, self.view)
        fact = fact_of(message, before, self.view, part)
        if fact is None:
            return
        self.facts.append(fact)
        if isinstance(message.body, StepStarted):
            self._steps_started.setdefault(fact.step_id, fact.time_unix_ms)
        elif isinstance(message.body, PlanAdopted):
            self._ended_attempts.clear()
        elif isinstance(message.body, StepEnded):
            self._ended_attempts[fact.step_id] = fact.attempt
            heard = self.live.get(fact.step_id)
            if heard is not None and heard.attempt <= fact.attempt:
                del self.live[fact.step_id]
        elif fact.last:
            self.live.clear()

    def add_live_text(self, delta: TextDelta, epoch: int) -> None:
        """A live piece of text."""
        if self.has_ended or delta.attempt <= self._ended_attempts.get(delta.step_id, -1):
            return  # Late: the stored record has it whole.
        current = self.live.get(delta.step_id)
        if current is None and len(self.live) >= MAX_LIVE_STEPS:
            return
        place, most = (delta.call_id, delta.attempt, delta.offset), bounds.MAX_ANSWER_CHARS
        heard = extend_live_text(current, *place, delta.text, epoch=epoch, max_chars=most, verified=delta.verified)
        if heard is not None:
            self.live[delta.step_id] = heard
            self.wake_watchers()

    def add_live_call(self, call: LiveCall) -> None:
        """A live word about a call; numbered from 1."""
        if not self.has_ended:
            self._calls_heard += 1
            self.calls.append((self._calls_heard, call))
            self.wake_watchers()

    def calls_after(self, number: int, until_unix_ms: int | None = None) -> list[tuple[int, LiveCall]]:
        """Numbered words about calls behind this one, from before a time. Each comes after the start of its step: a
        doer is heard before the inbox has been read, and its clock is not the broker's."""
        due: list[tuple[int, LiveCall]] = []
        for heard in self.calls:
            if heard[0] <= number:
                continue
            # A step that no plan has is not waited for.
            is_planned = heard[1].step_id in self.view.steps or not self.view.steps
            started_unix_ms = self._steps_started.get(heard[1].step_id, None if is_planned else 0)
            if started_unix_ms is None or (
                until_unix_ms is not None and max(started_unix_ms, heard[1].time_unix_ms) >= until_unix_ms
            ):
                break
            due.append(heard)
        return due

    def facts_after(self, position: StreamPosition) -> list[FeedFact]:
        """Facts beyond a position."""
        position_key = (position.sequence, position.part)
        return self.facts[bisect.bisect_right(self.facts, position_key, key=lambda fact: (fact.sequence, fact.part)) :]

    def wake_watchers(self) -> None:
        """Wake whoever waits."""
        self.version += 1
        self._wake.set()
        self._wake = asyncio.Event()

    async def wait_for_change(self, seen: int, timeout_s: float | None = None) -> bool:
        """Wait until `version` is no longer `seen`; False after the timeout."""
        if self.version != seen:
            return True
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def _decode_stored(stored: StoredMessage) -> ReceivedMessage | None:
    try:
        return inbound.read_message(stored, "gateway")
    except Unreadable as error:
        log.debug("unreadable_in_feed", sequence=stored.sequence, code=error.code)
        return None


class InboxFeeds:
    """The feeds of this replica, bounded: unwatched ones are forgotten, the longest unused first."""

    def __init__(self, bus: Bus, *, recent: int, live: int, reread_s: float) -> None:
        self._bus, self._recent, self._reread_s = bus, recent, reread_s
        self._feeds: OrderedDict[tuple[str, str], InboxFeed] = OrderedDict()
        self._with_live = BoundedDict[tuple[str, str], None](live, self._drop_live_texts)
        self._epochs = itertools.count(1)
        self._rereading: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    def feed_of(self, tenant: str, task: str) -> InboxFeed:
        """The feed of a task, perhaps empty: call `refresh` before believing it."""
        key = (tenant, task)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = InboxFeed(self._bus, tenant, task)
            self._forget_idle()
        self._feeds.move_to_end(key)
        return feed

    async def fresh_feed(self, tenant: str, task: str) -> InboxFeed:
        """The feed as the inbox has it now; of an ended task, as it had it LOOK_AGAIN_S ago. Raises BusError."""
        feed = self.feed_of(tenant, task)
        now_s = asyncio.get_running_loop().time()
        if not feed.has_ended or feed.awaited_sequence > feed.sequence:
            await feed.refresh()
            await self._wait_until_known(feed)
            feed.reread_at_s = now_s
        if feed.has_ended and now_s - feed.reread_at_s >= LOOK_AGAIN_S:
            await feed.look_again()
        return feed

    async def read_feed(self, tenant: str, task: str) -> InboxFeed:
        """The feed as the inbox has it now; one that has ended is not kept for that. Raises BusError."""
        if (tenant, task) in self._feeds:
            return await self.fresh_feed(tenant, task)
        feed = InboxFeed(self._bus, tenant, task, only_view=True)
        await feed.refresh()
        # Somebody may have come for it meanwhile, or it goes on: then it is read on from where it stands.
        return feed if feed.has_ended or not feed.is_known else await self.fresh_feed(tenant, task)

    def note_accepted(self, tenant: str, task: str, sequence: int) -> None:
        """Its request was stored at `sequence`, and the client is told so: from now on nobody says that there is
        none."""
        feed = self.feed_of(tenant, task)
        feed.awaited_sequence = max(feed.awaited_sequence, sequence)
        feed.accepted_at_s = asyncio.get_running_loop().time()

    @staticmethod
    async def _wait_until_known(feed: InboxFeed) -> None:
        """Wait until something of a task that was accepted here a moment ago is found; later on it may have been
        purged. Raises BusError.
        """
        for attempt in range(REREAD_ATTEMPTS):
            lately = asyncio.get_running_loop().time() - feed.accepted_at_s < FOLLOWERS_S
            if feed.is_known or not feed.awaited_sequence or not lately:
                return
            await asyncio.sleep(0.01 * 2**attempt)
            await feed.refresh()
        if not feed.is_known:
            raise BusUnavailable(
                f"task {feed.task} is stored, and the broker that was asked has not got it yet; ask again in a moment"
            )

    @property
    def is_closing(self) -> bool:
        """True once this replica goes away."""
        return self._closed.is_set()

    @contextmanager
    def watch_feed(self, feed: InboxFeed) -> Iterator[None]:
        """While somebody watches, the feed is kept and re-read at every poke."""
        self._feeds[feed.tenant, feed.task] = feed
        feed.watchers += 1
        try:
            yield
        finally:
            feed.watchers -= 1

    def apply_poke(self, tenant: str, task: str, sequence: int) -> None:
        """A message of this task was stored at `sequence`: watchers are to see it."""
        key = (tenant, task)
        feed = self._feeds.get(key)
        if feed is None:
            return
        feed.awaited_sequence = max(feed.awaited_sequence, sequence)
        if feed.watchers and key not in self._rereading and feed.sequence < feed.awaited_sequence:
            task_ = asyncio.create_task(self._reread_feed(feed))
            self._rereading[key] = task_
            task_.add_done_callback(lambda _: self._rereading.pop(key, None))

    async def _reread_feed(self, feed: InboxFeed) -> None:
        for attempt in range(REREAD_ATTEMPTS):
            before = -1
            while before < feed.sequence < feed.awaited_sequence:
                before = feed.sequence
                await self._refresh_feed(feed)
            if feed.sequence >= feed.awaited_sequence:
                return
            # A follower may lag behind the leader that acknowledged; the interval catches what this does not.
            await asyncio.sleep(0.01 * 2**attempt)

    @staticmethod
    async def _refresh_feed(feed: InboxFeed) -> None:
        try:
            await feed.refresh()
        except BusError as error:
            log.warning("reread_failed", task=feed.task, reason=str(error))

    def apply_live_text(self, live: LiveMessage) -> None:
        """A text delta from `live.model_gateway.<tenant>.<task>`."""
        if (heard := text_delta(live)) is not None and heard[2].part == TEXT:
            tenant, task, delta = heard
            self.feed_of(tenant, task).add_live_text(delta, next(self._epochs))
            self._with_live[tenant, task] = None

    def apply_live_call(self, live: LiveMessage) -> None:
        """A word about a call from `live.<doer>.<tenant>.<task>`."""
        if (heard := live_call(live)) is not None:
            tenant, task, call = heard
            self.feed_of(tenant, task).add_live_call(call)
            self._with_live[tenant, task] = None

    def _drop_live_texts(self, key: tuple[str, str], _: None) -> None:
        if key in self._feeds:
            self._feeds[key].live.clear()
            self._feeds[key].calls.clear()

    async def run(self) -> None:
        """Re-read every watched feed each `reread_s`, in case a poke was lost; returns after `close`."""
        while not self.is_closing:
            try:
                await asyncio.wait_for(self._closed.wait(), self._reread_s)
            except TimeoutError:
                watched = [feed for feed in self._feeds.values() if feed.watchers and not feed.has_ended]
                await asyncio.gather(*(self._refresh_feed(feed) for feed in watched))

    def close(self) -> None:
        """End all watching: clients come back elsewhere, with their position."""
        self._closed.set()
        for feed in self._feeds.values():
            feed.wake_watchers()

    def _forget_idle(self) -> None:
        while len(self._feeds) > self._recent:
            newest = next(reversed(self._feeds))
            idle = next((key for key, feed in self._feeds.items() if not feed.watchers and key != newest), None)
            if idle is None:
                return  # All are watched: max_streams is the bound then.
            del self._feeds[idle]
            self._with_live.pop(idle, None)

    def sizes(self) -> Mapping[str, int]:
        """Numbers of what is held, for tests and readiness."""
        return {"feeds": len(self._feeds), "live": len(self._with_live)}
