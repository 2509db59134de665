"""Composition root of budget: what comes in, and which part handles it.

    ReserveRequested (rpc)                       admission     ask -> reserve -> fact -> answer
    AllowanceRequested (rpc)                     admission
    Settled, TaskStopped (inbox)                 settlement    charge, halt, alert
    settlements in replies (askers' inboxes)     settlement    the same, by the reader
    LimitsRequested, TopUpRequested (rpc)        limits
    SpendRequested, CallsRequested, WritesRequested,
    SubscribersRequested (rpc)                   queries; so do CitedCallRequested and TaskMessagesRequested
    HaltRequested, ResetRequested (rpc)          queries
    CoordinationRequested, MeshRequested (rpc)   the watch, what it holds in memory
    DeadLettersRequested, DeadLetterRequested,
    DismissalRequested (rpc)                     queries
    JOURNAL                                      the watch, see watch.watcher

Beside these the keeper builds the ledger, and the checkpointer writes it down.
"""

import asyncio

from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.consume import packed_facts
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage, RpcTable
from bulkhead.runtime.process.main import main
from bulkhead.telemetry import names
from bulkhead.telemetry.metrics import Counts, ReadGauge
from bulkhead_contracts.budget import (
    AllowanceRequested,
    CallsRequested,
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
from bulkhead_contracts.types import Body
from bulkhead_services.budget.admission import ReservationAdmission
from bulkhead_services.budget.ledger import uncertain_holds
from bulkhead_services.budget.ledger.checkpoint import Checkpointer
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import NO_LIMIT
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from bulkhead_services.budget.ledger.store import LedgerStore
from bulkhead_services.budget.ledger.uncertain_holds import UncertainHolds
from bulkhead_services.budget.limits.alerts import AlertPublisher
from bulkhead_services.budget.limits.ceiling_pause import CeilingPause
from bulkhead_services.budget.limits.task_halts import TaskHaltPublisher
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry
from bulkhead_services.budget.queries.calls import TenantCallQuery
from bulkhead_services.budget.queries.dead_letters import DeadLetterQuery
from bulkhead_services.budget.queries.halts import HaltRequestHandler
from bulkhead_services.budget.queries.spending import SpendQuery
from bulkhead_services.budget.queries.subscribers import SubscriberQuery
from bulkhead_services.budget.queries.task_journal import TaskJournalQuery
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.settlement import OverrunHold, SettlementHandler
from bulkhead_services.budget.settlement_reader import SettlementReader
from bulkhead_services.budget.watch.coordination import CoordinationQuery
from bulkhead_services.budget.watch.mesh_counts import MeshCounts
from bulkhead_services.budget.watch.mesh_load import MeshLoadQuery
from bulkhead_services.budget.watch.watcher import Watcher


class Budget(EdgeComponent):
    """The edge: hands each message to its part. Admission never waits for a rebuild."""

    def __init__(self, context: Context, settings: Settings, store: LedgerStore) -> None:
        bus, publisher, clock = context.bus, context.publisher, context.clock
        self._background = context.background
        self._tidying: list[asyncio.Task[None]] = []
        self.store = store
        common_arguments, lease_ms, keep_ms = (bus, publisher, store, clock), settings.lease_ms, settings.keep_ms
        self.keeper = LedgerKeeper(
            *common_arguments,
            lease_ms=lease_ms,
            keep_ms=keep_ms,
            rebuild_at_start=settings.rebuild_at_start,
            tail_grace_s=settings.tail_grace_s,
        )
        self.checkpoints = Checkpointer(
            *common_arguments,
            self.keeper.fold_inboxes,
            holder=context.instance,
            lease_ms=lease_ms,
            keep_ms=keep_ms,
            every_s=settings.checkpoint_s,
            min_new_messages=settings.checkpoint_messages,
        )
        self.limits = TenantLimitsRegistry(*common_arguments, self.keeper.mark_lost)
        self.parking = CeilingPause(bus, publisher, self.limits, clock, parks=settings.ceiling == "wait")
        self.limits.on_change = self.parking.lift_for_target
        self.alerts, self.uncertain = AlertPublisher(*common_arguments), UncertainHolds(bus, store, self.keeper, clock)
        halts = TaskHaltPublisher(bus, publisher, store, context.message_key)
        overrun_hold = OverrunHold(settings.hold_above_times, settings.hold_above_usd_micros)
        self.settlement = SettlementHandler(
            bus, store, self.keeper, self.limits, self.parking, halts, self.alerts, overrun_hold
        )
        poll_s = 0.0 if settings.watches else settings.watch_interval_s
        self.reader = SettlementReader(
            bus, store, self.keeper, self.settlement, clock, holder=context.instance, poll_s=poll_s
        )
        self.admission = ReservationAdmission(
            context,
            store,
            self.keeper,
            self.limits,
            self.parking,
            halts,
            self.uncertain,
            self.reader,
            mesh_day=NO_LIMIT._replace(
                tokens=settings.mesh_day_tokens, cost_usd_micros=settings.mesh_day_cost_usd_micros
            ),
            retry_after_ms=settings.retry_after_ms,
            lease_ms=lease_ms,
        )
        self.watcher = _build_watcher(context, settings, store, halts, self.keeper, self.reader)
        self._counts = MeshCounts(bus, settings.watch_counts_s)
        halt_requests = HaltRequestHandler(context)
        self.rpc: RpcTable = {
            ReserveRequested: self._admit_call,
            AllowanceRequested: self.admission.answer_allowance,
            LimitsRequested: self.limits.answer_limits,
            TopUpRequested: self.limits.answer_top_up,
            **_query_handlers(context, store, settings),
            CoordinationRequested: CoordinationQuery(
                self.watcher, clock, settings.watch_thresholds.breakers
            ).answer_coordination,
            MeshRequested: MeshLoadQuery(self.watcher, self._counts, clock).answer_mesh_load,
            HaltRequested: halt_requests.answer_halt,
            ResetRequested: halt_requests.answer_reset,
        }

    async def _admit_call(self, message: ReceivedMessage) -> Body:
        if self.watcher is not None:
            self.watcher.expect_messages()
        return await self.admission.admit(message)

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Take one stored message; types that a later version sends are left alone."""
        match message.body:
            case Settled() as body:
                for settlement in packed_facts.unpack_settlements(message) if body.unused else (message,):
                    await self.settlement.apply_settled(settlement)
            case TaskStopped() as body:
                await self.settlement.apply_task_stopped(message, body)

    async def start(self) -> None:
        """Begin to build the ledger; admissions answer `wait` until it stands."""
        start = self._background.start
        self.keeper.start(self._background)
        self.reader.start(self._background)
        self._tidying = [start("tidying", self._tidy_periodically()), start("checkpoints", self.checkpoints.run())]
        if self.watcher is not None:
            self.watcher.start(self._background)
            self._tidying.append(start("counts", self._counts.run()))

    async def stop(self) -> None:
        """Close what was opened."""
        if self.watcher is not None:
            await self.watcher.stop()
        await cancel_tasks(*self._tidying)
        await self.reader.stop()
        await self.checkpoints.resign_lead()
        await self.keeper.stop()
        await self.store.close()

    def is_ready(self) -> bool:
        """True when the ledger stands."""
        return bool(self.keeper.epoch)

    def describe_degradation(self) -> str:
        """The part that does not work while admissions go on; "" when none."""
        return self.watcher.degraded if self.watcher is not None else ""

    def gauges(self) -> dict[str, ReadGauge]:
        """Metrics: whether the ledger can be used, the day's ceilings, and what the watch sees of the mesh."""
        own_gauges: dict[str, ReadGauge] = {names.LEDGER: self._ledger_gauge, names.DAY_SHARE: self.alerts.day_shares}
        return own_gauges | self._counts.gauges() | (self.watcher.gauges() if self.watcher is not None else {})

    def _ledger_gauge(self) -> Counts:
        answers = self.watcher is None or self.watcher.ledger_answers
        return {(): int(bool(self.keeper.epoch) and answers)}

    async def _tidy_periodically(self) -> None:
        while True:
            await asyncio.sleep(uncertain_holds.DOUBT_S / 2)
            await self.uncertain.release_due()
            await self.parking.lift_due()


def build(context: Context, settings: Settings) -> Budget:
    """The edge; nothing is opened before `start`."""
    return Budget(context, settings, open_store(settings))


def _query_handlers(context: Context, store: LedgerStore, settings: Settings) -> RpcTable:
    """Questions that streams and the broker's counts answer."""
    journal, letters = TaskJournalQuery(context.bus), DeadLetterQuery(context)
    return {
        SpendRequested: SpendQuery(context.bus, context.clock, store, lease_ms=settings.lease_ms).answer_spend,
        CallsRequested: TenantCallQuery(context.bus, context.clock, lease_ms=settings.lease_ms).answer_calls,
        SubscribersRequested: SubscriberQuery(context.bus, context.clock).answer_subscribers,
        WritesRequested: journal.answer_writes,
        CitedCallRequested: journal.answer_cited_call,
        TaskMessagesRequested: journal.answer_task_messages,
        DeadLettersRequested: letters.list_letters,
        DeadLetterRequested: letters.show_letter,
        DismissalRequested: letters.dismiss_letter,
    }


def _build_watcher(
    context: Context,
    settings: Settings,
    store: LedgerStore,
    halts: TaskHaltPublisher,
    keeper: LedgerKeeper,
    reader: SettlementReader,
) -> Watcher | None:
    """The watch, which needs nothing else of budget; None where it is switched off."""
    if not settings.watches:
        return None
    return Watcher(
        context.bus,
        context.publisher,
        store,
        context.clock,
        halts.publish_halt,
        mark_ledger_lost=keeper.mark_lost,
        on_message=reader.on_journal_message,
        holder=context.instance,
        interval_s=settings.watch_interval_s,
        halts_tasks=settings.watch_halts,
        thresholds=settings.watch_thresholds,
        message_key=context.message_key,
        targets_ms=settings.latency_targets_ms,
    )


def open_store(settings: Settings) -> LedgerStore:
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


if __name__ == "__main__":
    main("budget", build, Settings)
