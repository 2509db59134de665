"""One call of a run, from this replica's view: the state machine that the model door and the tool door share.

In: the feed of the call's run. Out: its request, the same message from every replica; the answer from the record, or a
DoorRefusal. Every wait is bounded: by the call's own time, and by `hold_s` where a halt, a ceiling, a breaker, a person
who must approve it or a part of the mesh that is away puts it off. A call goes on to its end, even if nobody waits.

| phase    | when                                             | then                                  |
| -------- | ------------------------------------------------ | ------------------------------------- |
| NEW      | nothing about it is on record                    | RUNNING: the request is sent          |
| NEW      | it was put off, or failed and may be repeated    | RUNNING: the request is sent again    |
| NEW      | a reply is on record                             | RUNNING: nothing is sent              |
| NEW      | the broker does not store the request            | ENDED: refused                        |
| RUNNING  | its reply is on record                           | ENDED: answered, or refused           |
| RUNNING  | `CallDeferred`                                   | DEFERRED                              |
| DEFERRED | `CallResumed`, or the deferral's time is over    | RUNNING: the request is sent again    |
| DEFERRED | `hold_s` is over, or nobody follows it           | ENDED: refused                        |
| any      | its time is over, its run or this replica ends   | ENDED: refused                        |
"""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Generic, TypeVar

from bulkhead.bus.port import BusError
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.context import Context
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.retrieval import RetrievalRequested
from bulkhead_contracts.task import RequesterClaim, TaskEnded
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import CallState, RunFeed
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings

STORE_WAIT_S = 15.0
"""So long the broker may take to store a call."""
HALF_CHARS = 24
"""Characters of each half of a call's id: what it asks for, and the client's own id of the request."""
CallKey = tuple[str, str, str]
"""Tenant, task, call."""
RequestT = TypeVar("RequestT", bound=ModelCallRequested | ToolCallRequested | RetrievalRequested)
AnswerT = TypeVar("AnswerT")
CallT = TypeVar("CallT", bound="RunCall[Any, Any]")


class Phase(Enum):
    """Phase of a call at this replica."""

    NEW = auto()
    RUNNING = auto()
    DEFERRED = auto()
    ENDED = auto()


class RunCall(ABC, Generic[RequestT, AnswerT]):
    """A call. service: to which its request goes. outcome: its end, for all who wait for it. abandoned: nobody follows
    it at any replica. not_stored: reason of its refusal where the broker was too slow."""

    abandoned = False
    not_stored = "the message broker has not stored the call in time"

    def __init__(self, context: Context, settings: Settings, feed: RunFeed, request: RequestT, service: str) -> None:
        self._context, self._settings, self.feed = context, settings, feed
        self.request, self._service = request, service
        self.phase = Phase.NEW
        loop = asyncio.get_running_loop()
        self._stored: asyncio.Future[None] = loop.create_future()
        self.outcome: asyncio.Future[AnswerT] = loop.create_future()
        self.was_sent = False
        """Whether the mesh may have it from here."""
        self._heeded = 0
        """Sequence of the newest message about it that was heeded."""
        self._deferrals = 0
        self._overdue_s = 0.0
        """Time of the loop at which it ends without an answer."""

    @property
    def call_id(self) -> str:
        """Its id; the same for the same request."""
        return self.request.call_id

    # The way of a call

    async def run_to_end(self) -> AnswerT:
        """Send the call where that is needed, and see it to its end. Raises DoorRefusal."""
        feed = self.feed
        try:
            with feed.being_watched():
                call_state = feed.calls.get(self.call_id)
                if call_state is None:
                    await self._prepare_first_request()
                    await self._send_request(feed.cause, "call")
                elif call_state.kind != "replied" or (feed.is_open and await self._may_repeat(call_state)):
                    self._heeded = call_state.sequence
                    await self._send_request(call_state.message_id, "again")
                self.phase = Phase.RUNNING
                self._stored.set_result(None)
                return await self._wait_for_reply()
        except BusError as error:
            raise self._refuse_broker_failure(f"the message broker does not answer: {error}") from error

    async def _wait_for_reply(self) -> AnswerT:
        """Wait for its reply and read it; send it again where it was put off. Raises DoorRefusal, BusError."""
        loop, feed, cause = asyncio.get_running_loop(), self.feed, ""
        deferral: CallDeferred | None = None
        self._overdue_s = patience_s = resend_s = loop.time() + self._answer_wait_s()
        while True:
            version, now_s = feed.version, loop.time()
            call_state = feed.calls.get(self.call_id)
            if call_state is not None and call_state.sequence > self._heeded:
                self._heeded, cause = call_state.sequence, call_state.message_id
                if call_state.kind == "replied":
                    return await self._read_answer(call_state)
                if call_state.deferred is not None:
                    if self.phase is Phase.RUNNING:  # It counts from the first time.
                        patience_s = min(patience_s, now_s + self._settings.hold_s)
                    deferral, self._deferrals = call_state.deferred, self._deferrals + 1
                    self.phase, resend_s = Phase.DEFERRED, now_s + self._resend_delay_ms(deferral) / 1000
                else:
                    resend_s = now_s  # It may go on.
            elif feed.ended is not None:
                self._heed_run_end(feed.ended, now_s)
            if now_s >= self._overdue_s:
                if self.phase is Phase.DEFERRED and deferral is not None:
                    raise self._refuse_deferral(deferral)  # It is not made: its asker learns what it waits for.
                raise self._refuse_overdue()
            next_s = self._overdue_s
            if self.phase is Phase.DEFERRED and deferral is not None:
                if now_s >= patience_s:
                    raise self._refuse_deferral(deferral)
                if self.abandoned:
                    raise refusals.call_abandoned()
                if now_s >= resend_s:
                    self._renew_request()
                    await self._send_request(cause, "again")
                    self.phase = Phase.RUNNING
                    continue
                next_s = min(self._overdue_s, patience_s, resend_s)
            await feed.wait_for_change(version, next_s - now_s)

    async def _send_request(self, cause: str, index: str) -> None:
        """Send it under its run's grant. Raises DoorRefusal when it is not known to be stored, BusError."""
        feed, self.was_sent = self.feed, True
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await self._context.publisher.send(
                    self._service,
                    self.request,
                    tenant=feed.tenant,
                    task=feed.task,
                    cause=cause,
                    index=f"{index}/{self.call_id}",
                    actor=feed.actor,
                    grant=feed.grant,
                    traceparent=feed.traceparent,
                )
        except TimeoutError as error:
            raise self._refuse_broker_failure(self.not_stored) from error

    def end_call(self, work: "asyncio.Task[AnswerT]") -> None:
        """End the call, and tell all who wait. work: that of `run_to_end`, cancelled where this replica goes away."""
        self.phase = Phase.ENDED
        if work.cancelled():
            self.outcome.set_exception(refusals.mesh_unavailable("this replica goes away", retry_after_s=1.0))
        elif (error := work.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(work.result())
        self.outcome.exception()  # Fetched: all who waited for it may have gone.

    async def wait_until_stored(self) -> None:
        """Wait until the mesh has it. Raises DoorRefusal when it ends before."""
        ends: set[asyncio.Future[Any]] = {self._stored, self.outcome}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self._stored.done():
            await asyncio.shield(self.outcome)

    # What a call of a model and one of a tool do not have in common

    async def _prepare_first_request(self) -> None:
        """Make ready a request that is sent for the first time. Raises BusError."""

    async def _may_repeat(self, call_state: CallState) -> bool:
        """True when its asker was told to send it again after its recorded outcome. Raises BusError."""
        return False

    def _renew_request(self) -> None:
        """Give the request that is sent again the time for which it was put off."""

    def _resend_delay_ms(self, deferral: CallDeferred) -> int:
        """Time after which a call that is put off is sent again. Raises DoorRefusal when it cannot go on."""
        return deferral.after_ms

    @abstractmethod
    def _answer_wait_s(self) -> float:
        """Time for which the answer is waited for."""

    @abstractmethod
    async def _read_answer(self, call_state: CallState) -> AnswerT:
        """The answer on record. Raises DoorRefusal, BusError."""

    @abstractmethod
    def _heed_run_end(self, ended: TaskEnded, now_s: float) -> None:
        """Heed the end of its run before a reply. Raises DoorRefusal when none comes."""

    @abstractmethod
    def _refuse_overdue(self) -> DoorRefusal:
        """Refusal of a call without a reply whose time is over."""

    @abstractmethod
    def _refuse_deferral(self, deferral: CallDeferred) -> DoorRefusal:
        """Refusal of a call that was put off for longer than its asker waits."""

    @abstractmethod
    def _refuse_broker_failure(self, reason: str) -> DoorRefusal:
        """Refusal where the broker does not answer."""


class CallsInFlight(Generic[CallT]):
    """The calls of one door that are in flight at this replica; each has one of its `places` from its start to its
    end."""

    def __init__(self, places: CallPlaces) -> None:
        self._places = places
        self._calls: dict[CallKey, CallT] = {}
        self._calls_by_run = Counter[tuple[str, ...]]()
        self._work: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """Number of calls in flight."""
        return len(self._calls)

    def check_place(self, claim: RequesterClaim) -> None:
        """Judge whether another call may be in flight; calls whose askers have gone away count, too. Raises
        DoorRefusal.
        """
        self._places.check_place(claim)

    def start_call(self, call: CallT, claim: RequesterClaim) -> None:
        """Start a call, in this caller's share."""
        key = (call.feed.tenant, call.feed.task, call.call_id)
        self._calls[key] = call
        self._calls_by_run[key[:2]] += 1
        work = asyncio.create_task(call.run_to_end())
        self._work.add(work)
        work.add_done_callback(partial(self._on_work_done, key, self._places.hold_place(claim).close))

    def _on_work_done(self, key: CallKey, release: Callable[[], None], work: "asyncio.Task[Any]") -> None:
        self._work.discard(work)
        release()
        self._calls_by_run -= Counter([key[:2]])
        self._calls.pop(key).end_call(work)

    def find_call(self, tenant: str, task: str, call_id: str) -> CallT | None:
        """The call of this id that is in flight here; None for none."""
        return self._calls.get((tenant, task, call_id))

    def is_known_call(self, feed: RunFeed, call_id: str) -> bool:
        """True when a call of this id is on record, or in flight here."""
        return call_id in feed.calls or self.find_call(feed.tenant, feed.task, call_id) is not None

    def check_key(self, feed: RunFeed, call_id: str) -> None:
        """Refuse a key under which another call of this run was made: the second half of the id. Raises DoorRefusal."""
        in_flight = {known_id for *run, known_id in self._calls if run == [feed.tenant, feed.task]}
        known_ids = in_flight | set(feed.calls)
        if any(known_id.endswith(call_id[-HALF_CHARS:]) and known_id != call_id for known_id in known_ids):
            message = "another call was made under this idempotency key, of something else or with other contents"
            raise DoorRefusal(422, "idempotency_reused", message, "use a new key for a new call")

    def will_be_answered(self, feed: RunFeed, call_id: str) -> bool:
        """True when it needs no other message to be answered."""
        return feed.has_reply(call_id) or self.find_call(feed.tenant, feed.task, call_id) is not None

    def has_call_of(self, *run: str) -> bool:
        """True when a call of this run, or delegated step, is in flight here. run: its tenant and its task."""
        return run in self._calls_by_run

    async def cancel_calls(self) -> None:
        """End the waiting here: the calls go on, and their askers ask again, elsewhere."""
        await cancel_tasks(*self._work)


def half_id(text: str) -> str:
    """Half of a call's id, of what it derives from."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=HALF_CHARS // 2).hexdigest()
