"""Soft alerts of a budget in a mesh on a real Redis: at 50, 80 and 95 %, once, to whom they concern; and overruns."""

from bulkhead.testing.redis_server import EphemeralRedis
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import Alerted, NoticeRequested, Overran
from bulkhead_contracts.types import Body
from tests.eventually import until
from tests.integration.budget.budget_world import TASK, TENANT, World


async def told(world: World, kind: type[Body], to: str = "journal", task: str = TASK) -> list[Body]:
    stored = await world.mesh.messages(f"INBOX_{to.upper()}", f"mesh.budget.{to}.*.{TENANT}.{task}")
    return [catalog.decode_body(one.ce_type, one.body) for one in stored if one.ce_type == kind.ce_type()]


async def until_told(world: World, count: int) -> list[Alerted]:
    async def there() -> bool:
        return len(await told(world, Alerted)) >= count

    await until(there)
    return [one for one in await told(world, Alerted) if isinstance(one, Alerted)]


async def test_a_task_at_50_80_and_95_percent_is_told_each_once_and_runs_on(
    world: World, redis: EphemeralRedis
) -> None:
    spent = 0
    for number, cost in enumerate((40, 15, 20, 10, 11)):
        assert (await world.ask(f"r{number}", cost=cost, tokens=1)).decision == "reserved"
        spent += cost
        for index in ("settled", "again"):
            await world.settle(f"r{number}", cost=cost, tokens=1, index=index)
        await world.settled_balance(spent=spent)
    found = await until_told(world, 3)
    assert [(one.percent, one.spent, one.limit, one.unit) for one in found] == [
        (50, 55, 100, "cost_usd_micros"),
        (80, 85, 100, "cost_usd_micros"),
        (95, 96, 100, "cost_usd_micros"),
    ]
    assert {one.scope for one in found} == {f"task:{TENANT}:{TASK}"} and "bulkhead topup t1 --usd" in found[0].hint

    # Another replica that settles more says nothing again.
    await world.mesh.start("budget", "1")
    await world.ready("1")
    world.mesh.kill_replica("budget", "0")
    assert (await world.ask("last", cost=2, tokens=1)).decision == "reserved"
    await world.settle("last", cost=2, tokens=1)
    await world.settled_balance(spent=98, instance="1")
    # Of another task, and behind it in the inbox: when it is told, nothing of the first is still to come.
    assert (await world.ask("other", cost=60, tokens=1, task="t2")).decision == "reserved"
    await world.settle("other", cost=60, tokens=1, task="t2")

    async def others() -> bool:
        return bool(await told(world, Alerted, task="t2"))

    await until(others)
    assert len(await until_told(world, 3)) == 3
    listed = (await world.limits()).alerts
    assert [(one.percent, one.scope.rpartition(":")[2]) for one in listed] == [
        (50, "t2"),
        (95, TASK),
        (80, TASK),
        (50, TASK),
    ], "the newest first, whichever replica told it"
    assert [one.alert for one in await told(world, Alerted, "gateway")] == [one.alert for one in found]
    posted = await told(world, NoticeRequested, "tool_executor")
    assert [one.notice for one in posted if isinstance(one, NoticeRequested)] == [one.alert for one in found]


async def test_more_than_was_reserved_is_charged_and_told_with_both_amounts(world: World) -> None:
    await world.ask("r1", cost=10, tokens=10)
    await world.settle("r1", cost=30, tokens=12)
    await world.settled_balance(spent=30)

    async def there() -> bool:
        return bool(await told(world, Overran))

    await until(there)
    (fact,) = await told(world, Overran)
    assert isinstance(fact, Overran) and (fact.service, fact.resource) == ("model_gateway", "m")
    assert (fact.reserved.cost_usd_micros, fact.used.cost_usd_micros) == (10, 30)
    assert (fact.reserved.tokens, fact.used.tokens) == (10, 12) and "$0.00003 where $0.00001 was reserved" in fact.what
