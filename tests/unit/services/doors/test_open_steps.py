"""The steps that a replica knows: none is forgotten by a lag, by other identities' steps, or by a start."""

import asyncio

import pytest

from bulkhead.callers.step_keys import WorkerIdentity
from bulkhead_contracts.step import DelegationReplied, StepCancelRequested
from bulkhead_services.doors.feed import INBOX
from bulkhead_services.doors.steps import open_steps
from bulkhead_services.doors.steps.feed import StepFeed
from tests.eventually import until
from tests.unit.services.doors.steps_world import ME, TENANT, StepsWorld, steps_world

pytestmark = pytest.mark.virtual_time

OTHER = WorkerIdentity(TENANT, "wrk_other")


async def cancel(here: StepsWorld, task: str) -> None:
    body = StepCancelRequested(step_id="a", attempt=1, plan_version=1, reason="its time is up")
    await here.say("worker", body, "cancel", task)


async def replied(here: StepsWorld) -> list[str]:
    return [row.failure.code for row in await here.bodies(DelegationReplied, "worker")]


async def test_a_step_that_a_follower_does_not_show_at_once_is_offered_when_it_does():
    async with steps_world() as here:
        seen: list[int | None] = [0]
        here.mesh.broker.horizon = lambda stream: seen[0] if stream == INBOX else None
        await here.hand_over()
        await asyncio.sleep(1.0)  # The message is handled, and its news looked at, meanwhile.
        seen[0] = None
        assert await here.take() is not None


async def test_a_step_whose_own_feed_lags_behind_its_discovery_is_offered(monkeypatch):
    stale = 2

    async def refresh(self) -> None:
        nonlocal stale
        stale -= 1
        if stale < 0:
            await super(StepFeed, self).refresh()

    monkeypatch.setattr(StepFeed, "refresh", refresh, raising=False)
    async with steps_world() as here:
        await here.hand_over()
        assert await here.take() is not None


async def test_an_identitys_steps_beyond_its_bound_follow_and_keep_no_other_identity_waiting(monkeypatch):
    monkeypatch.setattr(open_steps, "MAX_OPEN", 2)
    async with steps_world() as here:
        for number in range(5):
            await here.hand_over(f"t{number}")
        await here.hand_over("other", to=OTHER)
        assert (await here.take(by=OTHER)).task == "other"
        await until(lambda: len(here.desk().open.of_identity(ME)) == 2)
        tasks = set()
        for _ in range(5):
            step = await here.take()
            tasks.add(step.task)
            await cancel(here, step.task)
        assert tasks == {f"t{number}" for number in range(5)}


async def test_a_cancel_of_a_step_beyond_the_bound_is_answered(monkeypatch):
    monkeypatch.setattr(open_steps, "MAX_OPEN", 1)
    async with steps_world() as here:
        await here.hand_over("t1")
        await until(lambda: here.desk().open.of_identity(ME))
        await here.hand_over("t2")
        await cancel(here, "t2")
        await until(lambda: replied(here))
        assert await replied(here) == ["cancelled"]


async def test_a_cancel_that_a_poll_sees_first_is_answered():
    async with steps_world() as here:
        await here.hand_over()
        await until(lambda: here.desk().open.of_identity(ME))
        [(place, open_)] = here.desk().open.of_identity(ME)
        await cancel(here, "t1")
        await here.desk()._try_taking(place, open_, "host-1")
        await until(lambda: replied(here))
        assert await replied(here) == ["cancelled"]


async def test_a_replica_that_starts_finds_old_steps_behind_others_words():
    async with steps_world() as here:
        await here.hand_over()
        for number in range(20):
            await cancel(here, f"another-{number}")
        await here.mesh.start("doors", "1")
        here.mesh.kill_replica("doors", "0")
        step = await here.take(instance="1")
        assert step is not None and step.task == "t1"


async def test_a_new_step_wakes_those_alone_who_wait_for_one_of_its_identity():
    async with steps_world() as here:
        mine, others = here.desk().open.wake_event(ME), here.desk().open.wake_event(OTHER)
        foreign = here.desk().open.wake_event(WorkerIdentity("acme", ME.name))
        await here.hand_over()
        await until(lambda: mine.is_set())
        assert not others.is_set() and not foreign.is_set()


async def test_of_many_who_wait_for_one_step_one_has_it_and_the_rest_go_on_waiting():
    async with steps_world() as here:
        waiting = [asyncio.create_task(here.take(1.0)) for _ in range(20)]
        await asyncio.sleep(0.1)
        await here.hand_over()
        found = await asyncio.gather(*waiting)
        assert [step.number for step in found if step is not None] == [1]
