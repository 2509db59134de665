"""Budget in a mesh on a real Redis: admissions, settlements and halts over the bus; kills, empties, second replicas."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sized
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bulkhead.bus.port import BusUnavailable, PubAck
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.halts.operator import OPERATOR, HaltRequest, switch_halt
from bulkhead.runtime.publish.publisher import OutgoingMessage
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import (
    Amount,
    Charge,
    Limit,
    LimitsChanged,
    Overran,
    Reserved,
    ReservedTogether,
    ReserveReplied,
    ReserveRequested,
    TaskCharged,
    TaskHalted,
)
from bulkhead_contracts.control import Halt
from bulkhead_services.budget.ledger import model, uncertain_holds
from bulkhead_services.budget.ledger.store import RedisFailure
from tests.eventually import until
from tests.integration.budget.budget_world import DOER, TASK, TENANT, World
from tests.redis_server import EphemeralRedis

T = TypeVar("T")


async def test_reserve_settle_and_the_fact_before_the_answer(world: World) -> None:
    answer = await world.ask("r1", cost=30, tokens=40)
    assert answer.decision == "reserved"
    (stored,) = await world.facts()
    fact = catalog.decode_body(stored.headers["ce-type"], stored.body)
    assert isinstance(fact, Reserved) and fact.service == DOER and fact.amount.cost_usd_micros == 30
    assert [scope.scope.split(":")[0] for scope in fact.scopes] == ["task", "agent", "user", "day", "month", "mesh"]
    assert (await world.balance()).reserved == model.UnitSums(40, 30)
    await world.settle("r1", cost=7, tokens=5)
    await world.settled_balance(spent=7)
    await world.settle("r1", cost=7, tokens=5, index="again")
    await world.settle("r2-unknown", cost=50)
    await world.ask("r3", cost=1, tokens=1)
    await world.settle("r3", estimated=True, cost=0, tokens=0)
    await world.settled_balance(spent=8)
    assert (await world.balance()).spent == model.UnitSums(6, 8)


async def test_what_is_left_is_the_least_under_any_limit_that_binds_the_call(world: World) -> None:
    left = await world.allowance()
    assert (left.known, left.tokens, left.cost_usd_micros) == (True, 1_000, 100), "its own limits are the lowest"
    await world.limits("user/ada", tokens=200)
    await world.ask("r1", cost=30, tokens=40)
    await world.settle("r1", cost=7, tokens=5)
    await world.settled_balance(spent=7)
    await world.ask("r2", cost=30, tokens=40)
    left = await world.allowance()
    assert (left.tokens, left.cost_usd_micros) == (195, 93), "open calls may give back what they hold"
    assert (await world.allowance(day_cost=20)).cost_usd_micros == 13
    await world.limits("agent/doors", cost_usd_micros=3)
    assert (await world.allowance()).cost_usd_micros == 3
    assert not (await world.allowance(task="another")).known, "a grant of another task tells nothing"


async def test_an_admitted_call_is_told_what_is_left_of_wall_time(world: World) -> None:
    assert (await world.ask("r0")).wall_ms == 0
    await world.limits("user/ada", wall_ms=9_000)
    await world.limits("month", wall_ms=60_000)
    assert (await world.ask("r1")).wall_ms == 9_000
    await world.settle("r1", cost=7, wall_ms=5_500)
    await world.settled_balance(spent=7, reserved=10)
    assert (await world.ask("r2")).wall_ms == 3_500
    await world.settle("r2", cost=7, wall_ms=3_400)
    await world.settled_balance(spent=14, reserved=10)
    assert (await world.ask("r3")).wall_ms == 1_000, "in less it could do nothing"


async def test_the_fact_of_each_ask_is_its_own(world: World) -> None:
    """That of a lone ask is made ready before the ledger has answered: another one's must never take its place."""
    costs = {f"r{n}": n for n in range(1, 9)}
    await world.ask("r1", cost=1)
    await asyncio.gather(*(world.ask(name, cost=cost) for name, cost in costs.items() if cost > 1))
    await world.ask("r9", cost=9)
    told: dict[str, int] = {}
    for stored in await world.mesh.messages("INBOX_JOURNAL", "mesh.budget.journal.>"):
        fact = catalog.decode_body(stored.headers["ce-type"], stored.body)
        rows = [row.reserved for row in fact.rows] if isinstance(fact, ReservedTogether) else [fact]
        told |= {one.reservation_id: one.amount.cost_usd_micros for one in rows if isinstance(one, Reserved)}
    assert told == costs | {"r9": 9}


async def test_without_a_grant_nothing_is_held_and_nothing_is_halted(world: World) -> None:
    body = ReserveRequested(reservation_id="r", call_id="r", purpose="model", resource="m", worst_case=Amount())
    answer = await world.doer.publisher.request("budget", body, tenant=TENANT, task=TASK, index="r")
    assert isinstance(answer, ReserveReplied)
    assert answer.decision == "refused" and "no grant" in answer.reason
    foreign = await world.doer.publisher.request(
        "budget", body, tenant=TENANT, task="other", grant=world.grant(), index="r"
    )
    assert isinstance(foreign, ReserveReplied) and foreign.decision == "refused"
    assert not await world.facts()
    assert not await world.mesh.messages("KV_CONTROL")


async def test_a_query_that_is_asked_ahead_is_refused_at_the_ceiling_and_stops_nobody(world: World) -> None:
    await world.ask("r1", cost=80)
    await world.settle("r1", cost=80)
    refused = await world.asked_until("refused", "ahead-x", cost=30)
    assert "Nothing was halted" in refused.reason and not refused.pauses
    assert (await world.ask("r2", cost=20)).decision == "reserved", "what the task needs goes on"
    assert not await world.mesh.messages("KV_CONTROL")


async def test_the_ceiling_refuses_halts_live_and_tells_the_planner(world: World) -> None:
    assert (await world.ask("r1", cost=80)).decision == "reserved"
    waiting = await world.ask("r2", cost=30)
    assert waiting.decision == "wait" and waiting.retry_after_ms == 20 and "$0.00008" in waiting.reason
    assert not waiting.doubtful, "who waits for room has nothing to give back"
    live = await world.mesh.context("rag").bus.subscribe_live(f"control.live.task.{TENANT}.{TASK}")
    await world.settle("r1", cost=80)
    refused = await world.asked_until("refused", "r2", cost=30)
    assert refused.scope == f"task:{TENANT}:{TASK}"
    for amount in ("limit $0.0001,", "spent $0.00008", "up to $0.00003", "--limit-usd 0.000110"):
        assert amount in refused.reason
    halted = await world.mesh.wait_for_fact(f"mesh.budget.planner.*.{TENANT}.{TASK}.*", TaskHalted)
    assert halted.code == "budget_exceeded" and halted.reason == refused.reason
    entry = await asyncio.wait_for(anext(aiter(live)), 30)
    halt = Halt.model_validate_json(entry.body)
    assert (halt.active, halt.scope, halt.name, halt.by) == (True, "task", TASK, "budget")
    assert (await world.ask("r2", cost=30)).model_dump() == refused.model_dump()
    # Nothing is in the works: what was spent is all, and is told as such.
    charged = Charge(tokens=10, cost_usd_micros=80)
    assert (await world.charged(1))[0] == TaskCharged(charged=charged, held=Amount(), settled_calls=1)


async def test_a_limit_holds_from_the_next_admission_on_on_every_replica_and_outlives_redis(
    world: World, redis: EphemeralRedis
) -> None:
    await world.mesh.start("budget", "1")
    await world.ready("1")
    await world.asked_until("reserved", "r1", cost=10)
    assert (await world.limits()).limits == ()
    answer = await world.limits("user/ada", cost_usd_micros=15)
    assert answer.failure is None and answer.revision == 1 and [one.target for one in answer.limits] == ["user/ada"]
    # Whichever replica is asked: the next one waits for what is held, and is refused when that is spent.
    assert {(await world.ask(f"w{n}", cost=10)).decision for n in range(6)} == {"wait"}
    await world.settle("r1", cost=10)
    refused = await world.asked_until("refused", "r2", cost=10)
    assert "user ada of tenant acme" in refused.reason and "limits set user/ada --usd 0.000020" in refused.reason
    await world.edges["0"].store._redis.flushall()
    assert "user ada" in (await world.asked_until("refused", "r3", cost=10, task="t2")).reason
    assert (await world.limits("user/ada", cost_usd_micros=40)).revision == 2
    await world.asked_until("reserved", "r4", cost=10, task="t3")
    stored = await world.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.limits.{TENANT}.*")
    first, second = (catalog.decode_body(one.headers["ce-type"], one.body) for one in stored)
    assert isinstance(first, LimitsChanged) and isinstance(second, LimitsChanged)
    assert (first.by, first.old, first.new) == ("ada", Limit(), Limit(cost_usd_micros=15))
    assert (second.old, second.new, second.revision) == (first.new, Limit(cost_usd_micros=40), 2)
    assert (await world.limits("user/ada")).limits == ()


async def test_what_a_cancelled_task_cost_is_told_to_the_cent_when_its_last_call_has_settled(world: World) -> None:
    await world.ask("r1", cost=30, tokens=20)
    await world.ask("r2", cost=40, tokens=10)
    await world.settle("r1", cost=7, tokens=5)
    await world.settled_balance(spent=7, reserved=40)
    await world.stop()
    (first,) = await world.charged(1)
    assert (first.charged, first.held) == (Charge(tokens=5, cost_usd_micros=7), Amount(tokens=10, cost_usd_micros=40))
    await world.settle("r2", cost=11, tokens=9, guess=True)
    *_, last = await world.charged(2)
    guess = Charge(tokens=14, cost_usd_micros=18, estimated_tokens=9, estimated_usd_micros=11)
    assert (last.charged, last.held) == (guess, Amount())
    await world.edges["0"].store._redis.flushall()
    await world.settle("r2", cost=11, tokens=9, guess=True, index="again")
    # A reply that tells the same settlement again has told all: the messages that follow from it bear the same ids.
    assert (await world.charged(2 if world.in_replies else 3))[-1] == last


async def test_the_day_halts_the_asking_task_and_names_the_tenant(world: World) -> None:
    assert (await world.ask("r1", cost=90, task="t2", day_cost=100)).decision == "reserved"
    await world.settle("r1", cost=90, task="t2")
    refused = await world.asked_until("refused", "r2", cost=20, day_cost=100)
    assert refused.scope.startswith(f"day:{TENANT}:") and f"tenant {TENANT}'s day" in refused.reason
    halted = await world.mesh.wait_for_fact(f"mesh.budget.planner.*.{TENANT}.{TASK}.*", TaskHalted)
    assert "raise day.cost_usd_micros" in halted.reason
    assert not await world.mesh.messages("INBOX_PLANNER", f"mesh.budget.planner.*.{TENANT}.t2.*")


async def test_an_underestimate_is_charged_in_full_and_halts(world: World) -> None:
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    await world.settle("r1", cost=150)
    halted = await world.mesh.wait_for_fact(f"mesh.budget.planner.*.{TENANT}.{TASK}.*", TaskHalted)
    assert "exceeded" in halted.reason and "spent $0.00015" in halted.reason
    assert (await world.balance()).spent.cost_usd_micros == 150


async def test_a_call_that_costs_many_times_its_reservation_holds_its_task_until_somebody_has_looked(
    world: World,
) -> None:
    room = {"grant_cost": 10_000_000, "day_cost": 10_000_000}

    async def halt() -> Halt | None:
        stored = await world.mesh.context("budget").bus.last("KV_CONTROL", f"$KV.CONTROL.task.{TENANT}.{TASK}")
        return Halt.model_validate_json(stored.body) if stored is not None else None

    async def call(rid: str, ask: int, cost: int, index: str = "settled") -> None:
        body = Amount(tokens=10, cost_usd_micros=ask)
        assert (await world.ask_for(rid, body, **room)).decision == "reserved"
        await world.settle(rid, cost=cost, index=index)

    async def overruns() -> list[Overran]:
        rows = await world.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.{TENANT}.{TASK}.*")
        return [Overran.model_validate_json(one.body) for one in rows if one.headers["ce-type"] == Overran.ce_type()]

    await call("small", 500, 9_999)  # Nearly twenty times as much, and less than a cent.
    await call("dear", 4_000, 40_000)  # Ten times as much is not more than that.
    await until(lambda: _has(overruns, 2))
    assert await halt() is None
    await call("r1", 4_000, 272_500)
    await until(lambda: _is(halt, lambda found: found is not None and found.active))
    held = await halt()
    assert held is not None and held.pauses and held.code == "charged_above_reservation" and held.by == "budget"
    for word in ("call r1 of m", "$0.2725", "$0.004", "10 times", "BULKHEAD_HOLD_ABOVE_TIMES"):
        assert word in held.reason
    (fact,) = [one for one in await overruns() if one.call_id == "r1"]
    assert (fact.reserved.cost_usd_micros, fact.used.cost_usd_micros) == (4_000, 272_500)
    budget = world.mesh.context("budget")
    wish = HaltRequest("task", TENANT, TASK, False, "looked", f"{OPERATOR}ada", unix_ms())
    lifted = await switch_halt(budget.bus, budget.publisher, wish)
    assert isinstance(lifted, Halt) and not lifted.active
    await world.settle("r1", cost=272_500, index="again")
    await call("last", 10, 10)
    await world.settled_balance(spent=9_999 + 40_000 + 272_500 + 10)
    assert await halt() == lifted, "the same call holds nothing twice"
    assert (await world.ask("bites", cost=100)).decision == "refused", "its cost counts for the next ask"


async def _has(read: Callable[[], Awaitable[Sized]], count: int) -> bool:
    return len(await read()) >= count


async def _is(read: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> bool:
    return holds(await read())


async def test_nobody_settles_the_reservation_of_another_service(world: World) -> None:
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    await world.settle("r1", cost=0, sender=world.mesh.context("rag"))
    await world.settle("r1", cost=40)
    await world.settled_balance(spent=40)


async def test_a_reservation_that_the_journal_does_not_take_is_held_while_its_asker_may_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = world.mesh.context("budget").publisher
    real = type(publisher).put_message

    async def refuse(self: Any, made: OutgoingMessage, **kwargs: Any) -> PubAck:
        if made.subject.split(".")[2] == "journal":
            raise BusUnavailable("no answer")
        return await real(self, made, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(publisher), "put_message", refuse)
        answer = await world.ask("r1", cost=50)
        assert (await world.ask("left", cost=30)).decision == "wait"
    assert answer.decision == "wait" and "journal" in answer.reason and answer.doubtful, "it may have taken it"
    await world.settled_balance(spent=0, reserved=80)
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    monkeypatch.setattr("bulkhead_services.budget.ledger.uncertain_holds.DOUBT_S", 0.0)
    await world.edges["0"].uncertain.release_due()
    await world.settled_balance(spent=0, reserved=50)


async def test_an_ask_in_doubt_with_calls_ahead_is_looked_up_in_the_journal_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, looks = world.edges["0"], list[int]()
    real_append, real_look = edge.admission._writer.store_fact, uncertain_holds.find_facts

    async def refuse(*args: Any) -> None:
        raise BusUnavailable("no answer")

    async def look(bus: Any, tenant: str, task: str, service: str, ids: Any, since: int) -> Any:
        looks.append(len(ids))
        return await real_look(bus, tenant, task, service, ids, since)

    edge.admission._writer.store_fact = refuse  # type: ignore[method-assign]
    for number in range(8):
        assert (await world.ask(f"r{number}", cost=5)).decision == "wait"
    edge.admission._writer.store_fact = real_append  # type: ignore[method-assign]
    assert (await world.ask("r3", cost=5)).decision == "reserved"
    monkeypatch.setattr(uncertain_holds, "find_facts", look)
    monkeypatch.setattr(uncertain_holds, "DOUBT_S", 0.0)
    await edge.uncertain.release_due()
    assert looks == [8, 7], "before and after what is let go" and not edge.uncertain.attempts
    await world.settled_balance(spent=0, reserved=5)


async def test_what_is_given_up_and_charges_nothing_is_not_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    async def look(bus: Any, tenant: str, task: str, service: str, name: str, since: int) -> None:
        looked.append(name)

    monkeypatch.setattr("bulkhead_services.budget.settlement.find_fact", look)
    for number in range(8):
        await world.settle(f"r{number}", cost=0, tokens=0)
    await world.settle("used", cost=7)
    await until(lambda: bool(looked))
    assert looked == ["used"]


async def test_a_fact_that_was_stored_and_not_acknowledged_keeps_its_room(world: World) -> None:
    """Were its room given to another call, a rebuild that reads it would let both be told."""
    edge = world.edges["0"]
    real = edge.admission._writer.store_fact

    async def stored_unheard(*args: Any) -> None:
        edge.admission._writer.store_fact = real  # type: ignore[method-assign]
        await real(*args)
        raise BusUnavailable("no answer")

    edge.admission._writer.store_fact = stored_unheard  # type: ignore[method-assign]
    assert (await world.ask("unheard", cost=60)).decision == "wait"
    assert (await world.ask("other", cost=60)).decision == "wait"
    await edge.store._redis.flushall()
    await world.asked_until("reserved", "unheard", cost=60)
    assert (await world.ask("other", cost=60)).decision == "wait"
    await world.settled_balance(spent=0, reserved=60)


@pytest.mark.parametrize("loss", ["killed", "emptied", "old dump"])
async def test_the_ledger_comes_back_exactly_from_the_streams(world: World, redis: EphemeralRedis, loss: str) -> None:
    client = world.edges["0"].store._redis
    for n in range(40):
        if n == 20 and loss == "old dump":
            await client.save()
        answer = await world.ask(f"r{n}", cost=n, tokens=n, task=f"t{n % 3}")
        assert answer.decision in ("reserved", "wait", "refused")
        if n % 3:
            await world.settle(f"r{n}", cost=n // 2, tokens=n, estimated=n % 5 == 0, task=f"t{n % 3}")
    await world.settle("never-reserved", cost=99)
    if loss == "killed":
        await asyncio.to_thread(redis.stop)
        assert (await world.ask("during", cost=1)).decision == "wait"
        assert not world.edges["0"].is_ready()
        await asyncio.to_thread(redis.start)
    elif loss == "old dump":
        # Killed and started between two calls: nobody finds it away, and its epoch and half its balances are there.
        await asyncio.to_thread(redis.stop)
        await asyncio.to_thread(redis.start)
        redis.forget_dump()
        async with Redis.from_url(redis.url) as looks:
            assert await looks.dbsize(), "it has loaded what was saved"
        assert (await world.ask("during", cost=1)).decision == "wait"
    else:
        await client.flushall()
        assert (await world.ask("during", cost=1)).decision == "wait"
    await world.asked_until("reserved", "after", cost=1, tokens=1, task="t9")
    expected = await world.from_journal()

    async def same() -> bool:
        try:
            _, balances = await world.edges["0"].store.dump_ledger()
        except RedisFailure:
            return False
        return balances == expected.balances

    await until(same)
    assert expected.balances and world.edges["0"].keeper.rebuilds == 2


async def test_settlements_wait_for_a_stalled_redis(world: World, redis: EphemeralRedis) -> None:
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    redis.send_signal(signal.SIGSTOP)
    try:
        await world.settle("r1", cost=20)
        assert (await world.ask("r2", cost=1)).decision == "wait"
    finally:
        redis.send_signal(signal.SIGCONT)
    # What was sent to it while it stood still is done now; the doer asks again under the same id and has it once.
    assert (await world.asked_until("reserved", "r2", cost=1)).decision == "reserved"
    await world.settled_balance(spent=20, reserved=1)
    # The same server process forgot nothing: the ledger is taken as it stands.
    assert world.edges["0"].keeper.rebuilds == 1


async def test_a_fact_that_redis_does_not_know_is_found_in_the_journal(world: World) -> None:
    """The rebuild read a follower that lagged, or Redis let the reservation go: the journal has the last word."""
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    store = world.edges["0"].store
    await store._redis.delete(*[key async for key in store._redis.scan_iter("*:[rs]:*")])
    await world.settle("r1", cost=20)
    await world.settled_balance(spent=20)


async def test_a_settlement_that_comes_again_when_it_is_forgotten_is_not_charged_again(world: World) -> None:
    assert (await world.ask("r1", cost=50)).decision == "reserved"
    await world.settle("r1", cost=20)
    await world.settled_balance(spent=20)
    store = world.edges["0"].store
    (entry,) = [key async for key in store._redis.scan_iter("*:r:*")]
    assert 0 < await store._redis.pttl(entry) <= 360 * 60_000, "it is remembered for hours, not for days"
    await store._redis.delete(entry)
    await world.settle("r1", cost=20, index="again")
    await world.ask("r2", cost=7)
    await world.settle("r2", cost=5)
    await world.settled_balance(spent=25)


async def test_two_replicas_share_one_ledger_and_one_rebuilds(world: World, redis: EphemeralRedis) -> None:
    await world.mesh.start("budget", "1")
    await world.ready("1")
    answers = await asyncio.gather(*(world.asked_until("reserved", f"r{n}", cost=5, tokens=5) for n in range(20)))
    assert len(answers) == 20
    assert (await world.ask("one-more", cost=1)).decision == "wait"
    before = [edge.keeper.rebuilds for edge in world.edges.values()]
    await asyncio.to_thread(redis.stop)
    await asyncio.to_thread(redis.start)
    for n in range(20):
        await world.settle(f"r{n}", cost=4, tokens=5)
    await world.settled_balance(spent=80)
    for instance in ("0", "1"):
        world.edges[instance].keeper.mark_lost("asked by the test")
        await world.ready(instance)
        await world.settled_balance(spent=80, instance=instance)
    after = [edge.keeper.rebuilds for edge in world.edges.values()]
    assert sum(after) - sum(before) == 1
    world.mesh.kill_replica("budget", "0")
    assert (await world.asked_until("reserved", "last", cost=20)).decision == "reserved"
    assert (await world.asked_until("refused", "beyond", cost=21)).decision == "refused"


@pytest.mark.parametrize(("quick_s", "decision"), [(0.0, "wait"), (3_600.0, "reserved")])
async def test_an_answer_counts_only_in_the_ledger_that_holds_the_money(
    world: World, monkeypatch: pytest.MonkeyPatch, quick_s: float, decision: str
) -> None:
    """The ledger is lost between the reservation in Redis and its fact. The doer must not be told `reserved`, but where
    the fact is so soon that whoever builds the ledger anew finds it."""
    monkeypatch.setattr("bulkhead_services.budget.admission.QUICK_ADMISSION_S", quick_s)
    edge = world.edges["0"]
    real = edge.admission._writer.store_fact

    async def rebuilt_meanwhile(*args: Any) -> None:
        await edge.store._redis.delete(edge.store._epoch_key)
        await real(*args)

    edge.admission._writer.store_fact = rebuilt_meanwhile  # type: ignore[method-assign]
    answer = await world.ask("r1", cost=50)
    assert (answer.decision, answer.doubtful) == (decision, decision == "wait")
    edge.admission._writer.store_fact = real  # type: ignore[method-assign]
    assert (await world.asked_until("wait", "r0", cost=60)).decision == "wait", "it is not known, or it leaves no room"
    await world.ready()
    assert (await world.ask("r2", cost=60)).decision == "wait", "whether it was told or not, it is held"
    assert (await world.asked_until("reserved", "r1", cost=50)).decision == "reserved"
    assert (await world.balance()).reserved.cost_usd_micros == 50
    assert len({one.body for one in await world.facts()}) == 1, "said again under the new ledger, on the same terms"


async def test_what_redis_held_and_nobody_heard_of_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis took the reservation and its answer got lost; the doer never came back for it."""
    edge = world.edges["0"]
    real = edge.store.reserve

    async def answer_lost(*args: Any) -> Any:
        if isinstance(answer := await real(*args), model.StaleLimits):
            return answer  # Nothing was held: nobody had looked at the tenant's limits yet.
        raise RedisConnectionError("connection reset by peer")

    edge.store.reserve = answer_lost  # type: ignore[method-assign]
    answer = await world.ask("r1", cost=50)
    assert answer.decision == "wait" and answer.doubtful
    edge.store.reserve = real  # type: ignore[method-assign]
    await world.ready()
    await world.settled_balance(spent=0, reserved=50)
    await edge.uncertain.release_due()
    await world.settled_balance(spent=0, reserved=50)
    clock = edge.uncertain._clock
    edge.uncertain._clock = lambda: clock() + 3_600_000
    await edge.uncertain.release_due()
    edge.uncertain._clock = clock
    await world.settled_balance(spent=0, reserved=50)  # Its clock was set; who asked may be about to hold it.
    monkeypatch.setattr("bulkhead_services.budget.ledger.uncertain_holds.DOUBT_S", 0.0)
    await edge.uncertain.release_due()
    await world.settled_balance(spent=0, reserved=0)
    # One that was asked for again meanwhile, and is answered, stays.
    edge.store.reserve = answer_lost  # type: ignore[method-assign]
    assert (await world.ask("r2", cost=30)).decision == "wait"
    edge.store.reserve = real  # type: ignore[method-assign]
    assert (await world.asked_until("reserved", "r2", cost=30)).decision == "reserved"
    await edge.uncertain.release_due()
    await world.settled_balance(spent=0, reserved=30)


async def test_a_slow_admission_keeps_its_hold_when_an_earlier_attempt_is_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt never reached Redis; the doubt about it is settled before the second one has its fact."""
    edge = world.edges["0"]
    real_reserve, real_append = edge.store.reserve, edge.admission._writer.store_fact

    async def never_arrives(*args: Any) -> Any:
        raise RedisConnectionError("connection refused")

    edge.store.reserve = never_arrives  # type: ignore[method-assign]
    assert (await world.ask("r1", cost=50)).decision == "wait"
    edge.store.reserve = real_reserve  # type: ignore[method-assign]
    await world.ready()
    monkeypatch.setattr("bulkhead_services.budget.ledger.uncertain_holds.DOUBT_S", 0.0)

    async def slowly(*args: Any) -> None:
        await edge.uncertain.release_due()
        await real_append(*args)

    edge.admission._writer.store_fact = slowly  # type: ignore[method-assign]
    assert (await world.asked_until("reserved", "r1", cost=50)).decision == "reserved"
    await world.settled_balance(spent=0, reserved=50)
