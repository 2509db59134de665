"""The delegated steps without an answer that this replica knows, oldest first.

In: word that a message of a task was handled, somewhere; the own inbox, at a start what may have time left. Out: their
feeds, and a wake-up for those who wait for a step of theirs. Nothing here is authoritative: the feeds are.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.callers.step_keys import WorkerIdentity
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.step import DelegationRequested
from bulkhead_services.doors.feed import INBOX, LAG_S, SERVICE, RunFeeds
from bulkhead_services.doors.steps.feed import StepFeed

MAX_OPEN = 2_000
"""Hand-overs of one identity that are offered at this replica; the next ones follow as these are answered."""
MAX_READ, MAX_LATER = 100_000, 100_000
"""Tasks of which it is known how far they are read; those of one identity whose hand-overs are to follow."""
LOOK_BACK_MS = bounds.MAX_TASK_DEADLINE_MS
"""At a start all is looked through that may still have time left."""
LAG_TRIES, LAG_PAUSE_S = 40, 0.1
"""So often a task is read again that a lagging follower does not know so far; it may be gone, too."""
AGAIN_S = 1.0
log = Log("doors.steps")

TaskKey = tuple[str, str]
"""Tenant, task."""
HandOverKey = tuple[str, str, str]
"""Tenant, task, call."""


@dataclass(slots=True)
class OpenHandOver:
    """A hand-over without an answer, for this identity. heard_unix_ms: when its holder was last heard of; number: of
    that taking. is_being_taken: at this moment. lost_taking: message of one whose holder never had its key."""

    feed: StepFeed
    identity: WorkerIdentity
    is_being_taken: bool = False
    lost_taking: str = ""
    heard_unix_ms: int = 0
    number: int = 0


class OpenSteps:
    """The open steps of this replica, by the identity that is handed them."""

    def __init__(self, bus: Bus, clock: Callable[[], int], feeds: RunFeeds) -> None:
        self._bus, self._clock, self._feeds = bus, clock, feeds
        self._open: dict[HandOverKey, OpenHandOver] = {}
        self._of: dict[WorkerIdentity, dict[HandOverKey, OpenHandOver]] = {}
        self._of_task: dict[TaskKey, set[HandOverKey]] = {}
        self._read = BoundedDict[TaskKey, int](MAX_READ)
        """Up to where a task's messages are read, and all its hand-overs until there are open."""
        self._later: dict[WorkerIdentity, BoundedDict[TaskKey, None]] = {}
        self._dirty: dict[TaskKey, tuple[int, int]] = {}
        """Up to where a task is to be read, and how often that was tried."""
        self._news = asyncio.Event()
        self._wakes = WeakValueDictionary[WorkerIdentity, asyncio.Event]()
        self.is_closing = False
        """True when nobody may wait here any more."""

    def step_feed(self, tenant: str, task: str, call_id: str) -> StepFeed:
        """The feed of a hand-over, perhaps empty."""
        key = (tenant, task, call_id)
        return self._feeds.get_or_create(key, lambda: StepFeed(self._bus, tenant, task, call_id))

    def get(self, key: HandOverKey) -> OpenHandOver | None:
        """One of them, or None."""
        return self._open.get(key)

    def of_identity(self, identity: WorkerIdentity) -> list[tuple[HandOverKey, OpenHandOver]]:
        """All of an identity."""
        return list(self._of.get(identity, {}).items())

    def of_tenant(self, tenant: str) -> list[OpenHandOver]:
        """All of a tenant."""
        return [open_ for key, open_ in self._open.items() if key[0] == tenant]

    def wake_event(self, identity: WorkerIdentity) -> asyncio.Event:
        """Set when a step of the identity is new, or free again; another one takes its place then."""
        event = self._wakes.get(identity)
        if event is None:
            event = self._wakes[identity] = asyncio.Event()
        return event

    def wake_waiters(self, identity: WorkerIdentity) -> None:
        """Let those look again who wait for a step of this identity."""
        if (event := self._wakes.pop(identity, None)) is not None:
            event.set()

    def close(self) -> None:
        """Let all who wait for a step go: they ask again, at another replica."""
        self.is_closing = True
        for identity in list(self._wakes):
            self.wake_waiters(identity)

    async def of_task(self, tenant: str, task: str, sequence: int) -> list[HandOverKey] | None:
        """Those of a task, from the inbox up to this message, however many its identity has; None when a follower lags.
        Raises BusError."""
        for pause_s in (*LAG_S, 0.0):
            await self._open_steps_of((tenant, task), all_of_it=True)
            if self._read.get((tenant, task), 0) >= sequence:
                return list(self._of_task.get((tenant, task), ()))
            await asyncio.sleep(pause_s)
        return None

    def note_heard(self, open_: OpenHandOver, *, now: bool = False) -> None:
        """Its holder was heard of now; a taking that is new here counts as a beat."""
        number = open_.feed.taken.number if open_.feed.taken is not None else 0
        if now or number != open_.number:
            open_.number, open_.heard_unix_ms = number, self._clock()

    def release_lost(self, open_: OpenHandOver, taking: str) -> None:
        """The holder of this taking, if it is stored, never had its key: the next may take the step at once."""
        open_.lost_taking = taking
        self.wake_waiters(open_.identity)

    def on_handled(self, tenant: str, task: str, sequence: int) -> None:
        """A message of this task was handled somewhere."""
        if subjects.is_of_doors(task):
            return
        for key in self._of_task.get((tenant, task), ()):
            self._feeds.poke_feed(key, sequence)
        self._mark_dirty((tenant, task), sequence)

    def _mark_dirty(self, task: TaskKey, sequence: int = 0) -> None:
        self._dirty[task] = max(sequence, self._dirty.get(task, (0, 0))[0]), 0
        self._news.set()

    async def run(self) -> None:
        """Learn of hand-overs, those before the start first; until cancelled."""
        began = False
        while True:
            try:
                if not began:
                    await self._find_earlier_steps()
                    began = True
                await self._news.wait()
                self._news.clear()
                while self._dirty:
                    if not await self._look_at_dirty():
                        await asyncio.sleep(LAG_PAUSE_S)
            except BusError as error:
                log.warning("steps_not_read", reason=str(error))
                self._news.set()
                await asyncio.sleep(AGAIN_S)

    async def _look_at_dirty(self) -> bool:
        """Look at each task of which there is news, once; False when one of them is to be looked at again."""
        through = True
        for task in list(self._dirty):
            target, tries = self._dirty[task]
            done = await self._look_at_task(task, target) or tries >= LAG_TRIES
            if done and self._dirty[task][0] <= target:
                del self._dirty[task]
            elif not done:
                through = False
                self._dirty[task] = self._dirty[task][0], tries + 1
        return through

    async def _look_at_task(self, task: TaskKey, sequence: int) -> bool:
        """Open what is new in a task, drop what is over; whether it was read up to the wanted message."""
        has_later = await self._open_steps_of(task)
        for key in list(self._of_task.get(task, ())):
            feed = self.step_feed(*key)
            await feed.refresh()
            if feed.answered_by is not None:
                self.drop_step(key)
        return has_later or self._read.get(task, 0) >= sequence

    async def _find_earlier_steps(self) -> None:
        """Find the hand-overs from before the start that have time left: by their newest words of it."""
        of_worker = f"mesh.worker.{SERVICE}.>"
        last = await self._bus.last(INBOX, of_worker)
        if last is None:
            return
        now_ms = self._clock()
        after = await last_before(self._bus, INBOX, of_worker, now_ms - LOOK_BACK_MS, last.sequence)
        candidates: dict[TaskKey, None] = {}
        async for stored in stored_messages(self._bus, INBOX, of_worker, after=after):
            if (body := _parse_request(stored)) is not None and body.deadline_unix_ms > now_ms:
                candidates[stored.tenant, stored.task] = None
        for task in candidates:
            await self._open_steps_of(task)

    async def _open_steps_of(self, task: TaskKey, *, all_of_it: bool = False) -> bool:
        """Open the hand-overs of a task that are not known here. Whether some are left for later, because their
        identity has as many as are offered at once. all_of_it: leave none. Raises BusError."""
        of_task = subjects.task_filter(SERVICE, *task)
        async for stored in stored_messages(self._bus, INBOX, of_task, after=self._read.get(task, 0)):
            if stored.sender == "worker" and (body := _parse_request(stored)) is not None:
                key, identity = (*task, body.call_id), WorkerIdentity(task[0], body.delegated.name)
                is_offered = key in self._open or all_of_it or len(self._of.get(identity, ())) < MAX_OPEN
                if not is_offered:
                    self._later.setdefault(identity, BoundedDict(MAX_LATER))[task] = None
                    return True
                if not await self._open_step(key, identity, stored.sequence):
                    return False
            self._read[task] = stored.sequence
        return False

    async def _open_step(self, key: HandOverKey, identity: WorkerIdentity, sequence: int) -> bool:
        """Open a hand-over, unless it is answered; False when a follower lags."""
        if key in self._open:
            return True
        feed = self.step_feed(*key)
        if not await feed.read_up_to(sequence):
            return False
        if key not in self._open and feed.answered_by is None and feed.request is not None:
            open_ = self._open[key] = OpenHandOver(feed, identity)
            self._of.setdefault(identity, {})[key] = open_
            self._of_task.setdefault(key[:2], set()).add(key)
            self.note_heard(open_)
            self.wake_waiters(identity)
        return True

    def drop_step(self, key: HandOverKey) -> None:
        """It is answered."""
        if (open_ := self._open.pop(key, None)) is None:
            return
        of_task, of_identity = self._of_task[key[:2]], self._of[open_.identity]
        of_task.discard(key)
        del of_identity[key]
        if not of_task:
            del self._of_task[key[:2]]
        if not of_identity:
            del self._of[open_.identity]
        if later := self._later.get(open_.identity):
            self._mark_dirty(next(iter(later)))
            later.pop(next(iter(later)))


def _parse_request(stored: StoredMessage) -> DelegationRequested | None:
    if stored.ce_type != DelegationRequested.ce_type():
        return None
    try:
        return DelegationRequested.model_validate_json(stored.body)
    except ValueError:
        return None
