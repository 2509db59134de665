"""Construction of the Redis ledger from the facts in the streams, exactly; and proof that it is still that one.

In: `Reserved` facts (INBOX_JOURNAL), `Settled` messages (INBOX_BUDGET) and those in replies (the askers' inboxes). Out:
an epoch in Redis that admissions may use, and how far replies have been read into it. One replica rebuilds at a time;
the others take over what it built.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from bulkhead.bus.port import Bus, BusError, BusUnavailable, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import LedgerMarked, Reserved, Settled
from bulkhead_contracts.task import TaskStopped
from bulkhead_services.budget.ledger import facts, model
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.checkpoint import (
    JOURNAL,
    JOURNAL_INBOX,
    MARKS,
    SETTLED_INBOX,
    FoldedLedger,
    add_settled_names,
    newest_checkpoint,
    prune_ledger,
)
from bulkhead_services.budget.ledger.model import LedgerState
from bulkhead_services.budget.ledger.replies import EDGES, read_settlements, reply_ends
from bulkhead_services.budget.ledger.store import REBUILD_REST_S, LedgerStore, RedisFailure, RedisRefuses, UnsafeRedis

log = Log("budget.ledger")

MONEY_TYPE_PREFIX = "mesh.ledger."
"""How a type that only a later budget has is called if it changes the ledger: without it this one builds none."""
FOLDED_TYPES = frozenset({LedgerMarked.TYPE, Reserved.TYPE, Settled.TYPE, TaskStopped.TYPE})
"""A later version of these does, too. Every other fact tells of something else: the version before leaves it out."""
MAX_EMPTY_READS = 200
PAGE = 256
LOCK_MS = 3_000
"""A replica that dies while it rebuilds holds the others up for so long; one that lives says so three times in it."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.05, 2.0
UNKNOWN = -1
RECENT_MS = 60_000
"""Where nobody knows which replies were applied, those that came so lately are applied again."""


OnPage = Callable[[], Awaitable[None]]
"""Called after every page; raises to stop."""


class RebuildLockLost(Exception):
    """Another replica took over the rebuild."""


class LedgerKeeper:
    """Builds the ledger, and builds it anew when it was lost."""

    def __init__(
        self,
        bus: Bus,
        publisher: Publisher,
        store: LedgerStore,
        clock: Callable[[], int],
        *,
        lease_ms: int,
        keep_ms: int,
        rebuild_at_start: bool,
        tail_grace_s: float,
    ) -> None:
        self._bus = bus
        self._publisher = publisher
        self._store = store
        self._clock = clock
        self._lease_ms, self._keep_ms = lease_ms, keep_ms
        self._tail_grace_s = tail_grace_s
        self._must_rebuild = rebuild_at_start
        self._check_requested = asyncio.Event()
        self._built = asyncio.Event()
        self.epoch = ""
        """What every use of the ledger must name; "" means wait."""
        self._task: asyncio.Task[None] | None = None
        self.rebuilds = 0
        self.applied: dict[str, int] = {}
        """How far this replica has applied the replies of each edge, in whatever ledger."""
        self.reason = "the ledger is being built"
        store.on_server_change(lambda: self.mark_lost("another Redis answers"))

    def start(self, background: BackgroundTasks) -> None:
        """Begin; returns at once."""
        self._check_requested.set()
        self._task = background.start("keeper of the ledger", self._keep_ledger())

    async def stop(self) -> None:
        """End; the ledger in Redis stays."""
        if self._task is not None:
            await cancel_tasks(self._task)

    def mark_lost(self, reason: str) -> None:
        """The ledger cannot be relied on: nothing is admitted until it has been verified or rebuilt."""
        if self._built.is_set():
            log.warning("ledger_lost", reason=reason)
            self._built.clear()
            self.epoch = ""
        self.reason = reason
        self._check_requested.set()

    def require_rebuild(self, reason: str) -> None:
        """The ledger that stands must not be used again, although its server has forgotten nothing."""
        self._must_rebuild = True
        self.mark_lost(reason)

    async def wait_until_built(self) -> None:
        """Until there is a ledger."""
        await self._built.wait()

    async def _keep_ledger(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            await self._check_requested.wait()
            self._check_requested.clear()
            problem = await self._try_ensure_ledger()
            if problem:
                self.reason = problem
                log.warning("ledger_unavailable", reason=problem, retry_s=backoff_s)
                self._check_requested.set()
                await asyncio.sleep(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
            elif not self._check_requested.is_set():
                # Calls that failed on the old connections may have asked for one more look meanwhile.
                self.epoch = self._store.epoch
                self._built.set()
                backoff_s = FIRST_BACKOFF_S
                await self._delete_dead_ledgers()

    async def _try_ensure_ledger(self) -> str:
        """Make sure that there is a ledger; why not, or "" when there is."""
        try:
            return "" if await self._ensure_ledger() else "another replica builds the ledger"
        except RedisRefuses as error:
            return f"Redis does not do what it is asked ({error}); look whether its disk or memory is full"
        except RedisFailure as error:
            return f"Redis does not answer ({error}); start it, or set BULKHEAD_REDIS_URL"
        except (BusError, UnsafeRedis, Unreadable, RebuildLockLost) as error:
            return str(error)

    async def _delete_dead_ledgers(self) -> None:
        try:
            await self._store.delete_dead_ledgers()
        except RedisFailure as error:
            log.debug("old_ledger_left", reason=str(error))  # Its keys expire by themselves.

    async def _ensure_ledger(self) -> bool:
        """Take the ledger that stands, or build it. False: another replica is building.

        A ledger built in this very server process (same run id) has forgotten nothing, however often the
        connection broke; on any other server it is rebuilt.
        """
        server = await self._store.connect()
        standing = await self._store.current_epoch(server)
        if standing and not self._must_rebuild:
            self._store.adopt_epoch(standing)
            log.info("ledger_taken", epoch=standing[:8])
            return True
        token = uuid.uuid4().hex
        # Read before the lock is taken: see _publish_marks.
        last_mark = await self._bus.last(JOURNAL_INBOX, subjects.mesh_subject("budget", JOURNAL, MARKS, MARKS))
        # From here on a ledger that another replica builds is fresh enough.
        self._must_rebuild = False
        if not await self._store.lock_rebuild(token, LOCK_MS):
            return False
        alive = asyncio.create_task(self._hold_lock(token))
        try:
            await self._rebuild_ledger(token, server, last_mark.sequence if last_mark is not None else 0)
        except BaseException:
            # The lock ends by itself; a failure here must hide neither what went wrong nor that this is to stop.
            with suppress(*RedisFailure):
                await asyncio.shield(self._store.unlock_rebuild(token))
            raise
        finally:
            await cancel_tasks(alive)
        return True

    async def _hold_lock(self, token: str) -> None:
        """Keep the lock while a read or a publish takes long; who lost it is told by `go_on`."""
        while True:
            await asyncio.sleep(LOCK_MS / 3_000)
            with suppress(*RedisFailure):
                await self._store.keep_rebuild_lock(token, LOCK_MS)

    async def _publish_marks(self, token: str, last_mark_sequence: int) -> tuple[int, int]:
        """Whatever was admitted or settled in the ledger before stands in front of these marks: its writers are fenced.

        last_mark_sequence: the last mark that was there before the lock was taken. A mark that comes late, when its
        writer has lost
        the lock and another rebuild has marked, is refused: facts of the ledger that stands would count as too late.
        """
        last_fact, last_settled = [
            (
                await self._publisher.send(
                    inbox,
                    LedgerMarked(epoch=token),
                    tenant=MARKS,
                    task=MARKS,
                    cause=token,
                    index=inbox,
                    expect_last_on_subject=expected,
                )
            ).sequence
            for inbox, expected in ((JOURNAL, last_mark_sequence), ("budget", None))
        ]
        return last_fact, last_settled

    async def _rebuild_ledger(self, token: str, server: str, last_mark_sequence: int) -> None:
        started_ms = self._clock()

        async def keep_lock() -> None:
            if not await self._store.keep_rebuild_lock(token, LOCK_MS):
                raise RebuildLockLost("another replica took over the rebuild of the ledger")

        if last_mark_sequence:
            # Nobody was admitted before the first rebuild of all.
            await asyncio.sleep(REBUILD_REST_S)
        last_fact, last_settled = await self._publish_marks(token, last_mark_sequence)
        start = await newest_checkpoint(self._bus, self._lease_ms, last_fact, last_settled)
        ends, checkpointed = await reply_ends(self._bus), dict(start.ledger.reply_positions)
        facts, settlements, replies = await self.fold_inboxes(start, last_fact, last_settled, ends, keep_lock)
        ledger, now_unix_ms = start.ledger, start.ledger.folded_unix_ms
        positions = await self._reader_starts(checkpointed, ledger.reply_positions)
        prune_ledger(ledger, now_unix_ms, self._keep_ms)
        add_settled_names(ledger)
        await self._store.write_ledger(token, ledger, now_unix_ms - self._keep_ms, keep_lock)
        if not await self._store.activate_ledger(token, server, positions):
            raise RebuildLockLost("another replica took over the rebuild of the ledger")
        self.rebuilds += 1
        log.info(
            "ledger_rebuilt",
            epoch=token[:8],
            facts=facts,
            settlements=settlements + replies,
            checkpoint_at=start.at_unix_ms,
            took_ms=self._clock() - started_ms,
        )

    async def _reader_starts(self, checkpointed: Mapping[str, int], folded: Mapping[str, int]) -> dict[str, int]:
        """Starts of the reader of settlements in the new ledger, by edge. Raises BusError, RedisFailure.

        Not behind what was folded: what came later, or whoever answered did not have yet, is read. Not behind what was
        applied: what is folded is charged, and neither alerts nor halts anybody. Not before the checkpoint: what lies
        there the ledger would take for new.
        """
        applied, starts = await self._store.reply_positions(), dict[str, int]()
        for edge in EDGES:
            end = folded[edge.name]
            start = max(applied.get(edge.name, UNKNOWN), self.applied.get(edge.name, UNKNOWN))
            if start == UNKNOWN:
                start = await last_before(self._bus, edge.stream, edge.subject, self._clock() - RECENT_MS, end)
            starts[edge.name] = min(end, max(start, checkpointed.get(edge.name, 0)))
        return starts

    async def fold_inboxes(
        self, start: FoldedLedger, last_fact: int, last_settled: int, reply_ends: Mapping[str, int], on_page: OnPage
    ) -> tuple[int, int, int]:
        """Both inboxes and the replies from where a ledger stands up to these sequences; how many messages of each
        inbox, and settlements in replies. Raises BusUnavailable."""
        ledger, facts, end = start.ledger, f"mesh.budget.{JOURNAL}.>", last_settled
        return (
            await self._fold_stream(ledger, JOURNAL_INBOX, facts, start.journal_sequence, last_fact, on_page),
            await self._fold_stream(ledger, SETTLED_INBOX, "mesh.*.budget.>", start.budget_sequence, end, on_page),
            await self._fold_replies(ledger, reply_ends, on_page),
        )

    async def _fold_replies(self, ledger: LedgerState, ends: Mapping[str, int], on_page: OnPage) -> int:
        """Read each edge as far as whoever answers has it. Raises BusError."""
        count = 0
        for edge in EDGES:
            position, has_next = ledger.reply_positions.get(edge.name, 0), True
            while has_next:
                settlements, position, has_next = await read_settlements(self._bus, edge, position, ends[edge.name])
                for settlement in settlements:
                    _fold_fact(ledger, settlement)
                count += len(settlements)
                await on_page()
            ledger.reply_positions[edge.name] = position
        return count

    async def _fold_stream(
        self, ledger: LedgerState, stream: str, subject: str, after: int, last: int, on_page: OnPage
    ) -> int:
        """Read up to the sequence `last`, however far the follower that answers lies behind. Raises BusUnavailable."""
        count, empty = 0, 0
        while after < last:
            page = await self._bus.read(stream, subject, after=after, limit=PAGE)
            for stored in page:
                if stored.sequence <= last:
                    fold_stored(ledger, stored)
            if page:
                after, count, empty = page[-1].sequence, count + len(page), 0
            elif empty < MAX_EMPTY_READS:
                empty += 1
                await asyncio.sleep(self._tail_grace_s)
            else:
                raise BusUnavailable(f"{stream} cannot be read up to {last}: what answers is at {after}")
            await on_page()
        return count


def fold_stored(ledger: LedgerState, stored: StoredMessage) -> None:
    """One stored message into the ledger. Raises Unreadable for what only a newer budget can read."""
    receiver = stored.subject.split(".")[2]
    if receiver == JOURNAL:
        ledger.folded_unix_ms = stored.time_unix_ms
    try:
        message = inbound.read_message(stored, receiver)
    except Unreadable as error:
        if error.later and not moves_money(stored):
            log.debug("later_fact_left_out", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
            return
        if error.later:
            reason = f"{error.reason}; a ledger without it would be wrong: start the newer version of budget"
            raise Unreadable(error.code, reason, later=True) from error
        # The inbox shell makes a dead letter of it too; nothing that was admitted looks like this.
        log.error("fact_unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
        return
    fold_message(ledger, message)


def moves_money(stored: StoredMessage) -> bool:
    """True when the type of a message that cannot be read here says that a ledger without it would be wrong."""
    kind = next((value for key, value in stored.headers.items() if key.lower() == "ce-type"), "")
    return kind.startswith(MONEY_TYPE_PREFIX) or kind.rpartition(".v")[0] in FOLDED_TYPES


def fold_message(ledger: LedgerState, message: ReceivedMessage) -> None:
    """A fact, several told together, or a settlement; everything else changes nothing."""
    unpack = packed_facts.unpack_settlements if isinstance(message.body, Settled) else packed_facts.unpack_facts
    for fact in unpack(message):
        _fold_fact(ledger, fact)


def _fold_fact(ledger: LedgerState, message: ReceivedMessage) -> None:
    body = message.body
    if isinstance(body, LedgerMarked) and (message.receiver, message.tenant) == (JOURNAL, MARKS):
        model.apply_rebuild_mark(ledger, body.epoch)
    elif isinstance(body, Reserved):
        if facts.written_under(message.envelope.cause) in ledger.fenced_epochs:
            # It came too late: its writer was fenced before the mark, and found so before it could answer. What it held
            # may be held by others now.
            return
        key = model.entry_key(body.service, message.tenant, message.task, body.reservation_id)
        scopes = model.scopes_from((*body.scopes, *body.more_scopes))
        model.restore(ledger, key, model.sum_of(body.amount), scopes, body.reserved_unix_ms)
    elif isinstance(body, Settled):
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        model.charge_call(
            ledger, key, model.sum_of_usage(body.usage, body.wall_ms), body.estimated, message.time_unix_ms
        )
    elif isinstance(body, TaskStopped):
        model.stop_scope(ledger, task_scope(message.tenant, message.task))
