"""What is said a little later with others, in which order, and that a task goes on meanwhile."""

import asyncio

import pytest

from bulkhead.bus.port import PublishRefused
from bulkhead.flow import InboxMessage, Send, Transition
from bulkhead.runtime.publish import coalesce
from bulkhead.runtime.publish.coalesce import PublishQueue
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.result import Failure
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import Progressed, StepStarted, TaskEnded
from tests.unit.bulkhead.runtime.consume import test_loop as shells

pytestmark = pytest.mark.virtual_time


async def waits(queue: PublishQueue, said: list[str], name: str, *, can_wait: bool) -> None:
    await queue.wait_turn(can_wait=can_wait)
    said.append(name)


async def test_what_is_patient_goes_together_after_a_moment_and_in_order(monkeypatch):
    monkeypatch.setattr(coalesce, "HOLD_S", 0.05)
    queue, said, loop = PublishQueue(), [], asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(waits(queue, said, f"p{n}", can_wait=True))
        await asyncio.sleep(0)
        assert said == []
    assert said == ["p0", "p1", "p2"]
    assert loop.time() - began >= 0.05


async def test_what_is_not_takes_with_it_what_came_before_and_nothing_that_comes_passes(monkeypatch):
    monkeypatch.setattr(coalesce, "HOLD_S", 60)
    queue, said = PublishQueue(), []
    async with asyncio.TaskGroup() as group:
        group.create_task(waits(queue, said, "p0", can_wait=True))
        lost = group.create_task(waits(queue, said, "lost", can_wait=True))
        group.create_task(waits(queue, said, "p1", can_wait=True))
        await asyncio.sleep(0)
        lost.cancel()
        group.create_task(waits(queue, said, "now", can_wait=False))
        await asyncio.sleep(0)
        # Those before were let go and have not run: it must not pass them.
        await waits(queue, said, "later", can_wait=False)
    assert said == ["p0", "p1", "now", "later"]
    await asyncio.wait_for(waits(queue, said, "alone", can_wait=False), 5)


async def test_who_was_let_go_and_is_cancelled_holds_nobody(monkeypatch):
    monkeypatch.setattr(coalesce, "HOLD_S", 60)
    queue, said = PublishQueue(), []
    first = asyncio.ensure_future(waits(queue, said, "first", can_wait=True))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(waits(queue, said, "second", can_wait=False))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    alone = waits(queue, said, "third", can_wait=False)
    with pytest.raises(StopIteration):
        alone.send(None)  # At once, without a turn of the loop.
    assert said == ["second", "third"]


class Telling(shells.Counting):
    """A planner that tells of each step that ended, and of the task's end at the third message."""

    service = "planner"
    opening = frozenset({StepFinished})

    def decide(self, state: shells.Count, message: InboxMessage) -> Transition[shells.Count]:
        count = len(state.heard) + 1
        state = shells.Count((*state.heard, str(count)))
        started = StepStarted(step_id=f"s{count}", attempt=1, title="", plan_version=1)
        if count < 3:
            return Transition(state, (Send("gateway", Progressed(started=(started,))),))
        return Transition(state, (Send("gateway", TaskEnded(status="failed", failure=Failure(code="x", message="x"))),))


async def test_a_task_s_progress_is_told_before_its_end_however_patient_it_is(monkeypatch):
    monkeypatch.setattr(coalesce, "HOLD_S", 60)
    async with MemoryMesh({"planner": lambda c: {1: Telling()}}) as mesh:
        for n in range(3):
            said = StepFinished(step_id="s", attempt=n + 1, plan_version=1, result=shells.Result(summary="x"))
            await mesh.context("worker").publisher.send(
                "planner", said, tenant="demo", task="t1", cause="", index=f"t1/{n}"
            )
        wanted = subjects.task_filter("gateway", "demo", "t1")
        await mesh.wait_for_fact(wanted, TaskEnded)
        told = [one.ce_type for one in await mesh.messages("INBOX_GATEWAY", wanted)]
        assert told == [Progressed.ce_type(), Progressed.ce_type(), TaskEnded.ce_type()]


async def hold_first(mesh: MemoryMesh) -> tuple[asyncio.Event, asyncio.Event]:
    """Let the worker's first publish stand until the second event; the first tells that it is under way."""
    bus = mesh.running[("worker", "0")].bus
    publish, under_way, go = bus.publish, asyncio.Event(), asyncio.Event()

    async def held(*args, **kwargs):
        if not under_way.is_set():
            under_way.set()
            await go.wait()
            if refuse:
                refuse.pop()
                raise PublishRefused("a planted refusal")
        return await publish(*args, **kwargs)

    refuse: list[bool] = mesh.__dict__.setdefault("refuse", [])
    bus.publish = held  # type: ignore[method-assign]
    return under_way, go


@pytest.mark.parametrize("refused", [False, True])
async def test_a_task_goes_on_while_what_it_said_is_being_stored(refused):
    async with MemoryMesh({"worker": lambda c: {1: shells.Counting()}}) as mesh:
        under_way, go = await hold_first(mesh)
        if refused:
            mesh.__dict__["refuse"].append(True)
        await shells.say(mesh, shells.assigned())
        await asyncio.wait_for(under_way.wait(), 5)
        await shells.say(mesh, shells.cancel("m1"), index=1)
        assert await shells.summaries(mesh, 1) == ["open,m1"]
        go.set()
        # What was refused is said when its message comes again; the fold is whole whoever says what first.
        assert sorted(await shells.summaries(mesh, 2)) == ["open", "open,m1"]
        await shells.say(mesh, shells.cancel("m2"), index=2)
        assert (await shells.summaries(mesh, 3))[-1] == "open,m1,m2"


async def test_a_message_is_acked_when_all_that_it_says_is_stored():
    async with MemoryMesh({"worker": lambda c: {1: shells.Counting()}}, ack_wait_ms=300) as mesh:
        under_way, go = await hold_first(mesh)
        await shells.say(mesh, shells.assigned())
        await asyncio.wait_for(under_way.wait(), 5)
        await shells.say(mesh, shells.cancel("m1"), index=1)
        await shells.summaries(mesh, 1)
        mesh.kill_replica("worker")
        go.set()
        # Never acked, it comes again to another replica, which says it.
        await mesh.start("worker", "1")
        assert sorted(await shells.summaries(mesh, 2)) == ["open", "open,m1"]
