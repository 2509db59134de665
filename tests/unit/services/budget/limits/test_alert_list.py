"""A tenant's latest alerts, as `limits get` shows them: its own, the newest first, and not for ever more of them."""

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.bounds import MAX_ALERTS_LISTED
from bulkhead_contracts.budget import Limit, LimitsRequested, Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import CeilingLevel, SettlementResult, UnitSums
from bulkhead_services.budget.limits.alerts import AlertPublisher, latest_alerts
from bulkhead_services.budget.limits.tenant_limits import TenantLimitsRegistry
from tests.unit.services.budget.limits.test_tenant_limits import standing

NOW = 1_795_231_204_272


async def settles(alerts: AlertPublisher, tenant: str, *scopes: str) -> None:
    """A call that brings these accounts over half of their limits."""
    body = Settled(reservation_id="r1", call_id="c1", usage=Usage())
    head = Envelope(id=f"id-{tenant}-{scopes}", type=body.ce_type(), source="rag", time_unix_ms=NOW)
    message = ReceivedMessage(head, body, tenant, "t1", "rag", 1, NOW, 1)
    levels = tuple(CeilingLevel(scope, "cost_usd_micros", 60, 100, NOW + 60_000) for scope in scopes)
    await alerts.alert_on_settled(
        message,
        body,
        SettlementResult("settled", UnitSums(cost_usd_micros=60), UnitSums(cost_usd_micros=60), levels=levels),
    )


async def test_the_latest_are_listed_the_newest_first_and_bounded() -> None:
    bus, store = MemoryBus(MemoryBroker.for_mesh(), "budget"), MemoryStore(lease_ms=60_000)
    alerts = AlertPublisher(bus, Publisher("budget", bus, b"b" * 32, lambda: NOW), store, lambda: NOW)
    await settles(alerts, "demo", "task:demo:t1", "mesh:-:2026-11-21")
    await settles(alerts, "acme", "task:acme:t1")
    assert [one.scope for one in await latest_alerts(store, "demo")] == ["task:demo:t1"], (
        "its own, and not the whole mesh's"
    )
    await settles(alerts, "demo", "task:demo:t1")
    assert len(await latest_alerts(store, "demo")) == 1, "told again, it is the same"
    for number in range(MAX_ALERTS_LISTED + 3):
        await settles(alerts, "demo", f"task:demo:n{number}")
    found = [one.scope for one in await latest_alerts(store, "demo")]
    assert len(found) == MAX_ALERTS_LISTED and found[0] == f"task:demo:n{MAX_ALERTS_LISTED + 2}"
    await store.put_value("alerts:demo", b"no list")
    assert await latest_alerts(store, "demo") == []


async def test_of_a_limit_that_was_changed_or_taken_away_nothing_is_listed_any_more() -> None:
    bus, store = MemoryBus(MemoryBroker.for_mesh(), "budget"), await standing()
    publisher = Publisher("budget", bus, b"b" * 32, lambda: NOW)
    alerts, book = (
        AlertPublisher(bus, publisher, store, lambda: NOW),
        TenantLimitsRegistry(bus, publisher, store, lambda: NOW, print),
    )
    users = "user:demo:ann:2026-11-21"
    await settles(alerts, "demo", "task:demo:t1", "day:demo:2026-11-21", users)

    async def listed(number: int, target: str = "", **limit: int) -> list[str]:
        ann = RequesterClaim(tenant="demo", person="ann", role="operator", via="api_key")
        for body in ([LimitsRequested(requester=ann, target=target, limit=Limit(**limit))] if target else []) + [
            LimitsRequested(requester=ann)
        ]:
            head = Envelope(id=f"ask{number}", type=body.ce_type(), source="gateway", time_unix_ms=NOW)
            reply = await book.answer_limits(ReceivedMessage(head, body, "demo", "limits", "gateway", 0, NOW, 1))
            assert reply.failure is None
        return [one.scope.partition(":")[0] for one in reply.alerts]

    others = await listed(0)
    assert sorted(others) == ["day", "task"], "others than operators limit those, too"
    assert "user" in await listed(1, "user/ann", cost_usd_micros=100)
    assert await listed(2, "user/ann", cost_usd_micros=200) == others
    assert "user" in await listed(3, "user", cost_usd_micros=100)
    assert await listed(4, "user") == others
