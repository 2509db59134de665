"""A rebuild of the ledger: streams of several pages, one that is stopped, facts that only a newer version can read."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import TaskStopped
from bulkhead_services.budget.ledger import model, rebuild
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import Balance, LedgerState, Scope, UnitSums
from tests.samples import sample

SCOPES = (Scope("task:demo:t1", UnitSums(10**6, 10**6)),)
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
        fact = sample(Reserved, reservation_id=f"r{number}", scopes=model.scope_limits(SCOPES))
        await budget.send("journal", fact, tenant="demo", task="t1", cause=f"r{number}")
    for number in range(SETTLED):
        used = Settled(reservation_id=f"r{number}", call_id="c", usage=Usage(input_tokens=7))
        await doer.send("budget", used, tenant="demo", task="t1", cause=f"r{number}", index=number)


def keeper_of(broker: MemoryBroker, store: MemoryStore) -> rebuild.LedgerKeeper:
    bus = MemoryBus(broker, "budget")
    return rebuild.LedgerKeeper(
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
    keeper.start(BackgroundTasks())
    try:
        await keeper.wait_until_built()
        yield await store.dump_ledger()
    finally:
        await keeper.stop()


@pytest.mark.parametrize("blind", [0, 3])
@pytest.mark.parametrize("page", [1, 2, 256])
async def test_a_rebuild_reads_both_inboxes_up_to_their_own_marks(monkeypatch, page, blind):
    monkeypatch.setattr(rebuild, "PAGE", page)
    broker = Follower.for_mesh()
    await say(broker)
    broker.blind = blind
    async with rebuilt(broker) as (entries, balances):
        states = [one.state for one in entries.values()]
        assert states.count("settled") == RESERVED and states.count("early") == SETTLED - RESERVED
        assert balances["task:demo:t1"] == Balance(UnitSums(), UnitSums(tokens=7 * RESERVED), RESERVED)


class Stubborn(MemoryStore):
    """A ledger whose writing takes for ever, in a Redis that is gone when the lock is to be let go for the first time.

    Only then: a keeper that goes on can be stopped by the second try, and this test ends in any case.
    """

    def __init__(self) -> None:
        super().__init__(lease_ms=60_000)
        self.writing, self.begun = asyncio.Event(), 0
        self._gone = True

    async def write_ledger(self, *_: object) -> None:
        self.begun += 1
        self.writing.set()
        await asyncio.Event().wait()

    async def unlock_rebuild(self, token: str) -> None:
        gone, self._gone = self._gone, False
        if gone:
            raise RedisConnectionError("connection reset by peer")


async def test_a_keeper_that_is_stopped_stops_also_when_redis_fails():
    store = Stubborn()
    keeper = keeper_of(MemoryBroker.for_mesh(), store)
    keeper.start(BackgroundTasks())
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


async def test_a_mark_that_comes_late_when_another_rebuild_has_marked_is_refused() -> None:
    """Its writer stood still behind the lock, and the lock ran out: no fact of the ledger that stands came too late."""
    broker = MemoryBroker.for_mesh()
    slow, other = [keeper_of(broker, MemoryStore(lease_ms=60_000)) for _ in range(2)]
    lock = slow._store.lock_rebuild

    async def stands_still(token: str, lock_ms: int) -> bool:
        held = await lock(token, lock_ms)
        other.start(BackgroundTasks())
        await other.wait_until_built()
        return held

    slow._store.lock_rebuild = stands_still
    assert "sequence" in await slow._try_ensure_ledger()
    marks = broker.get_stream("INBOX_JOURNAL").read("mesh.budget.journal.*.ledger.ledger.*", 0, 10)
    assert [json.loads(one.body)["epoch"] for one in marks] == [other.epoch.partition(" ")[0]]
    await other.stop()


LEASE_MS, NOW = 60_000, 1_795_231_204_272
EXAMPLES = Path(catalog.__file__).parents[1] / "examples"


def told(kind: str, sender: str = "budget", receiver: str = "journal") -> StoredMessage:
    head = Envelope(id="a" * 32, type=kind, source=sender, time_unix_ms=NOW, cause="c", actor="p")
    return StoredMessage(subjects.mesh_subject(sender, receiver, "demo", "t1"), head.to_headers(), b"{}", 7, NOW)


@pytest.mark.parametrize("kind", ["mesh.budget.forecast.v1", "mesh.control.rehearsed.v3"])
def test_a_later_fact_that_moves_no_money_is_left_out(kind: str) -> None:
    ledger = LedgerState(LEASE_MS)
    rebuild.fold_stored(ledger, told(kind))
    assert ledger == LedgerState(LEASE_MS)


@pytest.mark.parametrize(
    ("kind", "sender", "receiver"),
    [
        (f"{Reserved.TYPE}.v99", "budget", "journal"),
        (f"{Settled.TYPE}.v99", "rag", "budget"),
        (f"{TaskStopped.TYPE}.v99", "planner", "budget"),
        ("mesh.ledger.refunded.v1", "budget", "journal"),
    ],
)
def test_a_later_fact_that_moves_money_leaves_no_ledger(kind: str, sender: str, receiver: str) -> None:
    with pytest.raises(Unreadable, match="start the newer version of budget"):
        rebuild.fold_stored(LedgerState(LEASE_MS), told(kind, sender, receiver))


def test_whatever_changes_a_ledger_is_known_by_its_name() -> None:
    """Else the version before would leave it out: give it another name, or the version before a way to read it."""
    moved = set()
    for row in catalog.ROWS:
        for sender, receiver in row.edges:
            if row.plane != "mesh" or not (receiver == "budget" or (sender, receiver) == ("budget", "journal")):
                continue
            kind = f"{row.body.TYPE}.v{row.body.VERSION}"
            body = catalog.decode_body(kind, (EXAMPLES / f"{kind}.json").read_bytes())
            ledger = LedgerState(LEASE_MS)
            head = envelope.parse(told(kind, sender, receiver).headers)
            rebuild.fold_message(ledger, ReceivedMessage(head, body, "demo", "t1", sender, 7, NOW, receiver=receiver))
            if ledger != LedgerState(LEASE_MS):
                moved.add(row.body.TYPE)
    assert {Reserved.TYPE, Settled.TYPE, TaskStopped.TYPE} <= moved
    assert all(name in rebuild.FOLDED_TYPES or name.startswith(rebuild.MONEY_TYPE_PREFIX) for name in moved)
