"""A call that still waits when its task ends is paid for by nobody; one that is settled later halts nothing."""

from bulkhead_contracts.budget import Overran
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.budget.ledger.replies import reply_ends
from tests.eventually import until
from tests.integration.budget.budget_world import TASK, TENANT, World


async def test_a_call_of_a_task_that_has_ended_is_refused_by_name(world: World) -> None:
    await world.ask("r1", cost=30)
    await world.stop()
    await world.charged(1)
    late = await world.ask("r2", cost=30)
    assert (late.decision, late.ended, late.scope) == ("refused", True, f"task:{TENANT}:{TASK}")
    assert f"Task {TASK} has ended" in late.reason and (await world.balance()).reserved.cost_usd_micros == 30
    assert (await world.ask("r3", task="t2")).decision == "reserved"


async def test_what_is_settled_behind_a_tasks_end_is_charged_and_told_and_halts_nothing(world: World) -> None:
    room = {"grant_cost": 10_000, "day_cost": 10_000_000}
    for task in ("goes-on", TASK):
        await world.ask("dear", cost=4_000, task=task, **room)
    ended = TaskEnded(status="succeeded", ended_unix_ms=1)
    await world.mesh.context("planner").publisher.send("gateway", ended, tenant=TENANT, task=TASK, cause="done")
    for task in ("goes-on", TASK):
        await world.settle("dear", cost=272_500, task=task)
    budget = world.mesh.context("budget").bus

    async def all_are_handled() -> bool:
        counts = await budget.durable_counts("INBOX_BUDGET", "budget-0")
        applied = await world.edges["0"].store.reply_positions()
        return counts is not None and not counts.pending and not counts.in_work and applied == await reply_ends(budget)

    await until(all_are_handled)
    await world.settled_balance(spent=272_500)
    for task, halts in (("goes-on", True), (TASK, False)):
        rows = await world.mesh.messages("INBOX_JOURNAL", f"mesh.budget.journal.*.{TENANT}.{task}.*")
        assert [row for row in rows if row.headers["ce-type"] == Overran.ce_type()], "the fact and its alarm stay"
        stored = await budget.last("KV_CONTROL", f"$KV.CONTROL.task.{TENANT}.{task}")
        assert (stored is not None) == halts
