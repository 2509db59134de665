"""A bug in the watcher's detectors, in budgets on a real Redis: money is admitted all the while, the watch is begun
anew, what it cannot take is left out and told once, and the rest is found by whoever leads."""

import pytest

from bulkhead.runtime.process.service import Service
from bulkhead_cli.operate import services
from bulkhead_services.budget.watch.fold import WatchFold
from tests.eventually import until
from tests.integration.budget import budget_world
from tests.integration.budget.test_watcher import World, _len, world

__all__ = ("world",)


def running(world: World, instance: str) -> Service:
    return world.mesh.running["budget", instance].service


async def test_money_is_admitted_while_the_watch_is_down_and_it_goes_on_when_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = []

    def raises(self: WatchFold, now_unix_ms: int) -> None:
        times.append(now_unix_ms)
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(WatchFold, "pass_time", raises)
        task = world.mesh.running["budget", "0"].task
        await until(lambda: len(times) > 1 or task.done())
        assert not task.done(), "budget goes on"
        asker = budget_world.World(world.mesh, world.edges, in_replies=True)
        await asker.asked_until("reserved", "r1")
        assert running(world, "0").is_ready() and not world.watcher().leads
        report = {"ready": True, "degraded": running(world, "0").describe_degradation()}
        assert "the watcher finds nothing now: its fold ended by ZeroDivisionError" in services.degraded_reason(report)
        await world.submit("t1")
        for _ in range(4):
            await world.call("t1")
    await until(lambda: _len(world.tripped("t1"), 2))
    await until(lambda: not running(world, "0").describe_degradation())
    assert len(await world.halted("t1")) == 1


async def test_a_standby_whose_watch_stands_takes_over_from_a_leader_whose_watch_is_broken(world: World) -> None:
    await until(lambda: world.watcher().leads)
    await world.mesh.start("budget", "1")
    await until(lambda: world.watcher("1").caught_up)

    async def raises() -> None:
        raise ZeroDivisionError("a bug")

    world.watcher()._confirm_suspicions = raises  # type: ignore[method-assign]
    await until(lambda: world.watcher("1").leads)
    await world.submit("t1")
    for _ in range(4):
        await world.call("t1")
    await until(lambda: _len(world.tripped("t1"), 2))
    assert len(await world.halted("t1")) == 1
    assert (
        not world.watcher().leads
        and running(world, "0").describe_degradation()
        and not running(world, "1").describe_degradation()
    )
