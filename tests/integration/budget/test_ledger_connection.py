"""Which Redis the ledger is in: one that was emptied, replaced or evicts is not believed; sentinels name the master."""

import asyncio
from pathlib import Path

import pytest

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_services.budget.ledger.model import UnitSums
from bulkhead_services.budget.ledger.store import Fenced, RedisFailure, UnsafeRedis
from tests.integration.budget.test_ledger_redis import SCOPES, built, redis_store, server
from tests.redis_server import EphemeralRedis, server_binary

__all__ = ("server",)


async def test_an_emptied_redis_is_noticed_by_the_next_call(server: EphemeralRedis) -> None:
    store = redis_store(server.url, "emptied")
    await built(store)
    await store.reserve("r", UnitSums(1, 7), SCOPES["t1"], 0)
    await store._redis.flushall()
    with pytest.raises(Fenced):
        await store.reserve("s", UnitSums(1, 7), SCOPES["t1"], 0)
    await store.close()


async def test_another_process_under_the_same_address_is_never_taken_for_the_old(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Even when it has an epoch key with the right value: what came between is unknown."""
    server = EphemeralRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    store, changes = redis_store(server.url), []
    store.on_server_change(lambda: changes.append(True))
    try:
        await built(store)
        epoch = store.epoch
        server.stop()
        with pytest.raises(RedisFailure):
            await store.reserve("r", UnitSums(1, 7), SCOPES["t1"], 0)
        server.start()
        forger = redis_store(server.url)
        await forger.connect()
        await forger._redis.set("{test}:epoch", epoch)
        with pytest.raises(RedisFailure):
            await store.reserve("r", UnitSums(1, 7), SCOPES["t1"], 0)
        assert changes
        assert not await store.current_epoch(await store.connect())
        await forger.close()
    finally:
        await store.close()
        server.stop()


async def test_a_redis_that_evicts_is_not_trusted(tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    server = EphemeralRedis(tmp_path_factory.mktemp("redis"), *options)
    server.start()
    store = redis_store(server.url)
    try:
        with pytest.raises(UnsafeRedis, match="noeviction"):
            await store.connect()
    finally:
        await store.close()
        server.stop()


async def test_sentinels_are_asked_which_redis_is_the_master(server: EphemeralRedis, tmp_path: Path) -> None:
    """Again at every connect: it may be another one by then."""
    sentinel = EphemeralRedis(tmp_path)
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {sentinel.port}\nsentinel monitor mesh 127.0.0.1 {server.port} 1\n")
    away = f"127.0.0.1:{free_port()}"
    watched = f"redis+sentinel://{away},127.0.0.1:{sentinel.port}/mesh"
    process = await asyncio.create_subprocess_exec(
        server_binary(), str(configuration), "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )
    store, direct = redis_store(watched, "watched"), redis_store(server.url, "direct")
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    found = await store.connect()
                    break
                except RedisFailure:
                    await asyncio.sleep(0.02)
        assert found == await direct.connect()
        nobody = redis_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/other", "nobody")
        with pytest.raises(RedisFailure, match="watches no other"):
            await nobody.connect()
    finally:
        process.kill()
        await process.wait()
        await store.close()
        await direct.close()
    with pytest.raises(RedisFailure, match="no sentinel names the master"):
        await store.connect()
