"""Settlement: every call is charged after it was made, and a task that was ended early is followed to its last charge.

In: Settled, TaskStopped (inbox). Out: the ledger's charge; alerts; the halt of a task that goes on, at a ceiling or
after a call that cost many times its reservation; `TaskCharged`.
"""

from dataclasses import dataclass

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import Overran, Settled
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RUN_ENDED, TaskStopped
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.fact_lookup import find_fact, was_settled_before
from bulkhead_services.budget.ledger.model import MetCeiling, SettlementResult, UnitSums
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.store import Fenced, LedgerStore, RedisFailure
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.alerts import AlertPublisher
from bulkhead_services.budget.limits.ceiling_pause import CeilingPause
from bulkhead_services.budget.limits.task_halts import TaskHaltPublisher, halt_of
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry

log = Log("budget")

CLOCKS_MS = 5_000
"""Largest difference between a doer's clock and this service's: a call that was admitted under earlier limits is judged
by the next admission, under those that hold now."""
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class OverrunHold:
    """The overrun after which a task is halted until an operator has looked at it: more than so many times what was
    reserved, and more than this sum."""

    times: int
    cost_usd_micros: int

    def is_due(self, overrun: Overran) -> bool:
        """True when the task is not to go on by itself."""
        used, reserved = overrun.used.cost_usd_micros, overrun.reserved.cost_usd_micros
        return used > max(self.cost_usd_micros, reserved * self.times)


class SettlementHandler:
    """Charges calls. Everything raises HandBack while there is no ledger or no bus."""

    def __init__(
        self,
        bus: Bus,
        store: LedgerStore,
        keeper: LedgerKeeper,
        limits: TenantLimitsRegistry,
        parking: CeilingPause,
        halts: TaskHaltPublisher,
        alerts: AlertPublisher,
        overrun_hold: OverrunHold,
    ) -> None:
        self._bus, self._store, self._keeper, self._limits = bus, store, keeper, limits
        self._parking, self._halts, self._alerts, self._overrun_hold = parking, halts, alerts, overrun_hold

    async def apply_settled(self, message: ReceivedMessage) -> None:
        """Charge a call's use, once; then halt at a ceiling that it passed, and alert."""
        self._require_ledger()
        body = message.body
        assert isinstance(body, Settled)
        key = model.entry_key(message.sender, message.tenant, message.task, body.reservation_id)
        try:
            charge = await self._store.settle(key, model.sum_of_usage(body.usage, body.wall_ms), body.estimated)
            if charge.kind == "unknown":
                charge = await self._settle_from_journal(message, body, key)
            await self._halt_or_publish_charge(message, body, charge)
            overrun = await self._alerts.alert_on_settled(message, body, charge)
            is_due = overrun is not None and charge.stopped is None and self._overrun_hold.is_due(overrun)
            if overrun is not None and is_due and not await self._parking.has_ended(message.tenant, message.task):
                reason = messages.held_text(overrun, self._overrun_hold.times)
                await self._parking.hold_task(message.tenant, message.task, reason, body.reservation_id)
        except (Fenced, *RedisFailure, BusError) as error:
            raise self._hand_back(error) from error

    async def apply_task_stopped(self, message: ReceivedMessage, body: TaskStopped) -> None:
        """The planner ended the task early: cut what is in flight for it, admit no more, tell its charge."""
        halt = halt_of(message, body.code, body.reason, message.sender)
        try:
            if body.code == RUN_ENDED:
                # A halt stands for ever: it is for calls that are in flight, and most runs end without any.
                self._require_ledger()
                reserved = (await self._store.stop_scope(task_scope(message.tenant, message.task))).reserved
                if reserved == UnitSums():
                    return
            await self._halts.publish_halt(halt, f"stopped/{message.envelope.id}")
            self._require_ledger()
            await self._halts.stop_and_publish_charge(message)
        except (Fenced, *RedisFailure, BusError) as error:
            raise self._hand_back(error) from error

    async def _halt_or_publish_charge(self, message: ReceivedMessage, body: Settled, charge: SettlementResult) -> None:
        """Raises BusError, Fenced, RedisFailure."""
        ceiling = charge.ceiling
        if ceiling is not None and await self._parking.has_ended(message.tenant, message.task):
            ceiling = None  # Nothing goes on that a halt could stop.
        if ceiling is not None and not self._parking.should_park(message.envelope):
            await self._halts.end_task(message, ceiling, messages.exceeded_text(ceiling))
            return
        if ceiling is not None:
            await self._park_unless_limits_changed(message, body, ceiling)
        if charge.stopped is not None:
            await self._halts.publish_charge(message, charge.stopped)

    async def _park_unless_limits_changed(self, message: ReceivedMessage, body: Settled, ceiling: MetCeiling) -> None:
        """Raises BusError."""
        if not self._limits.was_changed_since(message.tenant, message.time_unix_ms - body.wall_ms - CLOCKS_MS):
            await self._parking.park_task(message.tenant, message.task, ceiling)

    async def _settle_from_journal(self, message: ReceivedMessage, body: Settled, key: str) -> SettlementResult:
        """The ledger does not know the reservation: the journal has the last word on whether it was one. Raises
        BusError, Fenced, RedisFailure."""
        tenant, task, service = message.tenant, message.task, message.sender
        since = message.time_unix_ms - body.wall_ms
        # Settled with nothing by an asker that gave up: it charges nothing, whatever the journal says, and an ask in
        # doubt is given up under up to eight ids.
        given_up = body.usage == Usage() and not body.estimated
        fact = None
        if not given_up or body.wall_ms:
            fact = await find_fact(self._bus, tenant, task, service, body.reservation_id, since)
        if fact is None:
            (log.debug if given_up else log.warning)("settled_without_reservation", key=key)
            return SettlementResult("unknown")
        if await was_settled_before(self._bus, message):
            return SettlementResult("repeated")  # Charged long ago, and forgotten since then.
        scopes = model.scopes_from((*fact.scopes, *fact.more_scopes))
        return await self._store.restore(key, model.sum_of(fact.amount), scopes, fact.reserved_unix_ms)

    def _require_ledger(self) -> None:
        if not self._keeper.epoch:
            raise HandBack(RETRY_S, f"no ledger: {self._keeper.reason}")

    def _hand_back(self, error: Exception) -> HandBack:
        """A HandBack: the message comes again."""
        if isinstance(error, BusError):
            return HandBack(RETRY_S, f"the broker does not answer: {error}")
        self._keeper.mark_lost(str(error) or type(error).__name__)
        return HandBack(RETRY_S, f"the ledger does not answer: {error}")
