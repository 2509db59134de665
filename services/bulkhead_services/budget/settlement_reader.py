"""The reader of settlements: charges what replies tell, where they lie.

In: replies of doers in the askers' inboxes, from the ledger's position of each edge on. Out: their settlements applied,
then the position moved: a reader that dies in between applies some again, which changes nothing. Until it is read a
settlement's reservation is held: a lag costs room and never money. One replica reads for all (a lease in Redis); any
reads at once where an admission finds no room.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.runtime import crash_points
from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.replies import EDGES, ReplyEdge, is_settling, read_settlements, reply_ends
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, RedisFailure
from bulkhead_services.budget.settlement import RETRY_S, SettlementHandler

log = Log("budget.settlements")

ROLE = "settlements"
LEASE_MS = 10_000
SWEEP_S = 5.0
"""What nobody was woken for is read so often."""
REST_S = 0.02
"""Calls that find no room ask again and again: they wake it together, and what comes meanwhile is read at once."""
EXPECTED_S = 60.0
"""Without a watcher to wake it, replies to a call are looked for so long after its admission, and then by the sweep."""
CHECK_S = 60.0
"""So often all edges are read to where they end then, and this is told to the ledger."""
MAX_BROKEN = 1_000


class SettlementReader:
    """One replica's reader. holder: names the replica in the lease. poll_s: without a watcher, the time between two
    looks for replies that are expected; 0 with one."""

    def __init__(
        self,
        bus: Bus,
        store: LedgerStore,
        keeper: LedgerKeeper,
        settlement: SettlementHandler,
        clock: Callable[[], int],
        *,
        holder: str,
        poll_s: float,
    ) -> None:
        self._bus, self._store, self._keeper, self._settlement, self._clock = bus, store, keeper, settlement, clock
        self._holder, self._poll_s = holder, poll_s
        self._woken = asyncio.Event()
        self._due: set[ReplyEdge] = set()
        self._needs_room = False
        self._expected_until_s: dict[str, float] = {}
        self._standby_until_s = 0.0
        self._check_due_s = 0.0
        self._broken = BoundedDict[str, None](MAX_BROKEN)
        """Settlements that a bug ended: each is tried once more and then left out; what it charged stays charged."""
        self._left_out = BoundedDict[str, None](MAX_BROKEN)
        self._task: asyncio.Task[None] | None = None

    def start(self, background: BackgroundTasks) -> None:
        """Begin; returns at once."""
        self._check_due_s = asyncio.get_running_loop().time() + CHECK_S
        self._task = background.keep_running("reader of settlements", self._read_continually, self._on_reader_broke)

    async def stop(self) -> None:
        """End, and let another replica read at once."""
        if self._task is not None:
            await cancel_tasks(self._task)
            with suppress(*RedisFailure):
                await self._store.resign_lead(ROLE, self._holder)

    def on_journal_message(self, stored: StoredMessage) -> None:
        """The watcher has met a message in the journal: its inbox has it, too."""
        if is_settling(stored) and asyncio.get_running_loop().time() >= self._standby_until_s:
            self._due.add(ReplyEdge(stored.sender, stored.receiver))
            self._woken.set()

    def on_admitted(self, doer: str) -> None:
        """A call begins: its reply will settle it."""
        if self._poll_s:
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._expected_until_s.get(doer, 0.0):
                self._woken.set()  # It may sleep for as long as nothing was expected.
            self._expected_until_s[doer] = now_s + EXPECTED_S

    def on_no_room(self) -> None:
        """An admission found no room: a settlement that is not read yet may hold some."""
        self._needs_room = True
        self._woken.set()

    async def read_all(self) -> bool:
        """Apply what lies in the inboxes now: nobody reserves time, so that a limit of it knows only what was read.
        False where that cannot be done."""
        try:
            return bool(await self._read_edges(EDGES))
        except (BusError, HandBack, Fenced, *RedisFailure) as error:
            log.warning("settlements_not_read", reason=str(error) or type(error).__name__)
            return False

    async def _read_continually(self) -> None:
        pause_s, epoch = 0.0, ""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            await asyncio.sleep(REST_S)
            self._woken.clear()
            await self._keeper.wait_until_built()
            if self._keeper.epoch != epoch:
                epoch = self._keeper.epoch
                self._due.update(EDGES)  # What was read for the ledger before may be due again.
            try:
                await self._read_due()
                pause_s = self._poll_s if self._expected_doers() else SWEEP_S
            except (BusError, HandBack) as error:
                pause_s, epoch = RETRY_S, ""
                log.warning("settlements_not_read", reason=str(error), retry_s=pause_s)
            except (Fenced, *RedisFailure) as error:
                pause_s, epoch = RETRY_S, ""
                self._keeper.mark_lost(str(error) or type(error).__name__)

    def _expected_doers(self) -> set[str]:
        now_s = asyncio.get_running_loop().time()
        return {doer for doer, until_s in self._expected_until_s.items() if until_s > now_s}

    async def _read_due(self) -> None:
        """Read the edges that somebody was woken for; without any those where replies are expected, or all of them.
        Raises BusError, HandBack, Fenced, RedisFailure."""
        needs_room, self._needs_room = self._needs_room, False
        due, self._due = self._due, set()
        expected, now_s = self._expected_doers(), asyncio.get_running_loop().time()
        checks = now_s >= self._check_due_s
        sweeps = needs_room or checks or not (due or expected)
        edges = [edge for edge in EDGES if sweeps or edge in due or edge.doer in expected]
        if not await self._store.take_lead(ROLE, self._holder, LEASE_MS):
            checks = False
            if not needs_room:
                self._standby_until_s = now_s + SWEEP_S
                return
        began_unix_ms, ends = self._clock(), await reply_ends(self._bus) if checks else {}
        positions = await self._read_edges(edges)
        if not checks or not positions:
            return
        self._check_due_s = now_s + CHECK_S
        await self._check_streams(positions)
        positions = await self._store.reply_positions()
        if all(positions.get(edge, 0) >= end for edge, end in ends.items()):
            await self._store.mark_replies_read(began_unix_ms)

    async def _read_edges(self, edges: Sequence[ReplyEdge]) -> Mapping[str, int]:
        """Read these edges; where they stood before. Raises BusError, HandBack, Fenced, RedisFailure."""
        # Fenced where no ledger stands: before one does there are no positions.
        await self._store.move_reply_position(EDGES[0].name, 0)
        positions = await self._store.reply_positions()
        if not positions:
            self._keeper.require_rebuild("the ledger does not tell how far replies were read")
            return positions
        for edge in edges:
            await self._read_edge(edge, positions.get(edge.name, 0))
        return positions

    async def _read_edge(self, edge: ReplyEdge, position: int) -> None:
        has_next = True
        while has_next:
            settlements, reached, has_next = await read_settlements(self._bus, edge, position)
            if settlements:
                await self._apply_settlements(settlements)
                crash_points.pass_point("after_charge")
            if reached > position:
                await self._store.move_reply_position(edge.name, reached)
                self._keeper.applied[edge.name] = position = reached

    async def _apply_settlements(self, settlements: Sequence[ReceivedMessage]) -> None:
        """All of them, together; a bug in one is raised when the others are done."""
        tried = [settlement for settlement in settlements if settlement.envelope.id not in self._left_out]
        outcomes = await asyncio.gather(*map(self._settlement.apply_settled, tried), return_exceptions=True)
        failures = [outcome for outcome in outcomes if outcome is not None]
        for settlement, outcome in zip(tried, outcomes, strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, HandBack):
                failed_before = settlement.envelope.id in self._broken
                (self._left_out if failed_before else self._broken)[settlement.envelope.id] = None
                log.error("settlement_broke", id=settlement.envelope.id, task=settlement.task, reason=repr(outcome))
        if failures:
            raise failures[0]

    async def _check_streams(self, positions: Mapping[str, int]) -> None:
        """A position behind the end of its inbox is of another one, which was lost: new replies lie below it."""
        for edge in EDGES:
            if positions.get(edge.name, 0) > await self._bus.last_sequence(edge.stream):
                self._keeper.require_rebuild(f"{edge.stream} was made anew")
                return

    async def _on_reader_broke(self, error: BaseException) -> None:
        """A bug in what follows from a settlement: the next try leaves out what breaks again."""
        log.error("reader_broke", reason=repr(error), retry_s=RETRY_S)
        await asyncio.sleep(RETRY_S)
