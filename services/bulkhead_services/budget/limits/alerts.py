"""Soft alerts, told: after a settlement, never before an answer.

In: settlements as the ledger answers them. Out: `Alerted` and `Overran` facts, `Alerted` to the gateway when it is
about the task, `NoticeRequested` to those who post to webhooks and tell subscribers. An alert is told once: ids derive
from what it is about, and Redis remembers which were told; where it forgot, the same id is told again. It is remembered
after it was told, so that a crash between the two loses nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Alerted, NoticeRequested, Overran, Settled
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.checkpoint import JOURNAL
from bulkhead_services.budget.ledger.fact_lookup import find_fact
from bulkhead_services.budget.ledger.model import CeilingLevel, SettlementResult, UnitSums
from bulkhead_services.budget.ledger.store import LedgerStore
from bulkhead_services.budget.limits import alert_rules, messages
from bulkhead_services.budget.limits.alert_rules import LimitAlert, SpendSamples

log = Log("budget.alerts")

MAX_SAMPLED = 2_000
"""Ceilings whose rate is watched; one has up to 30 samples, some 4 KiB."""
MAX_TOLD = 50_000
DAY_ACCOUNTS = frozenset({"day", "mesh"})
"""Accounts of a tenant's day and of everybody's."""
RECHECK_TOLD_MS = 3_600_000
"""Time for which this replica need not look whether an alert was told; looking keeps it remembered."""
CeilingKey = tuple[str, str, int]


class AlertPublisher:
    """Rates that this replica knows, and alerts it told."""

    def __init__(self, bus: Bus, publisher: Publisher, store: LedgerStore, clock: Callable[[], int]) -> None:
        self._bus, self._publisher, self._store, self._clock = bus, publisher, store, clock
        self._samples = BoundedDict[CeilingKey, SpendSamples](MAX_SAMPLED)
        self._told_unix_ms = BoundedDict[str, int](MAX_TOLD)
        self._day_shares = BoundedDict[tuple[str, str], float](MAX_SAMPLED)
        """By account and unit: the share of a day's ceiling that is spent, as last settled here."""

    async def alert_on_settled(
        self, message: ReceivedMessage, body: Settled, settlement: SettlementResult
    ) -> Overran | None:
        """Tell what follows from one settlement; again, when it comes again. Its fact where it used more than was
        reserved. Raises BusError, RedisFailure."""
        overrun: Overran | None = None
        if settlement.charged.exceeds_ask(settlement.held):
            overrun = await self._publish_overrun(message, body, settlement)
        now_unix_ms = self._clock()
        if settlement.kind == "settled":
            for unit, amount in zip(UnitSums._fields, settlement.charged, strict=True):
                metrics.spent.add(max(0, amount), {names.UNIT: unit})
            estimated = settlement.charged.cost_usd_micros if body.estimated else body.usage.estimated_usd_micros
            metrics.spent.add(max(0, estimated), {names.UNIT: "estimated_usd_micros"})
        for level in settlement.levels:
            if level.limit > 0 and level.scope.partition(":")[0] in DAY_ACCOUNTS:
                self._day_shares[level.scope, level.unit] = level.spent / level.limit
            for alert in (alert_rules.share_alert(level), self._rate_alert(level, now_unix_ms)):
                if alert is not None and now_unix_ms - self._told_unix_ms.get(alert.id, 0) >= RECHECK_TOLD_MS:
                    await self._publish_once(message, alert, now_unix_ms)
        return overrun

    def day_shares(self) -> Counts:
        """Metrics: of today's ceilings (UTC) the fullest per kind of account and unit, as a share of 1."""
        today = datetime.fromtimestamp(self._clock() / 1000, UTC).date().isoformat()
        shares: dict[tuple[tuple[str, str], ...], float] = {}
        for (scope, unit), share in list(self._day_shares.items()):
            if scope.endswith(today):
                labels = ((names.ACCOUNT, scope.partition(":")[0]), (names.UNIT, unit))
                shares[labels] = max(shares.get(labels, 0.0), share)
        return shares

    def _rate_alert(self, level: CeilingLevel, now: int) -> LimitAlert | None:
        key = (level.scope, level.unit, level.limit)
        samples = self._samples[key] = alert_rules.add_sample(self._samples.get(key, ()), level, now)
        return alert_rules.rate_alert(samples, level, now)

    async def _publish_once(self, message: ReceivedMessage, alert: LimitAlert, now: int) -> None:
        name = f"alerted:{alert.id}"
        published = await self._store.get_value(name)
        if not published:
            fact = fact_of(alert, now)
            await self._publish_alert(message, fact, alert)
            await self._add_to_latest(message.tenant, fact)
        await self._store.put_value(name, b"1")
        self._told_unix_ms[alert.id] = now

    async def _add_to_latest(self, tenant: str, fact: Alerted) -> None:
        """Among the tenant's latest, as `limits get` shows them; of two replicas at once one may be left out there."""
        percent, account = str(fact.percent) if fact.kind == "share" else "", fact.scope.partition(":")[0]
        counted = {names.KIND: fact.kind, names.PERCENT: percent, names.UNIT: fact.unit, names.ACCOUNT: account}
        metrics.alerts.add(1, counted)
        if fact.scope.startswith("mesh:"):
            return  # What all tenants spend together is no single tenant's to see.
        rows = [fact, *(alert for alert in await latest_alerts(self._store, tenant) if alert.alert != fact.alert)]
        text = _ROWS.dump_json(rows[: bounds.MAX_ALERTS_LISTED])
        await self._store.put_value(_latest_key(tenant), text)

    async def _publish_alert(self, message: ReceivedMessage, fact: Alerted, alert: LimitAlert) -> None:
        rows: list[tuple[str, Body, str]] = [(JOURNAL, fact, f"alerted/{JOURNAL}")]
        if fact.scope.startswith("task:"):
            rows.append(("gateway", fact, "alerted/gateway"))  # It shows the task, and tells the alert, too.
        if not fact.scope.startswith("mesh:"):
            # It reaches webhooks and subscribers; what all tenants spend together is no single tenant's to be told.
            rows.append(("gateway", notice_of(fact), "alerted/notice/gateway"))
            rows.append(("tool_executor", notice_of(fact), "alerted/notice"))
        for receiver, body, index in rows:
            await self._send_body(message, receiver, body, alert.id, index)
        log_fields = fact.model_dump(include={"alert", "kind", "scope", "unit", "percent", "spent", "limit", "what"})
        log.warning("budget_alert", **log_fields)

    async def _send_body(self, message: ReceivedMessage, receiver: str, body: Body, cause: str, index: str) -> None:
        tenant, task, actor = message.tenant, message.task, message.envelope.actor
        await self._publisher.send(receiver, body, tenant=tenant, task=task, cause=cause, index=index, actor=actor)

    async def _publish_overrun(
        self, message: ReceivedMessage, body: Settled, settlement: SettlementResult
    ) -> Overran | None:
        """Flagged as a fact; the watcher counts it against the model. Raises BusError."""
        description = messages.overrun_text(settlement.charged, settlement.held)
        log.warning("charged_beyond_reservation", task=message.task, reservation=body.reservation_id, what=description)
        tenant, task, service = message.tenant, message.task, message.sender
        since = message.time_unix_ms - body.wall_ms
        reservation = await find_fact(self._bus, tenant, task, service, body.reservation_id, since)
        if reservation is None:
            return None  # Purged since then, or of no call that was admitted.
        fact = Overran(
            reservation_id=body.reservation_id,
            call_id=body.call_id,
            step_id=reservation.step_id,
            service=message.sender,
            resource=reservation.resource,
            reserved=reservation.amount,
            used=model.amount_of(settlement.charged),
            what=description[:2000],
            overran_unix_ms=self._clock(),
        )
        await self._send_body(message, JOURNAL, fact, body.reservation_id, f"overran/{service}/{tenant}/{task}")
        if settlement.kind == "settled":
            metrics.alerts.add(1, {names.KIND: "overran", names.PERCENT: "", names.UNIT: "", names.ACCOUNT: "task"})
        return fact


_ROWS = TypeAdapter(list[Alerted])


def _latest_key(tenant: str) -> str:
    return f"alerts:{tenant}"


async def latest_alerts(store: LedgerStore, tenant: str) -> list[Alerted]:
    """A tenant's latest alerts, the newest first, as far as Redis remembers them. Raises RedisFailure."""
    text = await store.get_value(_latest_key(tenant))
    try:
        return _ROWS.validate_json(text) if text else []
    except ValidationError:
        return []  # Of another version; what is told next begins the list anew.


def fact_of(alert: LimitAlert, now_unix_ms: int) -> Alerted:
    """The alert as people read it."""
    level, description = alert.level, messages.near_limit_text(alert.level)
    if alert.kind == "rate":
        minutes = max(1, (alert.reached_unix_ms - now_unix_ms) // 60_000)
        description = f"{description}; as fast as in the last minutes, the limit is reached in {minutes} min"
    fields = {name: getattr(alert, name) for name in ("kind", "percent", "reached_unix_ms")}
    fields |= {name: getattr(level, name) for name in ("scope", "unit", "spent", "limit")}
    hint = messages.raise_hint(level)[:2000]
    return Alerted(alert=alert.id, **fields, what=description[:2000], hint=hint, alerted_unix_ms=now_unix_ms)


def notice_of(fact: Alerted) -> NoticeRequested:
    """The alert as the tenant's own systems are told it."""
    same = fact.model_dump(include={"kind", "unit", "percent", "spent", "limit", "reached_unix_ms", "what", "hint"})
    return NoticeRequested(notice=fact.alert, account=fact.scope, told_unix_ms=fact.alerted_unix_ms, **same)
