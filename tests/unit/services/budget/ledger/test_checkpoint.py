"""A checkpoint and the tail after it give the ledger that all messages give, wherever the cut lies."""

import asyncio
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.clock import VirtualClock
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Amount, LedgerPart, Reserved, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger import checkpoint, model, rebuild
from bulkhead_services.budget.ledger.checkpoint import Checkpointer, fold_part, parts_of, prune_ledger, reopen_lapsed
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import LedgerState, Scope, UnitSums
from bulkhead_services.budget.ledger.replies import ReplyEdge
from tests.samples import sample

LEASE_MS, DAY_MS, NOW = 60_000, 86_400_000, 1_795_231_204_272
SCOPES = tuple(
    (Scope(f"task:demo:{task}", UnitSums(10**9, 10**9), NOW + 1), Scope("month:demo:2026-11", model.NO_LIMIT))
    for task in ("t1", "t2")
)


@dataclass(frozen=True)
class Call:
    """One call: how much it held, when it was reserved, settled (or never), and for what."""

    ask: int
    used: int
    settles: bool
    late: int
    task: int


CALLS = st.lists(
    st.builds(Call, st.integers(0, 90), st.integers(0, 120), st.booleans(), st.integers(0, 6), st.integers(0, 1)),
    max_size=25,
)


def streams(calls: list[Call]) -> list[tuple[str, int]]:
    """What happens, in order: each settlement after its reservation, later by as much as the call took."""
    events = [(at * 2, "fact", at) for at in range(len(calls))]
    events += [(at * 2 + 1 + 2 * one.late, "settled", at) for at, one in enumerate(calls) if one.settles]
    return [(kind, at) for _, kind, at in sorted(events)]


def happen(ledger: LedgerState, calls: list[Call], event: tuple[str, int]) -> None:
    kind, at = event
    call = calls[at]
    if kind == "fact":
        model.restore(ledger, f"r{at}", UnitSums(call.ask, call.ask, 1), SCOPES[call.task], NOW)
    else:
        model.settle(ledger, f"r{at}", UnitSums(call.used, call.used, 1, 0, 7), False)


@given(calls=CALLS, data=st.data())
def test_a_checkpoint_and_its_tail_are_the_whole_ledger(calls: list[Call], data: st.DataObject) -> None:
    events = streams(calls)
    cut = data.draw(st.integers(0, len(events)))
    # More facts than settlements may lie before the cut, never the other way round.
    ahead = [one for one in events[cut:] if one[0] == "fact"][: data.draw(st.integers(0, 3))]
    before, after = events[:cut] + ahead, [one for one in events[cut:] if one not in ahead]
    whole, first, second = LedgerState(LEASE_MS), LedgerState(LEASE_MS), LedgerState(LEASE_MS)
    for event in before:
        happen(first, calls, event)
    prune_ledger(first, NOW, 10 * DAY_MS)
    reopen_lapsed(first)
    for part in parts_of(first, "c"):
        fold_part(second, LedgerPart.model_validate_json(part.encode()))
    for event in before + after:
        happen(whole, calls, event)
    # A settlement may come again long after its reservation was forgotten, and another replica's copy of the fact late.
    again = [one for one in before if one[0] == "settled"][:2]
    again += data.draw(st.permutations([("fact", at) for _, at in again] + again))
    for event in after + again:
        happen(second, calls, event)
    assert second.balances == whole.balances
    live = {key: one for key, one in whole.entries.items() if one.state == "open"}
    assert {key: one for key, one in second.entries.items() if one.state == "open"} == live


def test_what_is_over_is_forgotten_and_a_month_and_what_nobody_settled_are_not() -> None:
    ledger = LedgerState(LEASE_MS)
    names = ("day:demo:2026-11-18", "day:demo:2026-11-20", "month:demo:2026-10", "month:demo:2026-11")
    scopes = (
        Scope("task:demo:old", model.NO_LIMIT, NOW - 2 * LEASE_MS),
        *(Scope(one, model.NO_LIMIT) for one in names),
    )
    model.restore(ledger, "lost", UnitSums(9, 9), scopes, NOW - 20 * DAY_MS)
    model.restore(ledger, "open", UnitSums(1, 1), scopes[3:], NOW - LEASE_MS * 3)
    prune_ledger(ledger, NOW, 10 * DAY_MS)
    reopen_lapsed(ledger)
    assert set(ledger.entries) == {"open"} and ledger.entries["open"].state == "open"
    # 2026-11-21: yesterday is kept for calls that end after midnight.
    assert set(ledger.balances) == {"day:demo:2026-11-20", "month:demo:2026-11"}
    assert ledger.balances["month:demo:2026-11"] == model.Balance(UnitSums(), UnitSums(9, 9))._replace(
        reserved=UnitSums(1, 1) if "month:demo:2026-11" in {one.name for one in scopes[3:]} else UnitSums()
    )


async def said(broker: MemoryBroker, first: int, last: int, *, in_replies: bool = False) -> None:
    budget = Publisher("budget", MemoryBus(broker, "budget"), b"b" * 32, lambda: NOW)
    doer = Publisher("rag", MemoryBus(broker, "rag"), b"r" * 32, lambda: NOW)
    for number in range(first, last):
        fact = sample(Reserved, reservation_id=f"r{number}", scopes=model.scope_limits(SCOPES[0]), reserved_unix_ms=NOW)
        await budget.send("journal", fact, tenant="demo", task="t1", cause=f"r{number}")
        if number % 3:
            used = Settled(reservation_id=f"r{number}", call_id="c", usage=Usage(input_tokens=7))
            told = CallDeferred(call_id="c", after_ms=1, settled=(used,)) if in_replies else used
            receiver = EDGE.asker if in_replies else "budget"
            await doer.send(receiver, told, tenant="demo", task="t1", cause=f"r{number}")


EDGE = ReplyEdge("rag", "worker")


def made(broker: MemoryBroker, store: MemoryStore, now: int = NOW) -> tuple[rebuild.LedgerKeeper, Checkpointer]:
    bus = MemoryBus(broker, "budget")
    publisher = Publisher("budget", bus, b"b" * 32, lambda: now)
    keeper = rebuild.LedgerKeeper(
        bus,
        publisher,
        store,
        lambda: now,
        lease_ms=LEASE_MS,
        keep_ms=10 * DAY_MS,
        rebuild_at_start=True,
        tail_grace_s=0.0,
    )
    return keeper, Checkpointer(
        bus,
        publisher,
        store,
        lambda: now,
        keeper.fold_inboxes,
        holder="0",
        lease_ms=LEASE_MS,
        keep_ms=10 * DAY_MS,
        every_s=60.0,
        min_new_messages=10,
    )


async def test_a_rebuild_reads_the_newest_checkpoint_and_the_tail_and_needs_nothing_from_before(monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_CHECKPOINT_ROWS", 4)
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    store = MemoryStore(lease_ms=LEASE_MS)
    keeper, checkpointer = made(broker, store)
    await said(broker, 0, 20)
    assert await checkpointer.make_checkpoint() and not await checkpointer.make_checkpoint(), "nothing new: none is due"
    await said(broker, 20, 31)
    assert await checkpointer.make_checkpoint(at_once=True)
    await said(broker, 31, 40)
    start = await checkpoint.newest_checkpoint(MemoryBus(broker, "budget"), LEASE_MS, 10**9, 10**9)
    assert start.journal_sequence > 31 and len(start.ledger.entries) == 11
    taken: list[str] = []
    real = rebuild.fold_stored
    monkeypatch.setattr(
        rebuild, "fold_stored", lambda ledger, stored: (taken.append(stored.subject), real(ledger, stored))
    )
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    entries, balances = await store.dump_ledger()
    settled = sum(1 for number in range(40) if number % 3)
    assert balances["month:demo:2026-11"] == model.Balance(
        UnitSums(tokens=100 * (40 - settled)), UnitSums(tokens=7 * settled), settled
    )
    assert {key.rpartition("/")[2] for key, one in entries.items() if one.state == "open"} == {
        f"r{number}" for number in range(0, 40, 3)
    }
    assert len([one for one in taken if one.endswith(".demo.t1.-")]) == 9 + 6, "only the tail was read"


async def test_a_checkpoint_larger_than_what_calls_for_one_calls_for_no_other(monkeypatch) -> None:
    """Else the leader makes one at every look, though nothing happens."""
    monkeypatch.setattr(checkpoint, "MAX_CHECKPOINT_ROWS", 2)
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
    await said(broker, 0, 40)
    assert await checkpointer.make_checkpoint()
    seal = await MemoryBus(broker, "budget").last(checkpoint.JOURNAL_INBOX, checkpoint.SEALS)
    assert len(json.loads(seal.body)["parts"]) > 10
    assert not await checkpointer.make_checkpoint()
    await said(broker, 40, 45)
    assert not await checkpointer.make_checkpoint()
    await said(broker, 45, 48)
    assert await checkpointer.make_checkpoint()


async def test_a_replica_that_is_restarted_often_makes_the_checkpoint_that_is_due(monkeypatch) -> None:
    """A checkpoint is due by the facts since the last one, whatever the uptime of the replica that looks."""
    monkeypatch.setattr(checkpoint, "FIRST_LOOK_S", 0.0, raising=False)
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    for first in (0, 20):
        await said(broker, first, first + 20)
        _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
        looking = asyncio.create_task(checkpointer.run())
        await asyncio.sleep(0.1)
        looking.cancel()
        assert checkpointer.made == 1
    _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
    looking = asyncio.create_task(checkpointer.run())
    await asyncio.sleep(0.1)
    looking.cancel()
    assert checkpointer.made == 0, "nothing new: none is due"


async def test_an_ask_that_comes_late_for_what_was_settled_before_the_checkpoint_holds_nothing() -> None:
    """It had been under way for long, and was asked again meanwhile: nobody hears of its answer."""
    broker, store, now = MemoryBroker.for_mesh(clock=VirtualClock(NOW)), MemoryStore(lease_ms=LEASE_MS), NOW + 20_000
    keeper, checkpointer = made(broker, store)
    await said(broker, 0, 5)
    assert await checkpointer.make_checkpoint(at_once=True)
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    before = (await store.dump_ledger())[1]
    key, ask = model.entry_key("rag", "demo", "t1", "r4"), UnitSums(tokens=100)
    assert await store.reserve(key, ask, SCOPES[0], now) == model.ReservationConflict(UnitSums(), settled=True)
    assert (await store.settle(key, UnitSums(tokens=7), False)).kind == "repeated" and await store.is_held_or_settled(
        key
    )
    assert (await store.dump_ledger())[1] == before
    other = model.entry_key("rag", "demo", "t1", "r99")
    assert isinstance(await store.reserve(other, ask, SCOPES[0], now), model.ReservationHeld)


@pytest.mark.parametrize(("age_ms", "held"), [(1_000, 0), (checkpoint.LATE_MS + 1_000, 100)])
async def test_what_was_given_up_before_a_checkpoint_is_not_held_behind_it(age_ms: int, held: int) -> None:
    """Who asked, and heard no answer, settles with nothing; its reservation may be stored after that, and after the
    checkpoint. Nobody comes that late."""
    clock = VirtualClock(NOW - age_ms)
    broker, store = MemoryBroker.for_mesh(clock=clock), MemoryStore(lease_ms=LEASE_MS)
    keeper, checkpointer = made(broker, store)
    doer, budget = (Publisher(name, MemoryBus(broker, name), name.encode(), lambda: NOW) for name in ("rag", "budget"))
    given_up = Settled(reservation_id="r0", call_id="c", usage=Usage())
    stray = Settled(reservation_id="r1", call_id="c", usage=Usage(input_tokens=3))
    for one in (given_up, stray):
        await doer.send("budget", one, tenant="demo", task="t1", cause=one.reservation_id)
    clock.advance(age_ms)
    assert await checkpointer.make_checkpoint(at_once=True) and await checkpointer.make_checkpoint(at_once=True)
    fact = sample(Reserved, reservation_id="r0", scopes=model.scope_limits(SCOPES[0]), reserved_unix_ms=NOW)
    await budget.send("journal", fact, tenant="demo", task="t1", cause="r0")
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    entries, balances = await store.dump_ledger()
    assert balances["month:demo:2026-11"].reserved.tokens == held
    assert {key.rpartition("/")[2]: one.state for key, one in entries.items()} == {"r0": "open" if held else "settled"}


async def test_what_has_lapsed_and_may_still_be_settled_is_held_in_a_checkpoint() -> None:
    """What is too old for that stays spent."""
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    budget = Publisher("budget", MemoryBus(broker, "budget"), b"b" * 32, lambda: NOW)
    for name, age_ms, tokens in (("old", 11 * DAY_MS, 30), ("late", DAY_MS, 5)):
        fact = sample(
            Reserved,
            reservation_id=name,
            amount=Amount(tokens=tokens),
            scopes=model.scope_limits(SCOPES[0]),
            reserved_unix_ms=NOW - age_ms,
        )
        await budget.send("journal", fact, tenant="demo", task="t1", cause=name)
    _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
    assert await checkpointer.make_checkpoint(at_once=True)
    ledger = (await checkpoint.newest_checkpoint(MemoryBus(broker, "budget"), LEASE_MS, 10**9, 10**9)).ledger
    balance = ledger.balances["month:demo:2026-11"]
    assert (balance.reserved.tokens, balance.spent.tokens) == (5, 30)
    [(name, entry)] = ledger.entries.items()
    assert name.endswith("late") and entry.state == "open"


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, 100 * DAY_MS, -DAY_MS])
async def test_what_is_over_is_told_by_the_brokers_clock_and_not_by_that_of_who_builds(ahead_ms: int) -> None:
    """Otherwise a task would begin anew with nothing spent, and spend its limit twice."""
    broker, store = MemoryBroker.for_mesh(clock=VirtualClock(NOW)), MemoryStore(lease_ms=LEASE_MS)
    keeper, checkpointer = made(broker, store, NOW + ahead_ms)
    await said(broker, 0, 3)
    assert await checkpointer.make_checkpoint(at_once=True)
    await said(broker, 3, 6)
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    entries, balances = await store.dump_ledger()
    assert balances["task:demo:t1"] == model.Balance(UnitSums(tokens=200), UnitSums(tokens=28), 4)
    assert sorted(key[-2:] for key, one in entries.items() if one.state == "open") == ["r0", "r3"]


async def test_a_checkpoint_of_streams_that_were_made_anew_is_not_believed() -> None:
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
    await said(broker, 0, 20)
    assert await checkpointer.make_checkpoint()
    bus = MemoryBus(broker, "budget")
    assert (await checkpoint.newest_checkpoint(bus, LEASE_MS, 10**9, 10**9)).budget_sequence > 0
    assert await checkpoint.newest_checkpoint(bus, LEASE_MS, 10**9, 3) == checkpoint.FoldedLedger(LedgerState(LEASE_MS))


async def test_what_replies_told_before_a_checkpoint_is_in_it_and_may_be_removed() -> None:
    broker, store = MemoryBroker.for_mesh(clock=VirtualClock(NOW)), MemoryStore(lease_ms=LEASE_MS)
    keeper, checkpointer = made(broker, store)
    await said(broker, 0, 20, in_replies=True)
    assert await checkpointer.make_checkpoint()
    bus, inbox = MemoryBus(broker, "budget"), broker.get_stream(EDGE.stream)
    start = await checkpoint.newest_checkpoint(bus, LEASE_MS, 10**9, 10**9)
    counted = start.ledger.reply_positions[EDGE.name]
    assert counted == inbox.last_sequence == 13 and len(start.ledger.entries) == 7
    for sequence in range(1, counted + 1):
        inbox.delete(sequence)
    await said(broker, 20, 31, in_replies=True)
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    settled = sum(1 for number in range(31) if number % 3)
    assert (await store.dump_ledger())[1]["month:demo:2026-11"] == model.Balance(
        UnitSums(tokens=100 * (31 - settled)), UnitSums(tokens=7 * settled), settled
    )
    assert (await store.reply_positions())[EDGE.name] == counted, "what came lately is applied again, and no more"


async def test_replies_alone_call_for_a_checkpoint_after_an_hour() -> None:
    """Else their tasks could never be purged."""
    clock = VirtualClock(NOW)
    broker, store = MemoryBroker.for_mesh(clock=clock), MemoryStore(lease_ms=LEASE_MS)
    await said(broker, 0, 20)
    assert await made(broker, store)[1].make_checkpoint()
    later = made(broker, store, NOW + checkpoint.HOUR_MS)[1]
    assert not await later.make_checkpoint()
    doer = Publisher("rag", MemoryBus(broker, "rag"), b"r" * 32, lambda: NOW)
    used = Settled(reservation_id="r0", call_id="c", usage=Usage(input_tokens=7))
    reply = CallDeferred(call_id="c", after_ms=1, settled=(used,))
    await doer.send(EDGE.asker, reply, tenant="demo", task="t1", cause="r0")
    assert await later.make_checkpoint()


async def test_a_checkpoint_of_an_inbox_that_was_made_anew_is_not_believed(monkeypatch) -> None:
    broker = MemoryBroker.for_mesh(clock=VirtualClock(NOW))
    _, checkpointer = made(broker, MemoryStore(lease_ms=LEASE_MS))
    await said(broker, 0, 20, in_replies=True)
    assert await checkpointer.make_checkpoint()
    bus, real = MemoryBus(broker, "budget"), MemoryBus.last_sequence

    async def emptied(bus: MemoryBus, stream: str) -> int:
        return 0 if stream == EDGE.stream else await real(bus, stream)

    monkeypatch.setattr(MemoryBus, "last_sequence", emptied)
    assert await checkpoint.newest_checkpoint(bus, LEASE_MS, 10**9, 10**9) == checkpoint.FoldedLedger(
        LedgerState(LEASE_MS)
    )


async def test_the_cut_of_replies_lies_before_that_of_reservations(monkeypatch) -> None:
    """What comes while a checkpoint is made is settled behind it: its reservation may be, too."""
    broker, store = MemoryBroker.for_mesh(clock=VirtualClock(NOW)), MemoryStore(lease_ms=LEASE_MS)
    keeper, checkpointer = made(broker, store)
    await said(broker, 0, 10, in_replies=True)
    real = checkpointer._publish_to_journal

    async def slowly(body, task, index):
        sequence = await real(body, task, index)
        if task == "seal-mark":
            await said(broker, 10, 20, in_replies=True)
        return sequence

    monkeypatch.setattr(checkpointer, "_publish_to_journal", slowly)
    assert await checkpointer.make_checkpoint(at_once=True)
    keeper.start(BackgroundTasks())
    await keeper.wait_until_built()
    await keeper.stop()
    settled = sum(1 for number in range(20) if number % 3)
    assert (await store.dump_ledger())[1]["month:demo:2026-11"].settled == settled


def test_a_name_that_is_admitted_anew_behind_a_checkpoint_is_no_copy() -> None:
    """Redis may have forgotten what was settled before it; who asks under that name again holds money again."""
    first, second, ask = LedgerState(LEASE_MS), LedgerState(LEASE_MS), UnitSums(60, 60, 1)
    model.restore(first, "r", ask, SCOPES[0], NOW)
    model.settle(first, "r", UnitSums(10, 10, 1), False)
    prune_ledger(first, NOW, 10 * DAY_MS)
    for part in parts_of(first, "c"):
        fold_part(second, LedgerPart.model_validate_json(part.encode()))
    model.restore(second, "r", ask, SCOPES[0], NOW)
    assert second.balances == first.balances
    model.restore(second, "r", ask, SCOPES[0], NOW + 1)
    assert second.balances[SCOPES[0][0].name].reserved == ask
    model.settle(second, "r", UnitSums(7, 7, 1), False)
    assert second.balances[SCOPES[0][0].name].spent == UnitSums(17, 17, 2)
