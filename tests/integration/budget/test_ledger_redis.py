"""The ledger in a real Redis against its model: the same random history gives the same answers and the same balances.

And what only a server can show: two clients at once, an emptied memory, another process under the same address.
"""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.testing.redis_server import RedisServer
from bulkhead_contracts.budget import LedgerPart
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.checkpoint import ROLE, Checkpointer, parts_of, prune, reopen, take_part
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import Balance, Ceiling, Denied, Held, Ledger, Scope, Stale, Sum, Waiting
from bulkhead_services.budget.ledger.rebuild import Keeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from bulkhead_services.budget.ledger.store import LOOK_MS, Fenced, RedisFailure, Revision, Store

LEASE_MS, KEEP_MS = 1_000, 3_600_000
SCOPES = {
    task: (
        Scope(f"task:acme:{task}", Sum(40, 40, 9, 7, 60)),
        Scope("day:acme:2026-11-21", Sum(70, 60, 15, 15, 90)),
        Scope("user:acme:A|b:2026-11-21", model.NO_LIMIT),
    )
    for task in ("t1", "t2")
}
EPOCHS = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for this file."""
    one = RedisServer(tmp_path_factory.mktemp("redis"))
    one.start()
    yield one
    one.stop()


def redis_store(url: str, prefix: str = "test") -> RedisStore:
    return RedisStore(url, prefix=prefix, lease_ms=LEASE_MS, keep_ms=KEEP_MS, timeout_s=2.0, connections=8)


async def nothing() -> None:
    """Stands for what happens between batches."""


async def built(store: Store, ledger: Ledger | None = None) -> None:
    """Lay a ledger down under a new epoch, as a rebuild does."""
    token = f"e{next(EPOCHS)}"
    server = await store.connect()
    assert await store.lock(token, 10_000)
    await store.write(token, ledger or Ledger(LEASE_MS), 0, nothing)
    assert await store.switch(token, server)


# Histories


@dataclass(frozen=True)
class Op:
    name: str
    key: str = ""
    amount: Sum = Sum()
    task: str = "t1"
    at: int = 0
    estimated: bool = False


KEYS = st.sampled_from([f"r{n}" for n in range(8)])
AMOUNTS = st.builds(Sum, st.integers(0, 30), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3), st.just(0))
USED = st.builds(Sum, st.integers(0, 30), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3), st.integers(0, 40))
OPS = st.one_of(
    st.builds(Op, st.just("reserve"), KEYS, AMOUNTS, st.sampled_from(["t1", "t2"])),
    st.builds(Op, st.just("settle"), KEYS, USED, estimated=st.booleans()),
    st.builds(Op, st.just("stop"), task=st.sampled_from(["t1", "t2"])),
    st.builds(Op, st.just("release"), KEYS),
    st.builds(Op, st.just("holds"), KEYS),
    st.builds(Op, st.just("restore"), KEYS, AMOUNTS, st.sampled_from(["t1", "t2"]), st.integers(0, 3_000)),
    st.builds(Op, st.just("pass"), at=st.integers(1, 800)),
    st.just(Op("checkpoint")),
)


def on_model(ledger: Ledger, op: Op, now: int) -> object:
    match op.name:
        case "reserve":
            return model.reserve(ledger, op.key, op.amount, SCOPES[op.task], now)
        case "settle":
            return model.settle(ledger, op.key, op.amount, op.estimated)
        case "release":
            return model.release(ledger, op.key)
        case "holds":
            return model.holds(ledger, op.key)
        case "stop":
            return model.stop(ledger, f"task:acme:{op.task}")
        case _:
            return model.restore(ledger, op.key, op.amount, SCOPES[op.task], op.at)


async def on_store(store: Store, op: Op, now: int) -> object:
    match op.name:
        case "reserve":
            return await store.reserve(op.key, op.amount, SCOPES[op.task], now)
        case "settle":
            return await store.settle(op.key, op.amount, op.estimated)
        case "release":
            return await store.release(op.key)
        case "holds":
            return await store.holds(op.key)
        case "stop":
            return await store.stop(f"task:acme:{op.task}")
        case _:
            return await store.restore(op.key, op.amount, SCOPES[op.task], op.at)


def conserved(ledger: Ledger, before: dict[str, Balance]) -> None:
    """What the balances say is what the entries say, and what was settled before a checkpoint: nothing is made and
    nothing is lost."""
    for scope, balance in ledger.balances.items():
        mine = [entry for entry in ledger.entries.values() if scope in {one.name for one in entry.scopes}]
        held = [entry.ask for entry in mine if entry.state == "open"]
        spent = [entry.charged for entry in mine if entry.state == "settled"]
        spent += [entry.ask for entry in mine if entry.state == "lapsed"]
        assert balance.reserved == Sum(*(sum(units) for units in zip(*held, strict=True)))
        base = before.get(scope, Balance())
        assert balance.spent == base.spent.plus(Sum(*(sum(units) for units in zip(*spent, strict=True))))
        assert balance.settled == base.settled + sum(entry.state == "settled" for entry in mine)


def through_a_checkpoint(ledger: Ledger, now: int) -> Ledger:
    """As a rebuild finds it: what is open, and balances. Of what is settled Redis remembers nothing then."""
    prune(ledger, now, KEEP_MS)
    reopen(ledger)
    found = Ledger(LEASE_MS)
    for part in parts_of(ledger, "c"):
        take_part(found, LedgerPart.model_validate_json(part.encode()))
    found.done.clear()
    # An account of a task that nothing says the end of is written down with its open calls alone.
    live = {scope.name for one in found.entries.values() for scope in one.scopes}
    found.balances = {name: one for name, one in found.balances.items() if name in live or not name.startswith("task:")}
    return found


async def same_history(store: Store, ops: list[Op]) -> None:
    await built(store)
    ledger, now, before = Ledger(LEASE_MS), 1_000, dict[str, Balance]()
    for op in ops:
        if op.name == "checkpoint":
            ledger = through_a_checkpoint(ledger, now)
            before = dict(ledger.balances)
            await built(store, copy.deepcopy(ledger))
            continue
        if op.name == "pass":
            now += op.at
            continue
        expected = on_model(ledger, op, now)
        assert await on_store(store, op, now) == expected, op
        conserved(ledger, before)
    entries, balances = await store.dump()
    assert balances == ledger.balances
    assert entries == ledger.entries


@pytest.fixture(scope="module")
def run(server: RedisServer) -> Iterator[Callable[[list[Op]], None]]:
    """Play a history on one Redis, on one loop for all examples."""
    loop = asyncio.new_event_loop()
    store = redis_store(server.url, "histories")
    yield lambda ops: loop.run_until_complete(same_history(store, ops))
    loop.run_until_complete(store.close())
    loop.close()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=st.lists(OPS, max_size=30))
def test_redis_and_the_model_give_the_same_answers_and_balances(run: Callable[[list[Op]], None], ops: list[Op]) -> None:
    run(ops)


@settings(max_examples=50)
@given(ops=st.lists(OPS, max_size=30))
def test_the_memory_store_is_held_to_the_same(ops: list[Op]) -> None:
    asyncio.run(same_history(MemoryStore(lease_ms=LEASE_MS), ops))


# What only a server can show


@pytest.fixture(params=["redis", "memory"])
async def store(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Store]:
    made: Store = redis_store(server.url) if request.param == "redis" else MemoryStore(lease_ms=LEASE_MS)
    yield made
    await made.close()


@pytest.fixture
async def pair(server: RedisServer) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """Two replicas' views of one ledger."""
    first, second = redis_store(server.url, "pair"), redis_store(server.url, "pair")
    await built(first)
    second.adopt(await second.current(await second.connect()))
    yield first, second
    await first.close()
    await second.close()


async def test_many_asks_at_once_never_pass_the_limit(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = (Scope("task:acme:t", Sum(10_000, 100)),)
    answers = await asyncio.gather(*(pair[n % 2].reserve(f"r{n}", Sum(1, 7), scopes, 0) for n in range(100)))
    assert sum(isinstance(answer, Held) for answer in answers) == 14
    assert all(isinstance(answer, Held | Waiting) for answer in answers)
    _, balances = await pair[0].dump()
    assert balances["task:acme:t"].reserved == Sum(14, 98)


async def test_the_same_id_at_once_is_held_once(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = (Scope("task:acme:t", Sum(10_000, 100)),)
    answers = await asyncio.gather(*(pair[n % 2].reserve("r", Sum(1, 7), scopes, n) for n in range(50)))
    assert len(set(answers)) == 1
    _, balances = await pair[0].dump()
    assert balances["task:acme:t"].reserved == Sum(1, 7)


async def test_one_release_of_two_holders_keeps_the_money(pair: tuple[RedisStore, RedisStore]) -> None:
    """One replica's append fails while the other's has answered `reserved`."""
    scopes = (Scope("task:acme:t", Sum(100, 100)),)
    await pair[0].reserve("r", Sum(1, 7), scopes, 0)
    await pair[1].reserve("r", Sum(1, 7), scopes, 0)
    await pair[0].release("r")
    assert (await pair[0].dump())[1]["task:acme:t"].reserved == Sum(1, 7)
    await pair[1].release("r")
    assert (await pair[0].dump())[1]["task:acme:t"].reserved == Sum(0, 0)


async def test_large_amounts_stay_exact(store: Store) -> None:
    await built(store)
    most = 10**15
    scopes = (Scope("task:acme:t", Sum(most, most)),)
    assert isinstance(await store.reserve("r", Sum(most - 1, most - 1), scopes, 1_790_000_000_123), Held)
    assert (await store.settle("r", Sum(most - 1, most - 1), False)).charged == Sum(most - 1, most - 1)
    denied = await store.reserve("s", Sum(0, 2), scopes, 1_790_000_000_123)
    assert denied == Denied(Ceiling("task:acme:t", "cost_usd_micros", most - 1, 0, 2, most))


async def test_a_ledger_of_another_layout_is_not_believed_by_either_version(
    pair: tuple[RedisStore, RedisStore],
) -> None:
    """N beside N-1, or after it, on one Redis: whoever finds the other's ledger folds its own from the facts."""
    store, older = pair
    told, server = store.epoch, await store.connect()
    # What a program that knows no layouts does: it compares all behind the first blank with the server.
    assert told.partition(" ")[2] != server and await store.current(server) == told
    await older._redis.set(older._epoch_key, f"{told.partition(' ')[0]} {server}")
    assert await store.current(server) == ""


async def test_an_old_epoch_changes_nothing(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = SCOPES["t1"]
    await pair[0].reserve("r", Sum(1, 7), scopes, 0)
    await built(pair[1])
    for call in (
        pair[0].reserve("s", Sum(1, 1), scopes, 0),
        pair[0].settle("r", Sum(1, 1), False),
        pair[0].release("r"),
        pair[0].restore("r", Sum(1, 1), scopes, 0),
    ):
        with pytest.raises(Fenced):
            await call
    assert await pair[1].dump() == ({}, {})


async def test_the_fence_stands_from_the_lock_on(pair: tuple[RedisStore, RedisStore]) -> None:
    """What is read from the journal during a rebuild must not be changed behind its back."""
    await pair[0].release("nothing")
    assert await pair[1].lock("rebuilding", 10_000)
    with pytest.raises(Fenced):
        await pair[0].reserve("s", Sum(1, 1), SCOPES["t1"], 0)
    with pytest.raises(Fenced):
        await pair[0].restore("s", Sum(1, 1), SCOPES["t1"], 0)
    assert not await pair[0].lock("another", 10_000)
    await pair[1].unlock("rebuilding")
    assert await pair[0].lock("another", 10_000)
    assert not await pair[1].switch("rebuilding", "server")
    await pair[0].unlock("another")


async def test_burying_an_old_ledger_leaves_one_that_is_being_written(pair: tuple[RedisStore, RedisStore]) -> None:
    first, second = pair
    ledger = Ledger(LEASE_MS)
    model.restore(ledger, "r", Sum(1, 7), SCOPES["t1"], 0)
    server = await second.connect()
    assert await second.lock("written", 10_000)
    await second.write("written", ledger, 0, nothing)
    await first.bury()
    assert await second.switch("written", server)
    await second.bury()
    assert await second.dump() == (ledger.entries, ledger.balances)


async def test_a_written_ledger_goes_on_as_the_model_does(server: RedisServer) -> None:
    store, ledger = redis_store(server.url, "written"), Ledger(LEASE_MS)
    model.restore(ledger, "a", Sum(5, 5), SCOPES["t1"], 0)
    model.restore(ledger, "b", Sum(5, 5), SCOPES["t1"], 1_500)
    model.settle(ledger, "early", Sum(9, 9), False)
    await built(store, ledger)
    for op, now in ((Op("reserve", "early", Sum(10, 10)), 2_000), (Op("settle", "a", Sum(1, 2)), 2_000)):
        assert await on_store(store, op, now) == on_model(ledger, op, now)
    assert await store.dump() == (ledger.entries, ledger.balances)
    await store.close()


async def test_what_ended_long_ago_is_left_out_and_what_counts_is_not(server: RedisServer) -> None:
    store, ledger = redis_store(server.url, "pruned"), Ledger(LEASE_MS)
    model.restore(ledger, "old", Sum(5, 5), (Scope("task:acme:old", Sum(9, 9)),), 0)
    model.restore(ledger, "new", Sum(5, 5), SCOPES["t1"], 10_000)
    token, name = "pruning", await store.connect()
    assert await store.lock(token, 10_000)
    await store.write(token, ledger, 5_000, nothing)
    assert await store.switch(token, name)
    entries, balances = await store.dump()
    assert set(entries) == {"new"} and set(balances) == {scope.name for scope in SCOPES["t1"]}
    await store.close()


async def test_refusals_survive_a_late_cheap_settlement(store: Store) -> None:
    """A lapsed reservation that settles small gives room back; what was refused stays refused."""
    await built(store)
    scopes = (Scope("task:acme:t", Sum(100, 100)),)
    await store.reserve("slow", Sum(0, 90), scopes, 0)
    refused = await store.reserve("next", Sum(0, 20), scopes, LEASE_MS)
    assert refused == Denied(Ceiling("task:acme:t", "cost_usd_micros", 90, 0, 20, 100))
    assert (await store.settle("slow", Sum(0, 1), False)).charged == Sum(0, 1)
    assert await store.reserve("next", Sum(0, 20), scopes, LEASE_MS) == refused
    assert isinstance(await store.reserve("other", Sum(0, 20), scopes, LEASE_MS), Held)
    entries, _ = await store.dump()
    assert replace(entries["slow"], holders=0).state == "settled"


async def test_who_is_in_the_middle_of_a_call_while_all_is_connected_anew_gets_an_answer_or_a_failure(
    server: RedisServer,
) -> None:
    """A rebuild connects anew beside the watcher's and everybody's calls; what they get they must be prepared for."""
    store = redis_store(server.url, "anew")
    await built(store)
    for turns in range(-20, 20):  # Of the event loop, by which the calls begin later than the other, or earlier.
        await store.keep("mark", b"x")
        if turns < 0:
            anew = asyncio.create_task(store.connect())
        for _ in range(-turns):
            await asyncio.sleep(0)
        calls = [
            asyncio.create_task(call)
            for call in (store.keep("mark", b"y"), store.kept("mark"), store.settle("r", Sum(1, 1), False))
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns >= 0:
            anew = asyncio.create_task(store.connect())
        for ended in await asyncio.gather(anew, *calls, return_exceptions=True):
            assert not isinstance(ended, Exception) or isinstance(ended, (*RedisFailure, Fenced)), (turns, ended)
        await built(store)
    await store.close()


async def test_who_goes_lets_its_successor_make_checkpoints_and_nobody_else_gives_its_place_away(
    pair: tuple[RedisStore, RedisStore],
) -> None:
    """A lease lasts two intervals, ten minutes by default: who is replaced must not hold it to its end."""
    old, new = (_checkpointer(store, name) for store, name in zip(pair, ("old", "new"), strict=True))
    assert await pair[0].lead(ROLE, "old", 600_000)
    await new.resign()
    assert not await pair[1].lead(ROLE, "new", 600_000), "it was not its to give away"
    await old.resign()
    assert await pair[1].lead(ROLE, "new", 600_000)


def _checkpointer(store: RedisStore, holder: str) -> Checkpointer:
    bus = MemoryBus(MemoryBroker.mesh(), "budget")
    publisher = Publisher("budget", bus, b"b" * 32, lambda: 1)
    keeper = Keeper(
        bus, publisher, store, lambda: 1, lease_ms=LEASE_MS, keep_ms=KEEP_MS, rebuild_at_start=True, tail_grace_s=0.0
    )
    return Checkpointer(
        bus,
        publisher,
        store,
        lambda: 1,
        keeper.fold_on,
        holder=holder,
        lease_ms=LEASE_MS,
        keep_ms=KEEP_MS,
        every_s=300.0,
        messages=10,
    )


@pytest.mark.parametrize(
    ("looked_ms", "good"),
    [(0, True), (-LOOK_MS, True), (LOOK_MS, True), (-LOOK_MS - 1, False), (LOOK_MS + 1, False), (3_600_000, False)],
)
@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_look_at_the_limits_is_good_for_seconds_by_whichever_clock(server, kind, looked_ms, good):
    """One whose clock is an hour ahead would hide a change that was not told from everybody for that hour."""
    store: Store = MemoryStore(lease_ms=LEASE_MS) if kind == "memory" else redis_store(server.url, f"look{looked_ms}")
    await built(store)
    now, revision = 1_795_231_204_272, Revision("acme", 3)
    assert await store.look(revision, now + looked_ms)
    answer = await store.reserve("k", Sum(1), SCOPES["t1"], now, revision)
    assert isinstance(answer, Held if good else Stale)
    await store.close()
