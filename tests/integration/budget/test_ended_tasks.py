"""A call that still waits when its task ends is paid for by nobody."""

from tests.integration.budget.budget_world import TASK, TENANT, World


async def test_a_call_of_a_task_that_has_ended_is_refused_by_name(world: World) -> None:
    await world.ask("r1", cost=30)
    await world.stop()
    await world.charged(1)
    late = await world.ask("r2", cost=30)
    assert (late.decision, late.ended, late.scope) == ("refused", True, f"task:{TENANT}:{TASK}")
    assert f"Task {TASK} has ended" in late.reason and (await world.balance()).reserved.cost_usd_micros == 30
    assert (await world.ask("r3", task="t2")).decision == "reserved"
