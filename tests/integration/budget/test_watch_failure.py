"""A bug in the watcher's detectors, in budgets on a real Redis: money is admitted all the while, the watch is begun
anew, what it cannot take is left out and told once, and the rest is found by whoever leads."""

import json

import pytest

from bulkhead.health.loops.windows import LoopDetector
from bulkhead.runtime.process.service import Service
from bulkhead_cli.operate import services
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.time_slices import SlicedFold
from tests.eventually import until
from tests.integration.budget import budget_world
from tests.integration.budget.test_watcher import World, _len, world

__all__ = ("world",)


def running(world: World, instance: str) -> Service:
    return world.mesh.running["budget", instance].service


async def test_a_message_that_breaks_the_watch_is_left_out_and_told_once_and_a_loop_behind_it_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, raised = LoopDetector.fold_act, list[str]()

    def raises(self: LoopDetector, act: object) -> object:
        if "boom" in str(getattr(act, "arguments", "")):
            raised.append(str(act))
            raise ValueError("a bug")
        return take(self, act)  # type: ignore[arg-type]

    monkeypatch.setattr(LoopDetector, "fold_act", raises)
    await world.mesh.start("budget", "1")
    await until(lambda: world.watcher("1").caught_up)
    await world.submit("t1")
    await world.call("t1", arguments='{"q":"boom"}')
    await until(lambda: _len(world.tripped("t1"), 1))
    (told,) = await world.tripped("t1")
    assert (told.detector, told.level, told.halted) == ("watch.left_out", "warn", False) and len(told.evidence) == 1
    await world.submit("t2")
    for _ in range(4):
        await world.call("t2")
    await until(lambda: _len(world.tripped("t2"), 2))
    assert [one.level for one in await world.tripped("t2")] == ["warn", "stop"] and len(await world.halted("t2")) == 1
    await until(lambda: all(world.watcher(one).caught_up for one in "01"))
    assert len(raised) == 4, "each replica tried it twice"
    for one in "01":
        assert "leaves out 1 message" in running(world, one).describe_degradation() and world.edges[one].is_ready()
    assert len(await world.tripped("t1")) == 1


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
        asker = budget_world.World(world.mesh, world.edges)
        await asker.asked_until("reserved", "r1")
        assert running(world, "0").is_ready() and not world.watcher().leads
        said = json.dumps({"ready": True, "degraded": running(world, "0").describe_degradation()})
        assert "the watcher finds nothing now: its fold ended by ZeroDivisionError" in services.degraded_reason(said)
        await world.submit("t1")
        for _ in range(4):
            await world.call("t1")
    await until(lambda: _len(world.tripped("t1"), 2))
    await until(lambda: not running(world, "0").describe_degradation())
    assert len(await world.halted("t1")) == 1


async def test_a_fold_that_never_ends_holds_money_up_twice_and_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, begun = LoopDetector.fold_act, list[str]()

    def endless(self: LoopDetector, act: object) -> object:
        if "boom" in str(getattr(act, "arguments", "")):
            begun.append(str(act))
            while True:
                pass
        return take(self, act)  # type: ignore[arg-type]

    monkeypatch.setattr(LoopDetector, "fold_act", endless)
    await until(lambda: world.watcher().caught_up)
    world.watcher()._pace = SlicedFold(world.watcher()._clock, 0.25)
    await world.submit("t1")
    await world.call("t1", arguments='{"q":"boom"}')
    await until(lambda: _len(world.tripped("t1"), 1))
    asker = budget_world.World(world.mesh, world.edges)
    await asker.asked_until("reserved", "r1")
    (told,) = await world.tripped("t1")
    assert told.detector == "watch.left_out" and "FoldTooLong in" in told.what and len(begun) == 2
    await world.submit("t2")
    for _ in range(4):
        await world.call("t2")
    await until(lambda: _len(world.tripped("t2"), 2))


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
