"""The ledger's rebuild on a real Redis: its rate, and leaders that die, take long, or end for good."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.background import BackgroundFailed
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.testing.redis_server import EphemeralRedis
from bulkhead_contracts.budget import Amount, Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.model import NO_LIMIT, Scope, UnitSums
from bulkhead_services.budget.ledger.rebuild import LOCK_MS, LedgerKeeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from tests.eventually import until
from tests.integration.budget.budget_world import World

CALLS = 1_500
KEEP_MS = 86_400_000
DAY = time.strftime("%Y-%m-%d", time.gmtime())
"""Of the clock that the ledger keeps by: it forgets an older one."""
MOST_OF_READING = 5.0
"""Processor time of a rebuild over that of reading its messages: 3.1 as measured, and 6.7 before its rows went to
Redis by hundreds in a command and the fold dropped answers that nobody reads. 10,000 facts take 1.0 s of processor time
on a busy machine."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    server = EphemeralRedis(tmp_path)
    server.start()
    redis = RedisStore(server.url, prefix="rate", lease_ms=600_000, keep_ms=KEEP_MS, timeout_s=10.0, connections=4)
    yield redis
    await redis.close()
    server.stop()


async def filled() -> MemoryBroker:
    """The streams of a busy hour: eight calls a task, seven accounts a call."""
    broker, now = MemoryBroker.for_mesh(), unix_ms()
    budget = Publisher("budget", MemoryBus(broker, "budget"), b"b" * 32, unix_ms)
    doer = Publisher("model_gateway", MemoryBus(broker, "model_gateway"), b"m" * 32, unix_ms)
    shared = tuple(
        Scope(name, NO_LIMIT)
        for name in (
            f"agent:acme:a:{DAY}",
            f"user:acme:u:{DAY}",
            f"day:acme:{DAY}",
            f"month:acme:{DAY[:7]}",
            f"mesh:-:{DAY}",
        )
    )
    for number in range(CALLS):
        task, name = f"t{number // 8}", f"r{number}"
        limit, step = UnitSums(10**6, 10**6, 10**6, 10**6, 10**6), f"step:acme:{task}/s{number % 2}"
        scopes = (Scope(f"task:acme:{task}", limit, now + 3_600_000), Scope(step, NO_LIMIT, now + 3_600_000), *shared)
        fact = Reserved(
            reservation_id=name,
            call_id=name,
            service="model_gateway",
            resource="m",
            amount=Amount(tokens=100, cost_usd_micros=100, model_calls=1),
            scopes=model.scope_limits(scopes),
            reserved_unix_ms=now,
        )
        await budget.send("journal", fact, tenant="acme", task=task, cause=name)
        usage = Usage(input_tokens=50, cost_usd_micros=40, model_calls=1)
        await doer.send(
            "budget",
            Settled(reservation_id=name, call_id=name, usage=usage, wall_ms=20),
            tenant="acme",
            task=task,
            cause=name,
        )
    return broker


def reading_s(messages: list[StoredMessage]) -> float:
    """Processor time of checking and decoding them."""
    began = time.process_time()
    for stored in messages:
        inbound.read_message(stored, stored.subject.split(".")[2])
    return time.process_time() - began


async def test_a_rebuild_costs_little_more_than_reading_its_facts(store: RedisStore) -> None:
    broker = await filled()
    messages = [
        stored
        for inbox in ("INBOX_JOURNAL", "INBOX_BUDGET")
        for stored in broker.get_stream(inbox).read("mesh.>", 0, 2 * CALLS)
    ]
    bus = MemoryBus(broker, "budget")
    keeper = LedgerKeeper(
        bus,
        Publisher("budget", bus, b"b" * 32, unix_ms),
        store,
        unix_ms,
        lease_ms=600_000,
        keep_ms=KEEP_MS,
        rebuild_at_start=True,
        tail_grace_s=0.05,
    )
    shares: list[float] = []
    for _ in range(5):
        reading, began = reading_s(messages), time.process_time()
        keeper._fresh = True
        keeper.mark_lost("asked by the test")
        await keeper._ensure_ledger()
        shares.append((time.process_time() - began) / reading)
    _, balances = await store.dump_ledger()
    assert balances[f"day:acme:{DAY}"].spent == UnitSums(50 * CALLS, 40 * CALLS, CALLS, 0, 20 * CALLS)
    assert min(shares) < MOST_OF_READING, f"a rebuild costs {min(shares):.1f} times what reading its facts does"


async def test_a_replica_that_died_while_it_rebuilt_holds_nobody_up_for_long(world: World) -> None:
    edge = world.edges["0"]
    assert await edge.store.lock_rebuild("who died", LOCK_MS)
    edge.keeper.mark_lost("asked by the test")
    began = time.monotonic()
    await world.ready()
    assert time.monotonic() - began < 20, "admissions waited for the lock of a dead replica"


async def test_a_rebuild_that_takes_longer_than_its_lock_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = world.edges["0"]
    monkeypatch.setattr("bulkhead_services.budget.ledger.rebuild.LOCK_MS", 300)
    real = edge.keeper._bus.read

    async def slowly(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(0.6)
        return await real(*args, **more)

    monkeypatch.setattr(edge.keeper._bus, "read", slowly)
    before = edge.keeper.rebuilds
    await edge.store._redis.delete(edge.store._epoch_key)
    edge.keeper._fresh = True
    edge.keeper.mark_lost("asked by the test")
    await world.ready()
    assert edge.keeper.rebuilds == before + 1


async def test_a_replica_does_not_outlive_who_keeps_its_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look healthy, and admit nothing any more. Its watch it does outlive: test_watch_failure.py."""

    async def breaks(_: LedgerKeeper) -> None:
        raise AttributeError("writelines")

    monkeypatch.setattr(LedgerKeeper, "_keep_ledger", breaks)
    running = await world.mesh.start("budget", "1")
    with pytest.raises(BackgroundFailed, match="keeper of the ledger"):
        await asyncio.wait_for(asyncio.shield(running.task), 10)


async def test_a_redis_that_is_there_and_takes_no_writes_is_not_told_to_be_started(world: World) -> None:
    """Its memory is full here; of a full disk it says MISCONF."""
    edge = world.edges["0"]
    await edge.store._redis.config_set("maxmemory", 1)
    edge.keeper._fresh = True
    edge.keeper.mark_lost("asked by the test")
    await until(lambda: _says(edge.keeper, "Redis does not do what it is asked"), timeout_s=10)
    assert "maxmemory" in edge.keeper.reason and edge.keeper.reason.endswith("whether its disk or memory is full")
    await edge.store._redis.config_set("maxmemory", 0)
    await world.ready()


async def _says(keeper: LedgerKeeper, words: str) -> bool:
    return words in keeper.reason
