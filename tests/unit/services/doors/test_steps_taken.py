"""A step is taken when nothing can fail any more, and answered without a byte in the store that does not count."""

import asyncio

import pytest

from bulkhead_contracts.delegation import StepAnswer
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import DelegationReplied, StepTaken
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.port import Caller, DoorRefusal
from tests.eventually import until
from tests.unit.services.doors.doors_world import asked
from tests.unit.services.doors.steps_world import ME, ROLE, steps_world

pytestmark = pytest.mark.virtual_time


async def test_a_step_whose_objective_is_gone_fails_and_is_taken_by_nobody():
    async with steps_world() as here:
        await here.hand_over(objective=ContentRef(author="gateway", sha256="0" * 64, size_bytes=1))
        assert await here.take(3.0) is None
        [reply] = await until(lambda: here.bodies(DelegationReplied, "worker"))
        assert reply.failure.code == "content_missing" and not await here.bodies(StepTaken)


async def test_a_holder_that_goes_while_its_taking_is_stored_leaves_the_step_free():
    async with steps_world() as here:
        await here.hand_over()
        desk = here.desk()
        whole, there = desk._publish_fact, asyncio.Event()

        async def write(*given):
            found = await whole(*given)
            there.set()
            await asyncio.sleep(10)
            return found

        desk._publish_fact = write
        gone = asyncio.create_task(here.take())
        await there.wait()
        gone.cancel()
        await asyncio.wait({gone})
        desk._publish_fact = whole
        assert (await here.take(3.0)).number == 2, "and not only after 15 s"


async def test_who_waits_for_a_step_is_let_go_by_a_replica_that_goes_away():
    async with steps_world() as here:
        waiting = asyncio.create_task(here.take(60.0))
        await asyncio.sleep(0)
        here.desk().open.close()
        async with asyncio.timeout(3):
            assert await waiting is None and await here.take(60.0) is None


async def test_late_and_repeated_answers_leave_nothing_in_the_store_and_the_first_is_counted(tmp_path):
    (tmp_path / "tenants.yaml").write_text("tenants: {demo: {quota: {request_bytes_per_day: 1048576}}}")
    async with steps_world(tenants_file=tmp_path / "tenants.yaml") as here:
        desk, stored = here.desk(), []
        put = here.doors()._context.blobs.put

        async def count(tenant, text, *more):
            stored.append(text)
            return await put(tenant, text, *more)

        here.doors()._context.blobs.put = count
        await here.hand_over()
        key = here.key(await here.take())
        for name, size in (("ann", 515_000), (ME.name, 500_000)):
            desk._stored.count_contents("demo", name, [name.encode() * (size // len(name))])
        with pytest.raises(DoorRefusal) as told:
            await desk.submit_answer(key, StepAnswer(text="y" * 60_000))
        assert told.value.code == "too_many_bytes" and not stored
        assert not (await desk.submit_answer(key, StepAnswer(text="one"))).repeated
        assert (await desk.submit_answer(key, StepAnswer(text="one"))).repeated
        for late in (StepAnswer(text="two"), StepAnswer(text="one", missing=("a page",)), StepAnswer(failed="no")):
            with pytest.raises(DoorRefusal, match="too late"):
                await desk.submit_answer(key, late)
        assert stored == ["one"]


async def test_the_key_of_a_holder_that_lost_the_step_answers_nothing():
    async with steps_world(step_silent_s=0.5) as here:
        await here.hand_over()
        lost, held = here.key(await here.take()), here.key(await here.take(5.0))
        assert (lost.number, held.number) == (1, 2)
        with pytest.raises(DoorRefusal, match="another holder has the step"):
            await here.desk().submit_answer(lost, StepAnswer(text="first"))
        assert not (await here.desk().submit_answer(held, StepAnswer(text="60.00"))).repeated


async def test_a_holders_calls_are_counted_to_its_own_identity():
    async with steps_world(max_calls_per_person=1, hold_s=5) as here:
        await here.hand_over()
        step = await here.take()
        claim = RequesterClaim(tenant=ME.tenant, person=ME.name, role="submitter", via="api_key")
        by = Caller(claim=claim, token="", step=here.key(step))
        await here.doors().begin_model_call(by, asked("one"))  # No model gateway answers: it stays in flight.
        with pytest.raises(DoorRefusal) as told:
            await here.doors().begin_model_call(by, asked("two"))
        assert told.value.code == "too_many_calls"


async def test_steps_without_an_answer_are_shown_to_their_tenant_with_who_has_them():
    async with steps_world() as here:
        first, other = await here.hand_over("t1"), await here.hand_over("t2")
        step = await here.take()
        [taken, free] = await until(lambda: here.desk().list_open(ME.tenant).steps)
        assert (taken.id, taken.task, taken.step, taken.role) == (step.id, step.task, "a", ROLE)
        assert (taken.holder, taken.identity, taken.number) == ("host-1", ME.name, 1)
        assert taken.asked_unix_ms <= taken.taken_unix_ms < taken.deadline_unix_ms
        assert {taken.id, free.id} == {first, other} and (free.holder, free.number, free.taken_unix_ms) == ("", 0, 0)
        await here.put_off(step)
        assert await until(lambda: here.desk().list_open(ME.tenant).steps[0].held_until_unix_ms)
        assert here.desk().list_open("acme").steps == ()
        await here.desk().submit_answer(here.key(step), StepAnswer(text="60.00"))
        await until(lambda: [one.id for one in here.desk().list_open(ME.tenant).steps] == [free.id])
