"""Whom a halt holds back is woken when it is lifted: once, also when that was a moment before; nobody else is."""

import asyncio

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.doer.deferred_calls import DeferredCall, DeferredCalls
from bulkhead.runtime.halts.live import Halts, HaltTarget, Key, is_breaker_key
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import Breaker, CallResumed, Halt
from bulkhead_contracts.envelope import Envelope, derive_id

NOW = 1_795_231_204_272
TASK, TENANT = ("task", "demo", "t1"), ("tenant", "", "demo")


class World:
    """A doer's view of halts, and the inboxes of those who ask it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker.for_mesh()
        self.bus = MemoryBus(self.broker, "model_gateway")
        self.halts = Halts(self.bus)
        self.deferred = DeferredCalls(Publisher("model_gateway", self.bus, b"k" * 32, lambda: NOW), self.halts)

    async def says(self, key: Key, *, active: bool, at: int = NOW) -> None:
        """An entry, as this replica hears it."""
        scope, tenant, name = key
        halt = Halt(
            active=active,
            scope=scope,
            tenant=tenant,
            name=name,
            code="halted_by_operator",
            reason="why",
            by="ann",
            pauses=True,
            at_unix_ms=at,
        )
        subject = subjects.halt_key(scope, tenant, name)
        await self.bus.publish(subject, halt.model_dump_json().encode(), {}, f"{subject}/{at}/{active}")
        await self.halts.load()

    def puts_off(self, call: str, key: Key = TASK, since: int = NOW, asked: int = 0) -> None:
        head = Envelope(id=derive_id("worker", call, asked), type="x", source="worker", time_unix_ms=NOW, logic=3)
        self.deferred.defer_call(key, since, DeferredCall("worker", "demo", "t1", call, "s1", head))

    async def woken(self) -> list[str]:
        """Calls of which was said by now that they go on, when everything is said."""
        waking = asyncio.create_task(self.deferred.run())
        while self.deferred._to_resume or self.deferred._woken.is_set():
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        waking.cancel()
        found = self.broker.get_stream("INBOX_WORKER").read(">", 0, 1000)
        bodies = [catalog.decode_body(one.ce_type, one.body) for one in found]
        assert all(isinstance(one, CallResumed) for one in bodies)
        assert {one.headers["ce-logicversion"] for one in found} <= {"3"}
        return [one.call_id for one in bodies]


@pytest.fixture
async def world() -> World:
    return World()


async def test_of_two_halts_each_wakes_its_own(world: World) -> None:
    await world.says(TASK, active=True)
    await world.says(TENANT, active=True)
    world.puts_off("a")
    world.puts_off("b", TENANT)
    world.puts_off("c")
    await world.says(TASK, active=False, at=NOW + 1)
    assert await world.woken() == ["a", "c"]
    await world.says(TENANT, active=False, at=NOW + 1)
    assert await world.woken() == ["a", "c", "b"]


async def test_a_call_that_was_put_off_again_and_again_is_woken_once(world: World) -> None:
    await world.says(TASK, active=True)
    for asked in range(3):
        world.puts_off("a", asked=asked)
    await world.says(TASK, active=False, at=NOW + 1)
    await world.says(TASK, active=False, at=NOW + 2)
    assert await world.woken() == ["a"]


async def test_what_was_lifted_while_the_call_was_put_off_wakes_it(world: World) -> None:
    await world.says(TASK, active=False, at=NOW + 5)
    world.puts_off("a", since=NOW)
    assert await world.woken() == ["a"]
    world.puts_off("b", since=NOW + 6)
    assert await world.woken() == ["a"], "an older word: this halt is to be heard of yet"
    await world.says(TASK, active=True, at=NOW + 6)
    await world.says(TASK, active=False, at=NOW + 9)
    assert await world.woken() == ["a", "b"]


async def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten(world: World) -> None:
    world.deferred._in_order_of_age.most = 3
    for call in "abcde":
        world.puts_off(call, TENANT if call in "ab" else TASK)
    assert TENANT not in world.deferred._waiting and len(world.deferred._in_order_of_age) == 3
    await world.says(TASK, active=True)
    await world.says(TASK, active=False, at=NOW + 1)
    assert await world.woken() == ["c", "d", "e"] and not world.deferred._in_order_of_age


async def test_whom_a_breaker_holds_back_is_woken_when_it_is_closed_and_by_no_halt_of_its_name(world: World) -> None:
    agent = ("agent", "demo", "worker-step")

    async def breaker(phase: str, at: int) -> None:
        one = Breaker(
            scope="agent",
            tenant="demo",
            name="worker-step",
            phase=phase,
            since_unix_ms=at,  # type: ignore[arg-type]
            until_unix_ms=at + 30_000,
        )
        key = subjects.breaker_key(*agent)
        await world.bus.publish(key, one.model_dump_json().encode(), {}, f"{key}/{phase}/{at}")
        await world.halts.load()

    await breaker("open", NOW)
    held = world.halts.holding_breaker(HaltTarget("demo", "t1", ("worker.step",)), NOW)
    assert held is not None and is_breaker_key(held.key) and not is_breaker_key(agent)
    world.puts_off("a", held.key)
    await world.says(agent, active=False, at=NOW + 1)
    await breaker("half_open", NOW + 2)
    assert await world.woken() == [], "it is only tried"
    await breaker("closed", NOW + 3)
    assert await world.woken() == ["a"]
    world.puts_off("b", held.key)
    assert await world.woken() == ["a", "b"], "it was closed while the call was put off"
    await breaker("open", NOW + 4)
    world.puts_off("c", held.key, since=NOW + 4)
    assert await world.woken() == ["a", "b"]
