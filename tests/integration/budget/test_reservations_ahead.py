"""What budget holds for calls that usually follow: told in one fact, far from ceilings, the same after a rebuild."""

import asyncio
from typing import Any

from bulkhead.runtime.consume import inbound, packed_facts
from bulkhead_contracts.budget import (
    Amount,
    CallAhead,
    Reserved,
    ReservedTogether,
    ReserveReplied,
    ReserveRequested,
    id_ahead,
)
from bulkhead_services.budget.admission import MARGIN
from tests.eventually import until
from tests.integration.budget.budget_world import DOER, TASK, TENANT, World

AHEAD = (("worker.writer", 20), ("checker.writer", 5))


async def ask(
    world: World,
    rid: str = "r",
    cost: int = 10,
    ahead: tuple[tuple[str, int], ...] = AHEAD,
    task: str = TASK,
    **grant: Any,
) -> ReserveReplied:
    rows = tuple(
        CallAhead(purpose="model", resource="m", worst_case=Amount(cost_usd_micros=each), agent=agent)
        for agent, each in ahead
    )
    body = ReserveRequested(
        reservation_id=rid,
        call_id=rid,
        step_id="s",
        purpose="model",
        resource="m",
        worst_case=Amount(cost_usd_micros=cost),
        agent="worker.writer",
        ahead=rows,
    )
    grant = {"grant_cost": 10_000, "day_cost": 100_000} | grant
    while True:
        answer = await world.doer.publisher.request(
            "budget", body, tenant=TENANT, task=task, grant=world.grant(task=task, **grant), cause="c", index=rid
        )
        assert isinstance(answer, ReserveReplied) and answer.decision != "refused", answer
        if answer.decision == "reserved":
            return answer
        await asyncio.sleep(0.05)  # The machine is busy.


async def test_one_fact_tells_all_and_each_counts_for_its_agent(world: World) -> None:
    answer = await ask(world)
    assert (answer.ahead, answer.ahead_ms) == (2, 60_000)
    [stored] = await world.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.{TENANT}.{TASK}.*")
    assert stored.ce_type == ReservedTogether.ce_type()
    facts = [one.body for one in packed_facts.unpack_facts(inbound.read_message(stored, "journal"))]
    assert [one.reservation_id for one in facts if isinstance(one, Reserved)] == ["r", "r-1", "r-2"]
    assert [any(":checker.writer:" in one.scope for one in fact.scopes) for fact in facts] == [False, False, True]
    assert {one.tenant for one in packed_facts.unpack_facts(inbound.read_message(stored, "journal"))} == {TENANT}
    await world.settled_balance(spent=0, reserved=35)
    await world.settle("r", cost=7)
    await world.settle("r-1", cost=9)
    await world.settled_balance(spent=16, reserved=5)
    await world.settle("r-1", cost=9, index="again")
    await world.settle("r-2", cost=0, tokens=0)
    await world.settled_balance(spent=16)


async def test_an_ask_that_is_repeated_gets_the_same_and_holds_nothing_twice(world: World) -> None:
    answers = await asyncio.gather(*(ask(world) for _ in range(5)))
    assert {one.ahead for one in answers} == {2}
    await world.settled_balance(spent=0, reserved=35)
    assert len(await world.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.{TENANT}.{TASK}.*")) == 1


async def test_near_a_ceiling_a_call_is_held_alone(world: World) -> None:
    """In every account: of the task, of an agent that comes later, of time."""
    assert (await ask(world, "a", grant_cost=30 * MARGIN)).ahead == 1, "as much as is far from it, in order"
    await world.settled_balance(spent=0, reserved=30)
    await world.limits("agent/checker.writer", cost_usd_micros=5 * MARGIN - 1)
    assert (await ask(world, "b", task="t2")).ahead == 1
    assert (await ask(world, "c", task="t3", ahead=(AHEAD[1], AHEAD[0]))).ahead == 0, "none behind one that is not held"
    assert (await world.balance(f"task:{TENANT}:t3")).reserved.cost_usd_micros == 10
    await world.limits("step", cost_usd_micros=30 * MARGIN)
    assert (await ask(world, "d", task="t4")).ahead == 1
    await world.limits("month", wall_ms=10**9)
    assert (await ask(world, "e", task="t5")).ahead == 0


async def test_what_is_held_ahead_leaves_nine_tenths_to_others(world: World) -> None:
    limit = 2_000
    await world.limits("feature", cost_usd_micros=limit)
    await world.limits("user/ada", cost_usd_micros=limit)
    answers = await asyncio.gather(*(ask(world, f"r{n}", 1, task=f"t{n}") for n in range(40)))
    ahead = sum(sum(cost for _, cost in AHEAD[: one.ahead]) for one in answers)
    assert 0 < ahead <= limit // MARGIN
    one = await ask(world, "large", limit - ahead - 40, task="large", ahead=())
    assert one.decision == "reserved"


async def test_a_rebuild_holds_what_was_held_ahead(world: World) -> None:
    await asyncio.gather(*(ask(world, f"r{n}", task=f"t{n % 3}") for n in range(60)))
    await world.settle("r3", cost=4, task="t0")
    await world.settle(id_ahead("r3", 1), cost=6, task="t0")
    await world.settle("r6", cost=2, task="t0", unused=("r6-1", "r6-2"))
    await world.settled_balance(spent=12, reserved=20 * 35 - 30 - 35, task="t0")
    edge = world.edges["0"]
    before, rebuilds = await edge.store.dump_ledger(), edge.keeper.rebuilds
    edge.keeper.require_rebuild("the test wants it")
    await until(lambda: edge.keeper.rebuilds > rebuilds)
    await world.ready()
    after = await edge.store.dump_ledger()
    assert after[1] == before[1] and {key: one.state for key, one in after[0].items()} == {
        key: one.state for key, one in before[0].items()
    }
    assert f"{DOER}/{TENANT}/t0/r3-2" in after[0]


async def test_calls_of_programs_outside_are_held_one_by_one(world: World) -> None:
    assert (await ask(world, task="doors-run-1")).ahead == 0
