"""A grant that ends between the doing and its repetition: what was done keeps its record, what was not is refused."""

import asyncio

import pytest

from bulkhead.bus.memory.clock import VirtualClock
from bulkhead.testing.mesh import MemoryMesh
from tests.eventually import until
from tests.settlements import settlements
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies

pytestmark = pytest.mark.virtual_time

LIFE_MS = 60_000


def mesh_of(doer: Recording, purse: Purse, clock: VirtualClock) -> MemoryMesh:
    return MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}, clock=clock)


async def test_a_repeated_call_that_was_done_gets_its_record_and_its_settlement():
    doer, purse, clock = Recording(), Purse(), VirtualClock()
    async with mesh_of(doer, purse, clock) as mesh:
        token = grant(mesh, expires=clock.now_ms() + LIFE_MS)
        await call(mesh, token)
        first = (await replies(mesh, 1))[0]
        clock.advance(LIFE_MS + 1)
        await call(mesh, token, index=1)
        assert (await replies(mesh, 2))[1] == first and first[1]["outcome"] == "succeeded" and doer.done == 1
        assert len(await settlements(mesh)) == 1


async def test_a_write_that_may_have_been_done_is_uncertain_and_not_refused():
    doer, clock = Recording(writes=True, crash=1), VirtualClock()
    async with mesh_of(doer, Purse(), clock) as mesh:
        await call(mesh, grant(mesh, expires=clock.now_ms() + 1))
        await until(lambda: doer.done)
        clock.advance(2)
        answered = asyncio.create_task(replies(mesh, 1))
        await until(lambda: clock.advance(500) or answered.done())
        assert answered.result()[0][1]["outcome"] == "uncertain" and doer.done == 1


async def test_what_was_never_done_is_refused():
    doer, purse, clock = Recording(), Purse(), VirtualClock()
    async with mesh_of(doer, purse, clock) as mesh:
        token = grant(mesh, expires=clock.now_ms() + LIFE_MS)
        clock.advance(LIFE_MS + 1)
        await call(mesh, token)
        failure = (await replies(mesh, 1))[0][1]["failure"]
        assert failure["code"] == "expired" and failure["hint"] and doer.done == purse.asked == 0


async def test_what_was_refused_is_not_done_by_another_replica_whose_clock_is_behind():
    doer, clock = Recording(), VirtualClock()
    async with mesh_of(doer, Purse(), clock) as mesh:
        token = grant(mesh, expires=clock.now_ms() + LIFE_MS)
        clock.advance(LIFE_MS + 1)
        await call(mesh, token)
        assert (await replies(mesh, 1))[0][1]["outcome"] == "refused"
        mesh.kill_replica("tool_executor")
        mesh._now = lambda: clock.now_ms() - LIFE_MS
        running = await mesh.start("tool_executor", "1")
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_TOOL_EXECUTOR"]
        for sequence in list(durable.pending):
            durable.end_pending(sequence)
        durable.cursor = 0
        mesh.broker.pump_deliveries(durable)
        await until(lambda: running.service.shell.handled)
        assert doer.done == 0 and len({told["outcome"] for _, told in await replies(mesh, 1)}) == 1


async def test_an_expired_grant_of_another_task_opens_no_record():
    doer, clock = Recording(), VirtualClock()
    async with mesh_of(doer, Purse(), clock) as mesh:
        await call(mesh, grant(mesh, expires=clock.now_ms() + LIFE_MS))
        await replies(mesh, 1)
        foreign = grant(mesh, task="t2", expires=clock.now_ms() + LIFE_MS)
        clock.advance(LIFE_MS + 1)
        await call(mesh, foreign, index=1)
        assert (await replies(mesh, 2))[1][1]["failure"]["code"] == "foreign"
