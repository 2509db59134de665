"""Composition root of budget: what comes in, and which part handles it.

    ReserveRequested (rpc)                       admission     ask -> reserve -> fact -> answer
    Settled, TaskStopped (inbox)                 settlement    charge, halt, alert
    LimitsRequested, TopUpRequested (rpc)        limits
    SpendRequested, WritesRequested,
    SubscribersRequested (rpc)                   queries; so do CitedCallRequested and TaskMessagesRequested
    HaltRequested, ResetRequested (rpc)          queries
    CoordinationRequested, MeshRequested (rpc)   the watch, what it holds in memory
    DeadLettersRequested, DeadLetterRequested,
    DismissalRequested (rpc)                     queries
    JOURNAL                                      the watch, see watch.watcher

Beside these the keeper builds the ledger, and the checkpointer writes it down.
"""

import asyncio

from bulkhead.runtime.background import cancel
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Edge, Received, RpcTable
from bulkhead.telemetry import names
from bulkhead.telemetry.metrics import Counts, Look
from bulkhead_contracts.budget import (
    CoordinationRequested,
    DeadLetterRequested,
    DeadLettersRequested,
    DismissalRequested,
    LimitsRequested,
    MeshRequested,
    ReserveRequested,
    Settled,
    SpendRequested,
    SubscribersRequested,
    TopUpRequested,
)
from bulkhead_contracts.control import HaltRequested, ResetRequested
from bulkhead_contracts.journal import TaskMessagesRequested
from bulkhead_contracts.task import TaskStopped
from bulkhead_contracts.tool import CitedCallRequested, WritesRequested
from bulkhead_services.budget.admission import Admission
from bulkhead_services.budget.ledger import uncertain_holds
from bulkhead_services.budget.ledger.checkpoint import Checkpointer
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import NO_LIMIT
from bulkhead_services.budget.ledger.rebuild import Keeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from bulkhead_services.budget.ledger.store import Store
from bulkhead_services.budget.ledger.uncertain_holds import UncertainHolds
from bulkhead_services.budget.limits.alerts import Alerts
from bulkhead_services.budget.limits.ceiling_pause import Parking
from bulkhead_services.budget.limits.task_halts import TaskHalts
from bulkhead_services.budget.limits.tenant_limits import LimitBook
from bulkhead_services.budget.queries.cited_calls import CallBook
from bulkhead_services.budget.queries.dead_letters import LetterBook
from bulkhead_services.budget.queries.halts import Switches
from bulkhead_services.budget.queries.spending import SpendBook
from bulkhead_services.budget.queries.subscribers import SubscriberBook
from bulkhead_services.budget.queries.task_messages import MessageBook
from bulkhead_services.budget.queries.uncertain_writes import WriteBook
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.settlement import Settlement
from bulkhead_services.budget.watch.coordination import Coordination
from bulkhead_services.budget.watch.mesh_counts import MeshCounts
from bulkhead_services.budget.watch.mesh_load import MeshLoad
from bulkhead_services.budget.watch.watcher import Watcher

SERVICE = "budget"


class Budget(Edge):
    """The edge: hands each message to its part. Admission never waits for a rebuild."""

    def __init__(self, context: Context, settings: Settings, store: Store) -> None:
        bus, publisher, clock = context.bus, context.publisher, context.clock
        self._background = context.background
        self._tidying: list[asyncio.Task[None]] = []
        self.store = store
        world, lease_ms, keep_ms = (bus, publisher, store, clock), settings.lease_ms, settings.keep_ms
        self.keeper = Keeper(
            *world,
            lease_ms=lease_ms,
            keep_ms=keep_ms,
            rebuild_at_start=settings.rebuild_at_start,
            tail_grace_s=settings.tail_grace_s,
        )
        self.checkpoints = Checkpointer(
            *world,
            self.keeper.fold_on,
            holder=context.instance,
            lease_ms=lease_ms,
            keep_ms=keep_ms,
            every_s=settings.checkpoint_s,
            messages=settings.checkpoint_messages,
        )
        self.limits = LimitBook(*world, self.keeper.lose)
        self.parking = Parking(bus, publisher, self.limits, clock, parks=settings.ceiling == "wait")
        self.limits.on_change = self.parking.lift_all
        self.alerts, self.uncertain = Alerts(*world), UncertainHolds(bus, store, self.keeper, clock)
        halts = TaskHalts(bus, publisher, store, context.message_key)
        self.admission = Admission(
            context,
            store,
            self.keeper,
            self.limits,
            self.parking,
            halts,
            self.uncertain,
            mesh_day=NO_LIMIT._replace(
                tokens=settings.mesh_day_tokens, cost_usd_micros=settings.mesh_day_cost_usd_micros
            ),
            retry_after_ms=settings.retry_after_ms,
        )
        self.settlement = Settlement(bus, store, self.keeper, self.limits, self.parking, halts, self.alerts)
        self.watcher = _watcher(context, settings, store, halts, self.keeper)
        self._counts = MeshCounts(bus, settings.watch_counts_s)
        switches = Switches(context)
        self.rpc: RpcTable = {
            ReserveRequested: self.admission.admit,
            LimitsRequested: self.limits.answer,
            TopUpRequested: self.limits.top_up,
            **_queries(context, store),
            CoordinationRequested: Coordination(self.watcher, clock, settings.thresholds.breakers).answer,
            MeshRequested: MeshLoad(self.watcher, self._counts, clock).answer,
            HaltRequested: switches.answer,
            ResetRequested: switches.reset,
        }

    async def handle(self, message: Received) -> None:
        """Take one stored message; types that a later version sends are left alone."""
        match message.body:
            case Settled() as body:
                await self.settlement.settle(message, body)
            case TaskStopped() as body:
                await self.settlement.stopped(message, body)

    async def start(self) -> None:
        """Begin to build the ledger; admissions answer `wait` until it stands."""
        start = self._background.start
        self.keeper.start(self._background)
        self._tidying = [start("tidying", self._tidy()), start("checkpoints", self.checkpoints.run())]
        if self.watcher is not None:
            self.watcher.start(self._background)
            self._tidying.append(start("counts", self._counts.run()))

    async def stop(self) -> None:
        """Close what was opened."""
        if self.watcher is not None:
            await self.watcher.stop()
        await cancel(*self._tidying)
        await self.checkpoints.resign()
        await self.keeper.stop()
        await self.store.close()

    def ready(self) -> bool:
        """Whether the ledger stands."""
        return bool(self.keeper.epoch)

    def degraded(self) -> str:
        """What of it does not work while admissions go on; "" when nothing."""
        return self.watcher.degraded if self.watcher is not None else ""

    def gauges(self) -> dict[str, Look]:
        """Metrics: whether the ledger can be used, the day's ceilings, and what the watch sees of the mesh."""
        own: dict[str, Look] = {names.LEDGER: self._ledger, names.DAY_SHARE: self.alerts.day_shares}
        return own | self._counts.gauges() | (self.watcher.gauges() if self.watcher is not None else {})

    def _ledger(self) -> Counts:
        answers = self.watcher is None or self.watcher.ledger_answers
        return {(): int(bool(self.keeper.epoch) and answers)}

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(uncertain_holds.DOUBT_S / 2)
            await self.uncertain.release_due()
            await self.parking.look()


def build(context: Context, settings: Settings) -> Budget:
    """The edge; nothing is opened before `start`."""
    return Budget(context, settings, open_store(settings))


def _queries(context: Context, store: Store) -> RpcTable:
    """Questions that streams and the broker's counts answer."""
    writes, letters = WriteBook(context.bus), LetterBook(context)
    return {
        SpendRequested: SpendBook(context.bus, context.clock, store).answer,
        SubscribersRequested: SubscriberBook(context.bus, context.clock).answer,
        WritesRequested: writes.answer,
        CitedCallRequested: CallBook(writes).answer,
        TaskMessagesRequested: MessageBook(writes).answer,
        DeadLettersRequested: letters.list,
        DeadLetterRequested: letters.show,
        DismissalRequested: letters.dismiss,
    }


def _watcher(context: Context, settings: Settings, store: Store, halts: TaskHalts, keeper: Keeper) -> Watcher | None:
    """The watch, which needs nothing else of budget; None where it is switched off."""
    if settings.watch == "off" or (settings.watch == "auto" and settings.in_memory):
        return None
    return Watcher(
        context.bus,
        context.publisher,
        store,
        context.clock,
        halts.publish,
        lost=keeper.lose,
        holder=context.instance,
        interval_s=settings.watch_interval_s,
        halts=settings.watch_halts,
        thresholds=settings.thresholds,
        message_key=context.message_key,
        targets_ms=settings.latency_targets_ms,
    )


def open_store(settings: Settings) -> Store:
    """The store in which this budget keeps its ledger."""
    if settings.in_memory:
        return MemoryStore(lease_ms=settings.lease_ms)
    return RedisStore(
        settings.redis_url.get_secret_value(),
        prefix=settings.redis_prefix,
        lease_ms=settings.lease_ms,
        keep_ms=settings.keep_ms,
        timeout_s=settings.redis_timeout_s,
        connections=settings.redis_connections,
        settled_keep_ms=settings.settled_keep_minutes * 60_000,
    )
