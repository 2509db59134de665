"""The ledger's rebuild on a real Redis: its rate, and leaders that die, take long, or end for good."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.runtime.background import BackgroundFailed
from bulkhead_services.budget.ledger.rebuild import LOCK_MS, LedgerKeeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from tests.eventually import until
from tests.integration.budget.budget_world import World
from tests.redis_server import EphemeralRedis

KEEP_MS = 86_400_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    server = EphemeralRedis(tmp_path)
    server.start()
    redis = RedisStore(server.url, prefix="rate", lease_ms=600_000, keep_ms=KEEP_MS, timeout_s=10.0, connections=4)
    yield redis
    await redis.close()
    server.stop()


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
    edge.keeper._must_rebuild = True
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
    edge.keeper._must_rebuild = True
    edge.keeper.mark_lost("asked by the test")
    await until(lambda: _says(edge.keeper, "Redis does not do what it is asked"), timeout_s=10)
    assert "maxmemory" in edge.keeper.reason and edge.keeper.reason.endswith("whether its disk or memory is full")
    await edge.store._redis.config_set("maxmemory", 0)
    await world.ready()


async def _says(keeper: LedgerKeeper, words: str) -> bool:
    return words in keeper.reason
