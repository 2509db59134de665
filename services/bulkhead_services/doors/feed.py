"""Runs as this replica knows them: each is a fold of its messages in the own inbox, read on at news.

In: pokes (a message of this run was handled, by whichever replica). Out: `RunFeed`s. Nothing here is
authoritative: a feed that was forgotten is read again from the stream.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, cast
from weakref import WeakValueDictionary

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.agent import AgentWarned
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import EMBEDDINGS, Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import DelegationRequested, StepAssigned, StepExtended
from bulkhead_contracts.task import PlaceGranted, TaskEnded, TaskQueued, TaskRejected
from bulkhead_contracts.tool import ToolCallReplied, WriteNoted, WriteResolution

SERVICE = "doors"
INBOX = subjects.inbox_stream(SERVICE)
READ_BATCH = 256
LAG_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Pauses before a follower is asked again that lags behind the leader."""
MAX_CALLS = 10_000
"""Calls of one run that are told apart."""
MAX_REPLIES = 4
"""Replies of one run that are kept; an older one is read again."""
MAX_CHANGES = 256
MAX_WARNINGS = 16
WARN_WITHIN_MS = 600_000
"""A warning that is older is told to nobody: this replica may not know that another one has told it."""
log = Log("doors.feed")
Reply = ModelCallReplied | ToolCallReplied | RetrievalReplied
FeedKey = tuple[str, ...]
"""Tenant and task of a run; of a delegated step its call, too."""
F = TypeVar("F", bound="RunFeed")


@dataclass(frozen=True, slots=True)
class CallState:
    """The latest message about a call. ids: of all messages about it whose usage is counted."""

    kind: Literal["replied", "deferred", "resumed"]
    sequence: int
    message_id: str
    time_unix_ms: int
    ids: tuple[str, ...]
    deferred: CallDeferred | None = None
    held_for: str = ""
    """The code of the newest deferral, also after the call may go on."""


class RunFeed:
    """One run. `version` grows whenever there is something new.

    cause, actor, traceparent, grant: of the message that opened it here, the grant also of a later one that gives it
    more time. epoch: as of which gap-free run of deliveries it is whole; -1: of none. queued: the queue when it joined
    it, while it waits there. granted_sequence: of the newest word that it has a place again. held: the halt or breaker
    that holds its calls back, as far as is known. last_answer: its newest answer in words, where there is one.
    last_tool_reply: of its newest call of a tool that worked. unheard: writes whose answers no client has. uncertain:
    writes of which nobody knows whether they were made, by the ids that calls alike have here. aliases: calls by ids of
    later requests that are one of them. stored_sequence: of its newest message that this replica has heard of.
    """

    prefix = ""
    """With what the ids of its calls begin."""

    def __init__(self, bus: Bus, tenant: str, task: str) -> None:
        self.tenant, self.task = tenant, task
        self.sequence = self.stored_sequence = self.version = self.watchers = 0
        self.epoch = -1
        self._bus = bus
        self._filter = subjects.task_filter(SERVICE, tenant, task)
        self._reading = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._reset_fold()

    def _reset_fold(self) -> None:
        self.assigned: StepAssigned | DelegationRequested | None = None
        self.queued: TaskQueued | None = None
        self.granted_sequence = 0
        self.rejected: TaskRejected | None = None
        self.ended: TaskEnded | None = None
        self.cause = self.actor = self.traceparent = self.grant = ""
        self.deadline_unix_ms = self.opened_unix_ms = self.last_unix_ms = 0
        self.calls = BoundedDict[str, CallState](MAX_CALLS)
        self.usage = Usage()
        self.held: CallDeferred | None = None
        self.last_answer: ModelCallReplied | None = None
        self.last_tool_reply: ToolCallReplied | RetrievalReplied | None = None
        self.unheard, self.uncertain = BoundedDict[str, None](MAX_CALLS), BoundedDict[str, str](MAX_CALLS)
        self.aliases = BoundedDict[str, str](MAX_CALLS)
        self._replies = BoundedDict[str, Reply](MAX_REPLIES)
        self._changes = BoundedDict[int, CallDeferred | None](MAX_CHANGES)
        self._warnings = BoundedDict[str, tuple[int, str]](MAX_WARNINGS)

    @property
    def is_over(self) -> bool:
        """True when no call can be made in it any more."""
        return self.ended is not None or self.rejected is not None

    @property
    def is_open(self) -> bool:
        """True while calls can be made in it."""
        return self.assigned is not None and not self.is_over

    def hold_change_at(self, sequence: int) -> tuple[CallDeferred | None] | None:
        """Change of the hold by the message there: a tuple of the deferral that began it, or of None; else None."""
        return (self._changes[sequence],) if sequence in self._changes else None

    def take_pending_warning(self, now_unix_ms: int) -> str:
        """Text to be told to the agent now, once; "" for nothing."""
        pending = [
            (trip, text)
            for trip, (warned_ms, text) in self._warnings.items()
            if text and now_unix_ms - warned_ms < WARN_WITHIN_MS
        ]
        for trip, _ in pending:
            self._warnings[trip] = now_unix_ms, ""
        return " ".join(text for _, text in pending)[: bounds.MAX_REASON_CHARS]

    async def refresh(self) -> None:
        """Read on from where this feed stands. Raises BusError.

        Callers that come while one reads share the next reading, which sees all that was stored before they came.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._read_next())
            self._next.add_done_callback(_retrieve_error)
        await asyncio.shield(self._next)

    async def _read_next(self) -> None:
        async with self._reading:
            self._next = None
            while batch := await self._bus.read(INBOX, self._filter, after=self.sequence, limit=READ_BATCH):
                for stored in batch:
                    if stored.sequence <= self.sequence:
                        continue  # It was delivered meanwhile.
                    self.sequence = stored.sequence
                    self._note_stored_message(stored)
                    if (message := _parse_stored(stored)) is not None:
                        self._apply_message(message)
                self.wake_waiters()
                if len(batch) < READ_BATCH:
                    return

    def _note_stored_message(self, stored: StoredMessage) -> None:
        """A message goes by, whether it can be read or not."""

    async def read_up_to(self, sequence: int) -> bool:
        """Read on until this message is known; False when the follower that answers lags. Raises BusError."""
        for pause_s in LAG_S:
            if self.sequence >= sequence:
                return True
            await self.refresh()
            if self.sequence < sequence:
                await asyncio.sleep(pause_s)
        return self.sequence >= sequence

    async def take_delivery(self, message: ReceivedMessage) -> bool:
        """Apply a message of the inbox as it is delivered, and read what may lie before it. False: see `read_up_to`.
        Raises BusError."""
        is_whole, self.epoch = self.epoch == message.epoch and message.attempts == 1, -1
        if is_whole and self.sequence < message.sequence:
            self.sequence = message.sequence
            self._apply_message(message)
            self.wake_waiters()
        if not await self.read_up_to(message.sequence):
            return False
        # Later ones may have been served before a repeat.
        self.epoch = message.epoch if message.attempts == 1 else -1
        return True

    async def model_reply_of(self, call_id: str) -> ModelCallReplied:
        """The reply to a model call that has one. Raises BusError, LookupError."""
        reply = await self.reply_of(call_id)
        if not isinstance(reply, ModelCallReplied):
            raise LookupError(f"call {call_id} is one of a tool")
        return reply

    async def reply_of(self, call_id: str) -> Reply:
        """The reply to a call that has one. Raises BusError, LookupError."""
        cached = self._replies.get_refreshed(call_id)
        if cached is not None:
            return cached
        stored = await self._bus.read(INBOX, self._filter, after=self.calls[call_id].sequence - 1, limit=1)
        message = _parse_stored(stored[0]) if stored else None
        if message is None or not isinstance(message.body, Reply) or message.body.call_id != call_id:
            raise LookupError(f"the reply to call {call_id} is not there any more")
        self._replies[call_id] = message.body
        return message.body

    def _apply_message(self, message: ReceivedMessage) -> None:
        body = message.body
        self.last_unix_ms = message.time_unix_ms
        match body:
            case StepAssigned():
                if self.assigned is not None and message.envelope.id != self.cause:
                    self._reset_fold()  # The run that had this id before was purged.
                    self.last_unix_ms = message.time_unix_ms
                head = message.envelope
                self.assigned, self.rejected, self.queued = body, None, None
                self.cause, self.actor, self.traceparent, self.grant = head.id, head.actor, head.traceparent, head.grant
                self.deadline_unix_ms, self.opened_unix_ms = body.deadline_unix_ms, message.time_unix_ms
            case StepExtended():
                self.deadline_unix_ms, self.grant = body.deadline_unix_ms, message.envelope.grant
            case TaskQueued():
                self.queued = body
            case PlaceGranted():
                self.queued, self.granted_sequence = None, message.sequence
            case TaskRejected():
                self.rejected = body
            case TaskEnded():
                self.ended = body
            case ModelCallReplied():
                self._record_call_state(message, "replied", body.call_id, body.usage)
                self._replies[body.call_id] = body
                if body.outcome == "answered" and (self.last_answer is None or not _is_vectors(body)):
                    self.last_answer = body
                self._set_hold(message, None)
            case ToolCallReplied() | RetrievalReplied():
                self._record_call_state(message, "replied", body.call_id, body.usage)
                self._replies[body.call_id] = body
                if body.outcome in ("succeeded", "found"):
                    self.last_tool_reply = body
                elif body.outcome == "uncertain":
                    self.uncertain[body.call_id] = body.call_id
                if isinstance(body, ToolCallReplied) and body.resolution is not None:
                    self._apply_resolution(body.call_id, body.resolution)
                else:
                    self._set_hold(message, None)
            case WriteNoted(alias=alias) if alias:
                self.aliases[alias] = body.call_id
            case WriteNoted(heard=heard):
                if heard:
                    self.unheard.pop(body.call_id, None)
                else:
                    self.unheard[body.call_id] = None
            case AgentWarned():
                text = f"{body.what.rstrip('.')}. What to do: {body.hint}".strip()
                self._warnings.setdefault(body.trip, (message.time_unix_ms, text))
            case CallDeferred():
                self._record_call_state(message, "deferred", body.call_id, body.usage, body)
                if body.paused:
                    self._set_hold(message, body)
            case CallResumed():
                self._record_call_state(message, "resumed", body.call_id, Usage())
                self._set_hold(message, None)
            case _:
                pass

    def _apply_resolution(self, call_id: str, resolution: WriteResolution) -> None:
        """A person's word on a write: it is in doubt no more, and what was not made may be made."""
        for alike in [alike for alike, doubtful_id in self.uncertain.items() if doubtful_id == call_id]:
            del self.uncertain[alike]
        if not resolution.happened:
            self.unheard.pop(call_id, None)

    def _record_call_state(
        self,
        message: ReceivedMessage,
        kind: Literal["replied", "deferred", "resumed"],
        call_id: str,
        usage: Usage,
        deferred: CallDeferred | None = None,
    ) -> None:
        """Record the newest message about a call; one that is stored twice is counted once."""
        before, head = self.calls.get(call_id), message.envelope
        ids = before.ids if before is not None else ()
        if head.id in ids:
            return
        self.usage = self.usage + usage
        held_for = deferred.code if deferred is not None else before.held_for if before is not None else ""
        ids = (*ids, head.id)[-8:]
        outcome = CallState(kind, message.sequence, head.id, message.time_unix_ms, ids, deferred, held_for)
        self.calls[call_id] = outcome

    def _set_hold(self, message: ReceivedMessage, held: CallDeferred | None) -> None:
        if (self.held is None) != (held is None):
            self._changes[message.sequence] = held
        self.held = held

    @contextmanager
    def being_watched(self) -> Iterator[None]:
        """While somebody waits, the feed is read again at every poke and at an interval."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    def has_reply(self, call_id: str) -> bool:
        """True when the answer to this call, or its failure, is on record."""
        return (call_state := self.calls.get(call_id)) is not None and call_state.kind == "replied"

    def may_be_under_way(self, call_id: str) -> bool:
        """True when a call that was sent has neither an answer nor the word that it was put off."""
        return (call_state := self.calls.get(call_id)) is None or call_state.kind == "resumed"

    def wake_waiters(self) -> None:
        """Wake whoever waits."""
        self.version += 1
        self._wake.set()
        self._wake = asyncio.Event()

    async def wait_for_change(self, seen: int, timeout_s: float) -> None:
        """Wait until `version` is no longer `seen`, for so long at most."""
        if self.version == seen:
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, timeout_s))
            except TimeoutError:
                pass


def _is_vectors(body: ModelCallReplied) -> bool:
    return body.content is not None and body.content.media_type == EMBEDDINGS


def _retrieve_error(task: asyncio.Task[None]) -> None:
    """Fetch the error: all who asked for the reading may have gone."""
    if not task.cancelled():
        task.exception()


def _parse_stored(stored: StoredMessage) -> ReceivedMessage | None:
    try:
        return inbound.read_message(stored, SERVICE)
    except Unreadable as error:
        log.debug("unreadable_in_feed", sequence=stored.sequence, code=error.code)
        return None


class RunFeeds:
    """The feeds of this replica: the `recent` ones, and those that somebody holds; one object for each run."""

    def __init__(self, bus: Bus, *, recent: int, reread_s: float) -> None:
        self._bus, self._reread_s = bus, reread_s
        self._recent = BoundedDict[FeedKey, RunFeed](recent)
        self._held = WeakValueDictionary[FeedKey, RunFeed]()
        self._rereading: dict[FeedKey, asyncio.Task[None]] = {}

    def run_feed(self, tenant: str, task: str) -> RunFeed:
        """The feed of a run, perhaps empty: call `refresh` before believing it."""
        return self.get_or_create((tenant, task), lambda: RunFeed(self._bus, tenant, task))

    def get_or_create(self, key: FeedKey, make: Callable[[], F]) -> F:
        """The feed of this key; made where there is none."""
        feed = self._held.get(key)
        if feed is None:
            feed = self._held[key] = make()
        self._recent[key] = feed
        return cast(F, feed)

    async def wait_until(self, feed: RunFeed, there: Callable[[], bool], most_s: float) -> bool:
        """Wait until something is there; False when it is not after so long. Raises BusError."""
        until = asyncio.get_running_loop().time() + most_s
        with feed.being_watched():
            await feed.refresh()
            while not there():
                left_s, version = until - asyncio.get_running_loop().time(), feed.version
                if left_s <= 0:
                    return False
                await feed.wait_for_change(version, left_s)
        return True

    def poke_feed(self, key: FeedKey, sequence: int) -> None:
        """A message for this feed was stored at `sequence`: whoever waits is to see it."""
        feed = self._held.get(key)
        if feed is None:
            return
        feed.stored_sequence = max(feed.stored_sequence, sequence)
        if feed.watchers and key not in self._rereading and feed.sequence < feed.stored_sequence:
            self._rereading[key] = asyncio.create_task(self._reread_feed(key, feed))

    async def _reread_feed(self, key: FeedKey, feed: RunFeed) -> None:
        try:
            # What is wanted may grow meanwhile, and a poke that comes then starts no second reading.
            while feed.watchers and feed.sequence < (target := feed.stored_sequence):
                if not await feed.read_up_to(target):
                    return  # The interval catches what this does not.
        except BusError as error:
            log.warning("reread_failed", task=feed.task, reason=str(error))
        finally:
            del self._rereading[key]

    async def run(self) -> None:
        """Read every watched feed again each `reread_s`, in case a poke was lost; until cancelled."""
        while True:
            await asyncio.sleep(self._reread_s)
            watched = [feed for feed in self._held.values() if feed.watchers]
            for failed in await asyncio.gather(*(feed.refresh() for feed in watched), return_exceptions=True):
                if isinstance(failed, BaseException) and not isinstance(failed, BusError):
                    raise failed

    def __len__(self) -> int:
        return len(self._held)
