"""What planted bugs showed to be untested: a rebuild whose streams are longer than one page, one that is stopped."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.background import Background
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Amount, Reserved, Settled
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger import model, rebuild
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import Balance, Scope, Sum

SCOPES = (Scope("task:demo:t1", Sum(10**6, 10**6)),)
RESERVED, SETTLED = 5, 9


class Follower(MemoryBroker):
    """What answers reads shows nothing new in the first `blind` of them."""

    blind = 0

    def horizon(self, stream: str) -> int | None:
        if self.blind and stream.startswith("INBOX_"):
            self.blind -= 1
            return 0
        return None


async def say(broker: MemoryBroker) -> None:
    """More settlements than facts, so that the two inboxes end at different sequences."""
    budget = Publisher("budget", MemoryBus(broker, "budget"), b"b" * 32, lambda: 1)
    doer = Publisher("rag", MemoryBus(broker, "rag"), b"r" * 32, lambda: 1)
    for number in range(RESERVED):
        fact = Reserved(
            reservation_id=f"r{number}",
            call_id="c",
            service="rag",
            resource="x",
            amount=Amount(tokens=100),
            scopes=model.scope_limits(SCOPES),
            reserved_unix_ms=1,
        )
        await budget.send("journal", fact, tenant="demo", task="t1", cause=f"r{number}")
    for number in range(SETTLED):
        used = Settled(reservation_id=f"r{number}", call_id="c", usage=Usage(input_tokens=7))
        await doer.send("budget", used, tenant="demo", task="t1", cause=f"r{number}", index=number)


def keeper_of(broker: MemoryBroker, store: MemoryStore) -> rebuild.Keeper:
    bus = MemoryBus(broker, "budget")
    return rebuild.Keeper(
        bus,
        Publisher("budget", bus, b"b" * 32, lambda: 1),
        store,
        lambda: 1,
        lease_ms=60_000,
        keep_ms=60_000,
        rebuild_at_start=True,
        tail_grace_s=0.0,
    )


@asynccontextmanager
async def rebuilt(broker: MemoryBroker):
    store = MemoryStore(lease_ms=60_000)
    keeper = keeper_of(broker, store)
    keeper.start(Background())
    try:
        await keeper.wait_built()
        yield await store.dump()
    finally:
        await keeper.stop()


@pytest.mark.parametrize("blind", [0, 3])
@pytest.mark.parametrize("page", [1, 2, 256])
async def test_a_rebuild_reads_both_inboxes_up_to_their_own_marks(monkeypatch, page, blind):
    monkeypatch.setattr(rebuild, "PAGE", page)
    broker = Follower.mesh()
    await say(broker)
    broker.blind = blind
    async with rebuilt(broker) as (entries, balances):
        states = [one.state for one in entries.values()]
        assert states.count("settled") == RESERVED and states.count("early") == SETTLED - RESERVED
        assert balances["task:demo:t1"] == Balance(Sum(), Sum(tokens=7 * RESERVED), RESERVED)


class Stubborn(MemoryStore):
    """A ledger whose writing takes for ever, in a Redis that is gone when the lock is to be let go for the first time.

    Only then: a keeper that goes on can be stopped by the second try, and this test ends in any case.
    """

    def __init__(self) -> None:
        super().__init__(lease_ms=60_000)
        self.writing, self.begun = asyncio.Event(), 0
        self._gone = True

    async def write(self, *_: object) -> None:
        self.begun += 1
        self.writing.set()
        await asyncio.Event().wait()

    async def unlock(self, token: str) -> None:
        gone, self._gone = self._gone, False
        if gone:
            raise RedisConnectionError("connection reset by peer")


async def test_a_keeper_that_is_stopped_stops_also_when_redis_fails():
    store = Stubborn()
    keeper = keeper_of(MemoryBroker.mesh(), store)
    keeper.start(Background())
    await store.writing.wait()
    store.writing.clear()
    stopping = asyncio.create_task(keeper.stop())
    again = asyncio.create_task(store.writing.wait())
    await asyncio.wait({stopping, again}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    stopped = stopping.done()
    again.cancel()
    stopping.cancel()
    await asyncio.gather(stopping, again, return_exceptions=True)
    assert stopped and store.begun == 1, "it was told to stop, and began to build again"
