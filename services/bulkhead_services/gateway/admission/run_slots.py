"""Places to run, decided over the inbox: every replica reads it, decides, and appends by compare and set.

In: tasks that ask for a place or give one back. Out: `PlacesGiven` in the gateway's own inbox. A decision is appended
only behind the last one that its decider has read: of two simultaneous ones the broker refuses one, whose replica reads
on and decides again. There is no owner, lease or lock; after a crash the message is delivered again.
"""

import asyncio
from typing import Literal

from bulkhead.bus.port import BusError, PubAck, StoredMessage, WrongLastSequence
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack, Unreadable
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.task import (
    Dropped,
    PlaceGranted,
    PlaceReturned,
    PlacesGiven,
    PlaceTaken,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
)
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.admission.run_queue import (
    Key,
    RunQueueState,
    RunQuotas,
    Standing,
    WaitingTask,
    decide_places,
    queued_notice,
    starts_at_once,
)
from bulkhead_services.gateway.read_model.feeds import INBOX, READ_BATCH

log = Log("gateway.admission")
TENANT = TASK = "places"
SUBJECT = subjects.mesh_subject("gateway", "gateway", TENANT, TASK)
INBOX_SUBJECTS = "mesh.*.gateway.>"
READ_TYPES = tuple(
    f"{kind.TYPE}.v"
    for kind in (
        PlacesGiven,
        TaskQueued,
        TaskReleased,
        TaskEnded,
        TaskRejected,
        MessageRejected,
        PlaceReturned,
        PlaceTaken,
    )
)
DropCode = Literal["cancelled", "queue_timeout"]
TRUSTED_SENDERS = ("gateway", "planner")
MAX_TRIES = 12
LOOK_AGAIN_S = 0.01
RETRY_S = 0.05


class RunSlotAdmission:
    """The queue as this replica has read it, and its part in the decisions."""

    def __init__(self, context: Context, quotas: TenantQuotas, running: int, look_s: float) -> None:
        self._context, self._tenants = context, quotas
        self.quotas = RunQuotas(quotas.quota_of, running)
        self._look_s = look_s
        self._lock = asyncio.Lock()
        self.state: RunQueueState | None = None

    async def request_place(self, message: ReceivedMessage, person: str) -> Standing:
        """A stored request asks for a place: `runs` (begin now), `waits` (it is told), `over`, or `unknown` when its
        tenant has as many waiting as may be. Raises HandBack, BusError.
        """
        quota = self._tenants.quota_of(message.tenant)
        until = self._context.clock() + quota.wait_s * 1_000
        newcomer = WaitingTask(message.tenant, message.task, person, message.sequence, 0, until)
        key: Key = (message.tenant, message.task)
        async with self._lock:
            for attempt in range(MAX_TRIES):
                # What comes first is not read for: if the state lags, a place is refused by the broker, and who waits
                # for nothing is released when its `TaskQueued` comes. A flood costs no reading so.
                first = attempt == 0 and message.attempts == 1 and self.state is not None
                state = self.state if first else await self._read_on(message.sequence, again=attempt > 0)
                assert state is not None
                if (standing := state.standing_of(key, message.sequence)) != "unknown":
                    # One that waited is begun by its `TaskReleased`, which comes to whoever.
                    return "waits" if standing == "runs" and state.place_of(key).queued else standing
                decision = decide_places(state, self.quotas, self._context.clock(), newcomer=newcomer)
                begins = decision is not None and starts_at_once(decision, newcomer)
                if not begins and state.count_waiting(message.tenant) >= quota.waiting:
                    return "unknown"
                if not begins:
                    notice = queued_notice(state, self.quotas, newcomer)
                    break
                assert decision is not None
                await self._append_decision(state, decision)
            else:
                raise HandBack(RETRY_S, "others decide about places at the same time")
        if message.sender == subjects.DOORS:
            await self._context.publisher.send("doors", notice, **message.cause_fields, index="queued/doors")
        await self._context.publisher.send("gateway", notice, **message.cause_fields, index="queued", actor=person)
        return "waits"

    async def fill_free_places(self, at_least: int = 0) -> None:
        """Give the free places to waiting tasks. Raises HandBack, BusError."""
        async with self._lock:
            for attempt in range(MAX_TRIES):
                state = await self._read_on(at_least, again=attempt > 0)
                decision = decide_places(state, self.quotas, self._context.clock())
                if decision is None or await self._append_decision(state, decision):
                    return
        raise HandBack(RETRY_S, "others decide about places at the same time")

    async def withdraw_task(self, message: ReceivedMessage, reason: str, code: DropCode = "cancelled") -> Standing:
        """The task that this message is about gives its waiting up: `over` when it waited and no longer does, else how
        it stands. Raises HandBack, BusError.
        """
        key: Key = (message.tenant, message.task)
        async with self._lock:
            for attempt in range(MAX_TRIES):
                state = await self._read_on(message.sequence, again=attempt > 0)
                waiting = state.waiting.get(key)
                if waiting is None or waiting.again:
                    return "runs" if key in state.running else "over" if key in state.past else "unknown"
                dropped = Dropped(
                    tenant=waiting.tenant, task=waiting.task, request=waiting.request, code=code, reason=reason
                )
                decision = decide_places(state, self.quotas, self._context.clock(), cancelled=dropped)
                assert decision is not None
                await self._append_decision(state, decision)
        raise HandBack(RETRY_S, "others decide about places at the same time")

    async def regain_place(self, message: ReceivedMessage) -> None:
        """A run that gave its place back wants one again: it is told where it waits, or that it has one already; what
        is decided about it is told by the decision. Raises HandBack, BusError.
        """
        key: Key = (message.tenant, message.task)
        async with self._lock:
            notice: Body | None = PlaceGranted() if key in (await self._read_on(message.sequence)).running else None
        if notice is None:
            await self.fill_free_places(message.sequence)
            async with self._lock:
                state = await self._read_on(message.sequence)
                waiting = state.waiting.get(key)
                notice = queued_notice(state, self.quotas, waiting) if waiting is not None else None
        if notice is not None:
            await self._context.publisher.send("doors", notice, **message.cause_fields, index="again/doors")

    async def read_current(self) -> RunQueueState:
        """The state, read up to the end of the inbox. Raises BusError."""
        async with self._lock:
            return await self._read_on(0)

    async def run(self) -> None:
        """Decide at intervals, until cancelled: a wait may be too long, quotas may have changed, a crash may have
        left work."""
        while True:
            try:
                self._tenants.reload_if_changed()
                await self.fill_free_places()
            except (BusError, HandBack) as error:
                log.debug("places_not_looked_at", reason=str(error))
            await asyncio.sleep(self._look_s)

    async def _append_decision(self, state: RunQueueState, decision: PlacesGiven) -> bool:
        """Append a decision; False when another came first. It counts when it is read, not now."""
        try:
            index = f"places/{state.last}/{self._context.instance}"
            ack: PubAck = await self._context.publisher.send(
                "gateway", decision, tenant=TENANT, task=TASK, index=index, expect_last_on_subject=state.last
            )
        except WrongLastSequence:
            newest = await self._context.bus.last(INBOX, SUBJECT)
            if newest is None:
                state.last = 0  # Purged after a long time in which nothing was decided.
            elif newest.sequence <= state.sequence:
                await asyncio.sleep(LOOK_AGAIN_S)  # A follower lags behind the leader that said no.
            return False
        await self._read_on(ack.sequence)
        return True

    async def _read_on(self, at_least: int, again: bool = False) -> RunQueueState:
        """Up to the end, or just the state if it has read so far already. Raises HandBack, BusError."""
        state = self.state if self.state is not None else await self._load_state()
        if at_least and state.sequence >= at_least and not again:
            return state
        while batch := await self._context.bus.read(INBOX, INBOX_SUBJECTS, after=state.sequence, limit=READ_BATCH):
            for stored in batch:
                _apply_stored(state, stored)
            if len(batch) < READ_BATCH:
                break
        if state.sequence < at_least:
            raise HandBack(RETRY_S, "the inbox cannot be read up to this message yet")
        return state

    async def _load_state(self) -> RunQueueState:
        """From the newest decision that tells who runs; whose messages are gone by now has ended and was purged."""
        newest = await self._context.bus.last(INBOX, SUBJECT)
        base = _decode_decision(newest)
        if base is not None and base.running is None:
            snapshots = await self._context.bus.read(INBOX, SUBJECT, after=base.snapshot - 1, limit=1)
            base = _decode_decision(snapshots[0]) if snapshots else None
        state = RunQueueState.from_snapshot(base if base is not None and base.running is not None else None)
        for key in list(state.running):
            if not await self._context.bus.read(INBOX, subjects.task_filter("gateway", *key), limit=1):
                state.forget_task(key)
        self.state = state
        return state


def _decode_decision(stored: StoredMessage | None) -> PlacesGiven | None:
    if stored is None:
        return None
    try:
        body = inbound.read_message(stored, "gateway").body
    except Unreadable as error:
        raise HandBack(RETRY_S, f"the last decision about places is for a newer gateway to read: {error}") from error
    assert isinstance(body, PlacesGiven)
    return body


def _apply_stored(state: RunQueueState, stored: StoredMessage) -> None:
    """One stored message: most tell nothing about places and are not read."""
    if stored.ce_type.startswith(READ_TYPES):
        try:
            received = inbound.read_message(stored, "gateway")
        except Unreadable as error:
            log.debug("unreadable_among_places", sequence=stored.sequence, code=error.code)
        else:
            of_run = isinstance(received.body, PlaceReturned | PlaceTaken) and subjects.is_of_doors(received.task)
            if received.sender in TRUSTED_SENDERS or (of_run and received.sender == subjects.DOORS):
                state.apply_fact(stored.sequence, (received.tenant, received.task), received.body)
    state.sequence = max(state.sequence, stored.sequence)
