"""Delegated steps whose calls are held back: handed to nobody for a while, and never stuck."""

import pytest

from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.delegation import StepAnswer
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.steps import feed as feeds
from tests.eventually import until
from tests.unit.services.doors.steps_world import StepsWorld, steps_world


async def held(here: StepsWorld, times: int = 1) -> None:
    """The worker has heard so often that the step is held back."""
    await until(lambda: told(here, CallDeferred, times))


async def told(here: StepsWorld, kind, times: int) -> bool:
    return len(await here.bodies(kind, "worker")) == times


async def test_a_step_whose_call_is_never_resumed_goes_to_the_next_holder(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 1_000)
    async with steps_world(step_silent_s=0.2) as here:
        await here.hand_over()
        step = await here.take()
        await here.put_off(step, after_ms=0)
        await held(here)
        with pytest.raises(DoorRefusal, match="held back"):
            await here.desk().submit_answer(here.key(step), StepAnswer(failed="no model answers"))
        assert await here.take(0.5) is None, "nobody is handed what nobody may work on"
        again = await here.take()
        assert (again.id, again.number) == (step.id, 2)
        await until(lambda: told(here, CallResumed, 1))
        assert (await here.desk().submit_answer(here.key(again), StepAnswer(failed="its own reasons"))).accepted


async def test_each_taking_that_meets_the_same_is_followed_by_a_longer_wait(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 100)
    async with steps_world(step_silent_s=0.1) as here:
        await here.hand_over()
        waits = []
        for number in (1, 2, 3):
            step = await here.take()
            assert step.number == number
            feed = here.desk().open.step_feed(*here.place(step))
            before = here.worker.clock()
            await here.put_off(step, after_ms=0)
            await held(here, number)
            await feed.refresh()
            waits.append(round((feed.held_until_unix_ms - before) / 100))
        assert waits == [1, 2, 4]
        await here.say("model_gateway", CallResumed(call_id=f"{step.id[:12]}-{'0' * 32}"), "resumed")
        await until(lambda: told(here, CallResumed, 3))
        assert feed.held_until_unix_ms == 0


async def test_a_call_that_waits_for_a_person_holds_its_step_as_long_as_he_may_take(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 50)
    async with steps_world(step_silent_s=0.1) as here:
        await here.hand_over()
        step = await here.take()
        until_ms = here.worker.clock() + 1_500
        await here.put_off(step, after_ms=0, code="approval_wanted", until_unix_ms=until_ms)
        await held(here)
        assert await here.take(0.5) is None
        assert (await here.take()).number == 2
        assert here.worker.clock() >= until_ms
