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
from bulkhead_contracts.budget import LedgerPart
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.checkpoint import (
    ROLE,
    Checkpointer,
    fold_part,
    parts_of,
    prune_ledger,
    reopen_lapsed,
)
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import (
    Balance,
    LedgerState,
    MetCeiling,
    ReservationDenied,
    ReservationHeld,
    ReservationWaiting,
    Scope,
    StaleLimits,
    UnitSums,
)
from bulkhead_services.budget.ledger.rebuild import LedgerKeeper
from bulkhead_services.budget.ledger.redis.store import RedisStore
from bulkhead_services.budget.ledger.store import LIMITS_READ_MS, Fenced, LedgerStore, LimitsRevision, RedisFailure
from tests.redis_server import EphemeralRedis

LEASE_MS, KEEP_MS = 1_000, 3_600_000
SCOPES = {
    task: (
        Scope(f"task:acme:{task}", UnitSums(40, 40, 9, 7, 60)),
        Scope("day:acme:2026-11-21", UnitSums(70, 60, 15, 15, 90)),
        Scope("user:acme:A|b:2026-11-21", model.NO_LIMIT),
    )
    for task in ("t1", "t2")
}
EPOCHS = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EphemeralRedis]:
    """One Redis for this file."""
    one = EphemeralRedis(tmp_path_factory.mktemp("redis"))
    one.start()
    yield one
    one.stop()


def redis_store(url: str, prefix: str = "test") -> RedisStore:
    return RedisStore(url, prefix=prefix, lease_ms=LEASE_MS, keep_ms=KEEP_MS, timeout_s=2.0, connections=8)


async def nothing() -> None:
    """Stands for what happens between batches."""


async def built(store: LedgerStore, ledger: LedgerState | None = None) -> None:
    """Lay a ledger down under a new epoch, as a rebuild does."""
    token = f"e{next(EPOCHS)}"
    server = await store.connect()
    assert await store.lock_rebuild(token, 10_000)
    await store.write_ledger(token, ledger or LedgerState(LEASE_MS), 0, nothing)
    assert await store.activate_ledger(token, server, {})


# Histories


@dataclass(frozen=True)
class Op:
    name: str
    key: str = ""
    amount: UnitSums = UnitSums()
    task: str = "t1"
    at: int = 0
    estimated: bool = False
    margin: int = 0


KEYS = st.sampled_from([*(f"r{n}" for n in range(6)), "r0-1", "r0-2", "acme/t-1/r1-1"])
AMOUNTS = st.builds(UnitSums, st.integers(0, 30), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3), st.just(0))
USED = st.builds(
    UnitSums, st.integers(0, 30), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3), st.integers(0, 40)
)
OPS = st.one_of(
    st.builds(Op, st.just("reserve"), KEYS, AMOUNTS, st.sampled_from(["t1", "t2"])),
    st.builds(Op, st.just("reserve"), KEYS, AMOUNTS, st.sampled_from(["t1", "t2"]), margin=st.integers(0, 4)),
    st.builds(Op, st.just("read"), at=st.integers(0, 5_000)),
    st.builds(Op, st.just("settle"), KEYS, USED, estimated=st.booleans()),
    st.builds(Op, st.just("stop"), task=st.sampled_from(["t1", "t2"])),
    st.builds(Op, st.just("release"), KEYS),
    st.builds(Op, st.just("holds"), KEYS),
    st.builds(Op, st.just("restore"), KEYS, AMOUNTS, st.sampled_from(["t1", "t2"]), st.integers(0, 3_000)),
    st.builds(Op, st.just("pass"), at=st.integers(1, 800)),
    st.just(Op("checkpoint")),
)


def on_model(ledger: LedgerState, op: Op, now: int) -> object:
    match op.name:
        case "reserve":
            return model.reserve(ledger, op.key, op.amount, SCOPES[op.task], now, op.margin)
        case "read":
            ledger.read_unix_ms = max(ledger.read_unix_ms, op.at)
            return None
        case "settle":
            return model.settle(ledger, op.key, op.amount, op.estimated)
        case "release":
            return model.release(ledger, op.key)
        case "holds":
            return model.is_held_or_settled(ledger, op.key)
        case "stop":
            return model.stop_scope(ledger, f"task:acme:{op.task}")
        case _:
            return model.restore(ledger, op.key, op.amount, SCOPES[op.task], op.at)


async def on_store(store: LedgerStore, op: Op, now: int) -> object:
    match op.name:
        case "reserve":
            return await store.reserve(op.key, op.amount, SCOPES[op.task], now, margin=op.margin)
        case "read":
            return await store.mark_replies_read(op.at)
        case "settle":
            return await store.settle(op.key, op.amount, op.estimated)
        case "release":
            return await store.release(op.key)
        case "holds":
            return await store.is_held_or_settled(op.key)
        case "stop":
            return await store.stop_scope(f"task:acme:{op.task}")
        case _:
            return await store.restore(op.key, op.amount, SCOPES[op.task], op.at)


def conserved(ledger: LedgerState, before: dict[str, Balance]) -> None:
    """What the balances say is what the entries say, and what was settled before a checkpoint: nothing is made and
    nothing is lost."""
    for scope, balance in ledger.balances.items():
        mine = [entry for entry in ledger.entries.values() if scope in {one.name for one in entry.scopes}]
        held = [entry.ask for entry in mine if entry.state == "open"]
        spent = [entry.charged for entry in mine if entry.state == "settled"]
        spent += [entry.ask for entry in mine if entry.state == "lapsed"]
        assert balance.reserved == UnitSums(*(sum(units) for units in zip(*held, strict=True)))
        base = before.get(scope, Balance())
        assert balance.spent == base.spent.plus(UnitSums(*(sum(units) for units in zip(*spent, strict=True))))
        assert balance.settled == base.settled + sum(entry.state == "settled" for entry in mine)


def through_a_checkpoint(ledger: LedgerState, now: int) -> LedgerState:
    """As a rebuild finds it: what is open, and balances. Of what is settled Redis remembers nothing then."""
    prune_ledger(ledger, now, KEEP_MS)
    reopen_lapsed(ledger)
    found = LedgerState(LEASE_MS)
    for part in parts_of(ledger, "c"):
        fold_part(found, LedgerPart.model_validate_json(part.encode()))
    found.settled_earlier.clear()
    # An account of a task that nothing says the end of is written down with its open calls alone.
    live = {scope.name for one in found.entries.values() for scope in one.scopes}
    found.balances = {name: one for name, one in found.balances.items() if name in live or not name.startswith("task:")}
    return found


async def same_history(store: LedgerStore, ops: list[Op]) -> None:
    await built(store)
    ledger, now, before = LedgerState(LEASE_MS), 1_000, dict[str, Balance]()
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
    entries, balances = await store.dump_ledger()
    assert balances == ledger.balances
    assert entries == ledger.entries


@pytest.fixture(scope="module")
def run(server: EphemeralRedis) -> Iterator[Callable[[list[Op]], None]]:
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
async def store(request: pytest.FixtureRequest, server: EphemeralRedis) -> AsyncIterator[LedgerStore]:
    made: LedgerStore = redis_store(server.url) if request.param == "redis" else MemoryStore(lease_ms=LEASE_MS)
    yield made
    await made.close()


@pytest.fixture
async def pair(server: EphemeralRedis) -> AsyncIterator[tuple[RedisStore, RedisStore]]:
    """Two replicas' views of one ledger."""
    first, second = redis_store(server.url, "pair"), redis_store(server.url, "pair")
    await built(first)
    second.adopt_epoch(await second.current_epoch(await second.connect()))
    yield first, second
    await first.close()
    await second.close()


async def test_many_asks_at_once_never_pass_the_limit(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = (Scope("task:acme:t", UnitSums(10_000, 100)),)
    answers = await asyncio.gather(*(pair[n % 2].reserve(f"r{n}", UnitSums(1, 7), scopes, 0) for n in range(100)))
    assert sum(isinstance(answer, ReservationHeld) for answer in answers) == 14
    assert all(isinstance(answer, ReservationHeld | ReservationWaiting) for answer in answers)
    _, balances = await pair[0].dump_ledger()
    assert balances["task:acme:t"].reserved == UnitSums(14, 98)


async def test_the_same_id_at_once_is_held_once(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = (Scope("task:acme:t", UnitSums(10_000, 100)),)
    answers = await asyncio.gather(*(pair[n % 2].reserve("r", UnitSums(1, 7), scopes, n) for n in range(50)))
    assert len(set(answers)) == 1
    _, balances = await pair[0].dump_ledger()
    assert balances["task:acme:t"].reserved == UnitSums(1, 7)


async def test_one_release_of_two_holders_keeps_the_money(pair: tuple[RedisStore, RedisStore]) -> None:
    """One replica's append fails while the other's has answered `reserved`."""
    scopes = (Scope("task:acme:t", UnitSums(100, 100)),)
    await pair[0].reserve("r", UnitSums(1, 7), scopes, 0)
    await pair[1].reserve("r", UnitSums(1, 7), scopes, 0)
    await pair[0].release("r")
    assert (await pair[0].dump_ledger())[1]["task:acme:t"].reserved == UnitSums(1, 7)
    await pair[1].release("r")
    assert (await pair[0].dump_ledger())[1]["task:acme:t"].reserved == UnitSums(0, 0)


async def test_large_amounts_stay_exact(store: LedgerStore) -> None:
    await built(store)
    most = 10**15
    scopes = (Scope("task:acme:t", UnitSums(most, most)),)
    assert isinstance(
        await store.reserve("r", UnitSums(most - 1, most - 1), scopes, 1_790_000_000_123), ReservationHeld
    )
    assert (await store.settle("r", UnitSums(most - 1, most - 1), False)).charged == UnitSums(most - 1, most - 1)
    denied = await store.reserve("s", UnitSums(0, 2), scopes, 1_790_000_000_123)
    assert denied == ReservationDenied(MetCeiling("task:acme:t", "cost_usd_micros", most - 1, 0, 2, most))


async def test_a_ledger_of_another_layout_is_not_believed_by_either_version(
    pair: tuple[RedisStore, RedisStore],
) -> None:
    """N beside N-1, or after it, on one Redis: whoever finds the other's ledger folds its own from the facts."""
    store, older = pair
    told, server = store.epoch, await store.connect()
    # What a program that knows no layouts does: it compares all behind the first blank with the server.
    assert told.partition(" ")[2] != server and await store.current_epoch(server) == told
    await older._redis.set(older._epoch_key, f"{told.partition(' ')[0]} {server}")
    assert await store.current_epoch(server) == ""


async def test_an_old_epoch_changes_nothing(pair: tuple[RedisStore, RedisStore]) -> None:
    scopes = SCOPES["t1"]
    await pair[0].reserve("r", UnitSums(1, 7), scopes, 0)
    await built(pair[1])
    for call in (
        pair[0].reserve("s", UnitSums(1, 1), scopes, 0),
        pair[0].settle("r", UnitSums(1, 1), False),
        pair[0].release("r"),
        pair[0].restore("r", UnitSums(1, 1), scopes, 0),
    ):
        with pytest.raises(Fenced):
            await call
    assert await pair[1].dump_ledger() == ({}, {})


async def test_the_fence_stands_from_the_lock_on(pair: tuple[RedisStore, RedisStore]) -> None:
    """What is read from the journal during a rebuild must not be changed behind its back."""
    await pair[0].release("nothing")
    assert await pair[1].lock_rebuild("rebuilding", 10_000)
    with pytest.raises(Fenced):
        await pair[0].reserve("s", UnitSums(1, 1), SCOPES["t1"], 0)
    with pytest.raises(Fenced):
        await pair[0].restore("s", UnitSums(1, 1), SCOPES["t1"], 0)
    assert not await pair[0].lock_rebuild("another", 10_000)
    await pair[1].unlock_rebuild("rebuilding")
    assert await pair[0].lock_rebuild("another", 10_000)
    assert not await pair[1].activate_ledger("rebuilding", "server", {})
    await pair[0].unlock_rebuild("another")


async def test_burying_an_old_ledger_leaves_one_that_is_being_written(pair: tuple[RedisStore, RedisStore]) -> None:
    first, second = pair
    ledger = LedgerState(LEASE_MS)
    model.restore(ledger, "r", UnitSums(1, 7), SCOPES["t1"], 0)
    server = await second.connect()
    assert await second.lock_rebuild("written", 10_000)
    await second.write_ledger("written", ledger, 0, nothing)
    await first.delete_dead_ledgers()
    assert await second.activate_ledger("written", server, {})
    await second.delete_dead_ledgers()
    assert await second.dump_ledger() == (ledger.entries, ledger.balances)


async def test_a_written_ledger_goes_on_as_the_model_does(server: EphemeralRedis) -> None:
    store, ledger = redis_store(server.url, "written"), LedgerState(LEASE_MS)
    model.restore(ledger, "a", UnitSums(5, 5), SCOPES["t1"], 0)
    model.restore(ledger, "b", UnitSums(5, 5), SCOPES["t1"], 1_500)
    model.settle(ledger, "early", UnitSums(9, 9), False)
    await built(store, ledger)
    for op, now in ((Op("reserve", "early", UnitSums(10, 10)), 2_000), (Op("settle", "a", UnitSums(1, 2)), 2_000)):
        assert await on_store(store, op, now) == on_model(ledger, op, now)
    assert await store.dump_ledger() == (ledger.entries, ledger.balances)
    await store.close()


async def test_what_ended_long_ago_is_left_out_and_what_counts_is_not(server: EphemeralRedis) -> None:
    store, ledger = redis_store(server.url, "pruned"), LedgerState(LEASE_MS)
    model.restore(ledger, "old", UnitSums(5, 5), (Scope("task:acme:old", UnitSums(9, 9)),), 0)
    model.restore(ledger, "new", UnitSums(5, 5), SCOPES["t1"], 10_000)
    token, name = "pruning", await store.connect()
    assert await store.lock_rebuild(token, 10_000)
    await store.write_ledger(token, ledger, 5_000, nothing)
    assert await store.activate_ledger(token, name, {})
    entries, balances = await store.dump_ledger()
    assert set(entries) == {"new"} and set(balances) == {scope.name for scope in SCOPES["t1"]}
    await store.close()


async def test_refusals_survive_a_late_cheap_settlement(store: LedgerStore) -> None:
    """A lapsed reservation that settles small gives room back; what was refused stays refused."""
    await built(store)
    scopes = (Scope("task:acme:t", UnitSums(100, 100)),)
    await store.reserve("slow", UnitSums(0, 90), scopes, 0)
    refused = await store.reserve("next", UnitSums(0, 20), scopes, LEASE_MS)
    assert refused == ReservationDenied(MetCeiling("task:acme:t", "cost_usd_micros", 90, 0, 20, 100))
    assert (await store.settle("slow", UnitSums(0, 1), False)).charged == UnitSums(0, 1)
    assert await store.reserve("next", UnitSums(0, 20), scopes, LEASE_MS) == refused
    assert isinstance(await store.reserve("other", UnitSums(0, 20), scopes, LEASE_MS), ReservationHeld)
    entries, _ = await store.dump_ledger()
    assert replace(entries["slow"], holders=0).state == "settled"


async def test_what_a_dead_doer_held_ahead_returns_when_the_replies_were_read(store: LedgerStore) -> None:
    await built(store)
    scopes, ask = (Scope("task:acme:t", UnitSums(1_000, 1_000)),), UnitSums(0, 10)
    for number, key in enumerate(("r", "r-1", "r-2", "r-3")):
        assert isinstance(await store.reserve(key, ask, scopes, 0, margin=10 if number else 0), ReservationHeld)
    await store.settle("r", UnitSums(0, 1), False)
    await store.mark_replies_read(LEASE_MS // 2 - 1)
    await store.reserve("other", ask, scopes, LEASE_MS)
    assert (await store.read_balance("task:acme:t")) == Balance(UnitSums(0, 40), UnitSums(0, 1), 1), "none is known of"
    await store.mark_replies_read(LEASE_MS // 2)
    await store.reserve("another", ask, scopes, LEASE_MS)
    assert (await store.read_balance("task:acme:t")) == Balance(UnitSums(0, 20), UnitSums(0, 11), 1), "r-1 may be used"


async def test_of_many_whose_lease_is_over_an_admission_ends_some(server: EphemeralRedis) -> None:
    """Nothing else runs in Redis meanwhile. What waits for replies to be read is not looked at until they are."""
    store, scopes = redis_store(server.url, "many"), (Scope("task:acme:t", UnitSums(10_000, 10_000)),)
    ledger = LedgerState(LEASE_MS)
    for number in range(250):
        model.restore(ledger, f"r{number}", UnitSums(0, 1), scopes, 0)
        model.restore(ledger, f"r{number}-1", UnitSums(0, 1), scopes, 0)
    await built(store, ledger)
    for admissions in range(1, 11):
        await store.reserve(f"next{admissions}", UnitSums(0, 1), scopes, LEASE_MS)
        balance = await store.read_balance("task:acme:t")
        assert balance.reserved.cost_usd_micros + balance.spent.cost_usd_micros == 500 + admissions
        assert balance.spent.cost_usd_micros <= 100 * admissions
    assert balance.spent.cost_usd_micros == 250
    await store.mark_replies_read(LEASE_MS)
    for admissions in range(3):
        await store.reserve(f"last{admissions}", UnitSums(0, 1), scopes, LEASE_MS)
    balance = await store.read_balance("task:acme:t")
    assert (balance.reserved.cost_usd_micros, balance.spent.cost_usd_micros) == (13, 250)
    await store.close()


async def test_what_is_held_ahead_is_far_from_every_ceiling(store: LedgerStore) -> None:
    await built(store)
    scopes = (Scope("task:acme:t", UnitSums(1_000, 2_000)), Scope("day:acme:2026-11-21", UnitSums(1_000, 1_000)))
    await store.reserve("r", UnitSums(0, 60), scopes, 0)
    near = await store.reserve("r-1", UnitSums(0, 41), scopes, 0, margin=10)
    assert near == ReservationWaiting(MetCeiling("day:acme:2026-11-21", "cost_usd_micros", 0, 60, 41, 1_000))
    assert isinstance(await store.reserve("r-1", UnitSums(0, 40), scopes, 0, margin=10), ReservationHeld)
    assert isinstance(await store.reserve("r-2", UnitSums(0, 1), scopes, 0, margin=10), ReservationWaiting)
    assert isinstance(await store.reserve("s", UnitSums(0, 900), scopes, 0), ReservationHeld)


async def test_who_is_in_the_middle_of_a_call_while_all_is_connected_anew_gets_an_answer_or_a_failure(
    server: EphemeralRedis,
) -> None:
    """A rebuild connects anew beside the watcher's and everybody's calls; what they get they must be prepared for."""
    store = redis_store(server.url, "anew")
    await built(store)
    for turns in range(-20, 20):  # Of the event loop, by which the calls begin later than the other, or earlier.
        await store.put_value("mark", b"x")
        if turns < 0:
            anew = asyncio.create_task(store.connect())
        for _ in range(-turns):
            await asyncio.sleep(0)
        calls = [
            asyncio.create_task(call)
            for call in (
                store.put_value("mark", b"y"),
                store.get_value("mark"),
                store.settle("r", UnitSums(1, 1), False),
            )
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
    assert await pair[0].take_lead(ROLE, "old", 600_000)
    await new.resign_lead()
    assert not await pair[1].take_lead(ROLE, "new", 600_000), "it was not its to give away"
    await old.resign_lead()
    assert await pair[1].take_lead(ROLE, "new", 600_000)


def _checkpointer(store: RedisStore, holder: str) -> Checkpointer:
    bus = MemoryBus(MemoryBroker.for_mesh(), "budget")
    publisher = Publisher("budget", bus, b"b" * 32, lambda: 1)
    keeper = LedgerKeeper(
        bus, publisher, store, lambda: 1, lease_ms=LEASE_MS, keep_ms=KEEP_MS, rebuild_at_start=True, tail_grace_s=0.0
    )
    return Checkpointer(
        bus,
        publisher,
        store,
        lambda: 1,
        keeper.fold_inboxes,
        holder=holder,
        lease_ms=LEASE_MS,
        keep_ms=KEEP_MS,
        every_s=300.0,
        min_new_messages=10,
    )


@pytest.mark.parametrize(
    ("looked_ms", "good"),
    [
        (0, True),
        (-LIMITS_READ_MS, True),
        (LIMITS_READ_MS, True),
        (-LIMITS_READ_MS - 1, False),
        (LIMITS_READ_MS + 1, False),
        (3_600_000, False),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_look_at_the_limits_is_good_for_seconds_by_whichever_clock(server, kind, looked_ms, good):
    """One whose clock is an hour ahead would hide a change that was not told from everybody for that hour."""
    store: LedgerStore = (
        MemoryStore(lease_ms=LEASE_MS) if kind == "memory" else redis_store(server.url, f"look{looked_ms}")
    )
    await built(store)
    now, revision = 1_795_231_204_272, LimitsRevision("acme", 3)
    assert await store.record_limits_read(revision, now + looked_ms)
    answer = await store.reserve("k", UnitSums(1), SCOPES["t1"], now, revision)
    assert isinstance(answer, ReservationHeld if good else StaleLimits)
    await store.close()
