"""Reservations ahead: what steps usually do is asked for once, used in order, one after the other, and given back."""

import asyncio

import pytest

from bulkhead.runtime.doer import reservations_ahead
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled, settlements_of
from bulkhead_contracts.control import Halt
from bulkhead_contracts.result import Usage
from bulkhead_contracts.tool import ToolCallReplied
from tests.eventually import until
from tests.settlements import settlements
from tests.unit.bulkhead.runtime.consume.test_loop import mesh_messages
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant

pytestmark = pytest.mark.virtual_time

AHEAD_MS = 60_000


class Generous(Purse):
    """A budget that is far from every ceiling."""

    def __init__(self, ahead_ms: int = AHEAD_MS) -> None:
        super().__init__()
        self.asks: list[ReserveRequested] = []
        self.ahead_ms, self.delay_s = ahead_ms, 0.0

    async def reserve(self, received: ReceivedMessage):
        self.asks.append(received.body)
        await asyncio.sleep(self.delay_s)
        ahead = len(received.body.ahead)
        return ReserveReplied(
            reservation_id=received.body.reservation_id, decision="reserved", ahead=ahead, ahead_ms=self.ahead_ms
        )


class Charging(Recording):
    """Each call is of the tool that its id names, and costs what stands behind it; `cut` in the id: it dies."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[str] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def act(self, job, hands, turn):
        name, _, cost = job.request.call_id.partition("_")
        cost, _, times = cost.partition("_")
        held = await hands.reserve_attempt(
            job,
            job.request.call_id,
            0,
            purpose="tool",
            resource=name,
            worst_case=Amount(tool_calls=1, cost_usd_micros=int(cost)),
        )
        self.used.append(held.reservation_id)
        await self.may_end.wait()
        if times == "cut" and self.done == 0:
            self.done += 1
            raise RuntimeError("dies after it has reserved")
        held.settle(Usage(tool_calls=1, cost_usd_micros=1))
        return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="succeeded", usage=Usage(tool_calls=1))


class Steps:
    """Makes calls of steps, one after the other, as an agent does."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self.mesh, self.replies = mesh, 0

    async def take(self, task: str, *call_ids: str) -> None:
        for call_id in call_ids:
            self.replies += 1
            await call(self.mesh, grant(self.mesh, task), call_id, self.replies, task=task)
            await mesh_messages(self.mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", self.replies)
            await until(self.is_learned, "the doer knows that its reply is stored")

    def is_learned(self) -> bool:
        """Nothing that a step asked for is open: what it does next is counted."""
        replicas = [replica for (name, _), replica in self.mesh.running.items() if name == "tool_executor"]
        steps = [step for replica in replicas for step in replica.service.handler.reserver.ahead._steps.values()]
        return not any(step.unsettled for step in steps)

    def describe_counted_calls(self) -> str:
        """What the doer has counted, and when, for a failure's message."""
        [replica] = [replica for (name, _), replica in self.mesh.running.items() if name == "tool_executor"]
        ahead = replica.service.handler.reserver.ahead
        rows = [(row.call.resource if row.call else "", row.times, row.arrived) for row in ahead._next_calls.values()]
        steps = [(place.task, step.path is not None, round(step.last_s, 2)) for place, step in ahead._steps.items()]
        return f"at {asyncio.get_running_loop().time():.2f} s: next calls {rows}, steps {steps}"

    async def learn(self, *call_ids: str) -> None:
        for number in range(reservations_ahead.MIN_STEPS):
            await self.take(f"before{number}", *call_ids)


CALLS = ("add_40", "look_20", "look_8")


@pytest.fixture
async def steps():
    """A mesh in which three steps have made the same calls."""
    doer, purse = Charging(), Generous()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        steps = Steps(mesh)
        steps.doer, steps.purse = doer, purse
        await steps.learn(*CALLS)
        purse.asks.clear()
        doer.used.clear()
        yield steps


async def given_back(mesh: MemoryMesh) -> list[str]:
    [stored] = await mesh_messages(mesh, "INBOX_BUDGET", "mesh.tool_executor.budget.>", 1)
    bodies = settlements_of(Settled.model_validate_json(stored.body))
    assert all(body.usage == Usage() and not body.estimated for body in bodies)
    return [body.reservation_id for body in bodies]


async def test_a_step_that_does_what_steps_do_asks_once(steps):
    await steps.take("t1", *CALLS)
    [ask] = steps.purse.asks
    first = ask.reservation_id
    assert [(row.resource, row.agent, row.worst_case.cost_usd_micros) for row in ask.ahead] == [
        ("look", "worker", 25),
        ("look", "worker", 10),
    ], "with some headroom"
    assert steps.doer.used == [first, f"{first}-1", f"{first}-2"]
    settled = {one.reservation_id: one.call_id for one in await settlements(steps.mesh)}
    assert [settled[name] for name in steps.doer.used] == list(CALLS)
    await asyncio.sleep(60)
    assert not await steps.mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>"), "nothing is left over"


async def test_what_steps_did_differently_is_not_foreseen(steps):
    await steps.take("other", "add_40", "look_20", "add_40_b")
    counted = steps.describe_counted_calls()
    steps.purse.asks.clear()
    await steps.take("t1", *CALLS)
    # The second is the same in all, the third is not.
    assert [len(ask.ahead) for ask in steps.purse.asks] == [1, 0], counted


async def test_what_a_step_does_not_use_is_given_back_by_one_message(steps):
    await steps.take("t1", "add_40")
    [ask] = steps.purse.asks
    await asyncio.sleep(reservations_ahead.RETURN_AFTER_S - 1)
    assert not await steps.mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>")
    await asyncio.sleep(1 + reservations_ahead.LOOK_EVERY_S)
    assert await given_back(steps.mesh) == [f"{ask.reservation_id}-1", f"{ask.reservation_id}-2"]
    await steps.take("t1", "look_20")
    assert steps.doer.used[-1] == steps.purse.asks[-1].reservation_id, "given back, it is asked for anew"


async def test_what_is_held_is_given_back_when_the_replica_ends():
    doer, purse = Charging(), Generous()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        steps = Steps(mesh)
        await steps.learn(*CALLS)
        await steps.take("t1", "add_40")
        replica = mesh.running["tool_executor", "0"]
        replica.service.drain()
        await replica.task
        assert [name[-2:] for name in await given_back(mesh)] == ["-1", "-2"]


async def test_a_replica_that_was_killed_gives_nothing_back_and_the_next_one_asks_anew(steps):
    await steps.take("t1", "add_40")
    steps.mesh.kill_replica("tool_executor")
    await steps.mesh.start("tool_executor")
    await steps.take("t1", "look_20")
    assert steps.doer.used == [ask.reservation_id for ask in steps.purse.asks], "what is held returns with its lease"
    assert not await steps.mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>")


async def test_another_call_gives_back_in_its_own_reply(steps):
    await steps.take("t1", "add_40", "add_40_b")
    first, second = (ask.reservation_id for ask in steps.purse.asks)
    unused = [one.reservation_id for one in await settlements(steps.mesh) if one.usage == Usage()]
    assert unused == [f"{first}-1", f"{first}-2"] and steps.doer.used[-1] == second
    assert not await steps.mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>")


async def test_what_does_not_fit_is_asked_for(steps):
    await steps.take("t1", "add_40", "look_26")
    assert steps.doer.used[-1] == steps.purse.asks[-1].reservation_id and len(steps.purse.asks) == 2


async def test_what_is_held_for_one_task_is_no_other_tasks(steps):
    await steps.take("t1", "add_40")
    await steps.take("t2", "look_20")
    assert [ask.reservation_id for ask in steps.purse.asks] == steps.doer.used


async def test_calls_side_by_side_ask_each_for_itself(steps):
    """Of two that are under way nobody could tell which one was used, should their doer die."""
    await steps.take("t1", "add_40")
    steps.doer.may_end.clear()
    await call(steps.mesh, grant(steps.mesh, "t1"), "look_20_a", 101, task="t1")
    await call(steps.mesh, grant(steps.mesh, "t1"), "look_8_b", 102, task="t1")
    await asyncio.sleep(1)
    first, second = (ask.reservation_id for ask in steps.purse.asks)
    assert steps.doer.used == [first, f"{first}-1", second]
    steps.doer.may_end.set()
    await mesh_messages(steps.mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", steps.replies + 2)
    assert f"{first}-2" in {one.reservation_id for one in await settlements(steps.mesh) if one.usage == Usage()}


async def test_what_the_first_of_two_holds_that_ask_together_is_given_back(steps):
    """The second was begun before it was known that the first holds some."""
    steps.purse.delay_s = 1.0
    for number, name in enumerate(("add_40_a", "add_40_b")):
        await call(steps.mesh, grant(steps.mesh, "t1"), name, 101 + number, task="t1")
    await mesh_messages(steps.mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", steps.replies + 2)
    first, second = steps.purse.asks
    assert len(first.ahead) == 2 and not second.ahead
    assert await given_back(steps.mesh) == [f"{first.reservation_id}-1", f"{first.reservation_id}-2"]


async def test_what_was_held_too_long_is_not_used():
    doer, purse = Charging(), Generous(ahead_ms=3_000)
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        steps = Steps(mesh)
        await steps.learn(*CALLS)
        purse.asks.clear()
        await steps.take("t1", "add_40")
        await asyncio.sleep(3)
        await steps.take("t1", "look_20")
        assert [ask.reservation_id for ask in purse.asks] == doer.used[-2:], "its lease may end under the call"


async def test_a_call_that_died_is_done_again_under_another_reservation(steps):
    await steps.take("t1", "add_40", "look_20_cut")
    first, second = (ask.reservation_id for ask in steps.purse.asks)
    assert steps.doer.used == [first, f"{first}-1", second]
    settled = {one.reservation_id: one for one in await settlements(steps.mesh)}
    assert settled[f"{first}-1"].estimated and settled[f"{first}-1"].usage.cost_usd_micros == 25, "in full"
    assert settled[f"{first}-2"].usage == Usage()


async def test_a_halt_stops_a_call_for_which_money_is_held(steps):
    await steps.take("t1", "add_40")
    halt = Halt(scope="task", name="t1", tenant="demo", code="halted", reason="enough", by="ada", at_unix_ms=1)
    bus, key = steps.mesh.context("budget").bus, subjects.halt_key("task", "demo", "t1")
    await bus.publish(key, halt.model_dump_json().encode(), {}, "halt")
    await asyncio.sleep(1)
    await steps.take("t1", "look_20")
    assert len(steps.doer.used) == 1, "nothing was called"
    assert len(steps.purse.asks) == 1, "and nothing asked for"


async def test_a_much_smaller_call_is_not_charged_what_larger_ones_may_use(steps):
    await steps.take("t1", "add_40", "look_2")
    assert [len(ask.ahead) for ask in steps.purse.asks] == [2, 1]
    assert not steps.doer.used[1].startswith(steps.doer.used[0])


async def test_nothing_is_asked_ahead_or_remembered_for_a_program_outside(steps):
    await steps.take("doors-1", *CALLS)
    assert [len(ask.ahead) for ask in steps.purse.asks] == [0, 0, 0]
