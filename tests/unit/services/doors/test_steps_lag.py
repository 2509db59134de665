"""Delegated steps at a replica whose reads are behind what is stored: a lag is waited for, and is no loss."""

import asyncio
from collections.abc import Callable

import pytest

from bulkhead_contracts.delegation import StepAnswer
from bulkhead_contracts.step import StepTaken
from bulkhead_services.doors import feed
from bulkhead_services.doors.feed import INBOX
from bulkhead_services.doors.port import DoorRefusal
from tests.unit.services.doors.steps_world import ME, StepsWorld, steps_world

pytestmark = pytest.mark.virtual_time

CALLS: dict[str, Callable] = {
    "call": lambda desk, key: desk.held_feed(key),
    "record_beat": lambda desk, key: desk.record_beat(key),
    "submit_answer": lambda desk, key: desk.submit_answer(key, StepAnswer(text="60.00")),
}


async def behind(here: StepsWorld) -> Callable[[], None]:
    """Reads of the inbox see nothing of what is stored from now on, until the returned function is called."""
    seen: list[int | None] = [await here.worker.bus.last_sequence(INBOX)]
    here.mesh.broker.horizon = lambda stream: seen[0] if stream == INBOX else None
    return lambda: seen.__setitem__(0, None)


async def taken_unseen(here: StepsWorld):
    """A step that was taken, of whose taking no follower knows yet."""
    await here.hand_over()
    while not here.desk().open.of_identity(ME):
        await asyncio.sleep(0.01)
    catches_up = await behind(here)
    step = await here.take()
    assert step is not None and len(await here.bodies(StepTaken)) == 0
    return step, catches_up


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_holder_is_not_told_that_its_step_is_lost_while_a_follower_lags(call):
    async with steps_world() as here:
        step, catches_up = await taken_unseen(here)
        asyncio.get_running_loop().call_later(0.1, catches_up)
        found = await call(here.desk(), here.key(step))
        assert getattr(found, "go_on", True) and getattr(found, "accepted", True)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_lag_that_stays_is_told_as_one(call, monkeypatch):
    monkeypatch.setattr(feed, "LAG_S", (0.01,))
    monkeypatch.setattr("bulkhead_services.doors.steps.handover.LAG_S", (0.01,))
    async with steps_world() as here:
        step, _ = await taken_unseen(here)
        with pytest.raises(DoorRefusal) as told:
            await call(here.desk(), here.key(step))
        assert (told.value.status, told.value.code, told.value.retry) == (503, "unavailable", True)


async def test_a_step_is_handed_out_when_its_taking_can_be_read():
    async with steps_world() as here:
        await here.hand_over()
        while not here.desk().open.of_identity(ME):
            await asyncio.sleep(0.01)
        catches_up = await behind(here)
        asyncio.get_running_loop().call_later(0.1, catches_up)
        step = await here.take()
        assert len(await here.bodies(StepTaken)) == 1, "not before"
        assert here.desk().open.step_feed(*here.place(step)).taken.number == step.number
