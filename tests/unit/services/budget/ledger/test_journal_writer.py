"""Facts that wait for the journal at the same moment go there together, and count as each by itself would."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.streams import Stream
from bulkhead.bus.port import BusUnavailable, PubAck, StoredMessage
from bulkhead.journal import history
from bulkhead.journal.reader import read_journal
from bulkhead.runtime.consume import packed_facts
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import trace
from bulkhead_contracts.bounds import MAX_MESSAGE_BYTES, MAX_RESERVED_TOGETHER
from bulkhead_contracts.budget import (
    Amount,
    LedgerMarked,
    Reserved,
    ReservedTogether,
    ReserveRequested,
    SpendReplied,
    SpendRequested,
)
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import RequesterClaim, TaskLimits, TaskSubmitted
from bulkhead_services.budget.ledger import fact_lookup, facts, journal_writer, model, rebuild
from bulkhead_services.budget.ledger.journal_writer import FactAppender, ReservationFact
from bulkhead_services.budget.ledger.model import LedgerState, Scope, UnitSums
from bulkhead_services.budget.ledger.model import ReservationHeld as HeldAmount
from bulkhead_services.budget.queries.spending import SpendQuery

LEASE_MS, NOW = 10_000, 1_795_231_204_272
EPOCH = "e1 server"


class Held(MemoryBus):
    """The bus, on which a message is stored when the test lets it, and now and then its ack is lost."""

    def __init__(self, broker: MemoryBroker, service: str) -> None:
        super().__init__(broker, service)
        self.gates: list[asyncio.Future[str]] = []

    async def publish(
        self, subject: str, body: bytes, headers: Mapping[str, str], message_id: str, **more: Any
    ) -> PubAck:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        how = await gate
        if how == "not stored":
            raise BusUnavailable("no answer")
        ack = await super().publish(subject, body, headers, message_id, **more)
        if how == "ack lost":
            raise BusUnavailable("no answer")
        return ack

    def let(self, at: int = 0, how: str = "stored") -> None:
        self.gates.pop(at).set_result(how)


class Desk:
    """An appender over a held bus, with what it was asked and what became of it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker.for_mesh()
        self.bus = Held(self.broker, "budget")
        self.appender = FactAppender(Publisher("budget", self.bus, b"b" * 32, lambda: NOW))
        self.asked: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str, tenant: str = "acme", task: str = "") -> None:
        for name in names:
            self.asked[name] = asyncio.create_task(self.appender.store_fact(fact(name, tenant, task or f"t-{name}")))
        await turn()

    async def let(self, at: int = 0, how: str = "stored") -> None:
        self.bus.let(at, how)
        await turn()

    def inbox(self) -> list[StoredMessage]:
        return self.broker.get_stream("INBOX_JOURNAL").read("mesh.budget.journal.>", 0, 1_000)

    def told(self) -> list[list[str]]:
        """Reservations by message."""
        return [[one.body.reservation_id for one in parts(stored)] for stored in self.inbox()]


def fact(name: str, tenant: str, task: str, **more: str) -> ReservationFact:
    scopes = (Scope(f"task:{tenant}:{task}", UnitSums(100, 100)), Scope(f"day:{tenant}:2026-11-21", UnitSums(900, 900)))
    ask = ReserveRequested(
        reservation_id=name, call_id=name, purpose="retrieval", resource="x", worst_case=Amount(tokens=1 + len(name))
    )
    cause, index = facts.cause_of(name, EPOCH), f"reserved/rag/{tenant}/{task}"
    return ReservationFact(
        tenant, task, "rag", ask, HeldAmount(scopes, NOW), cause, index, traceparent=trace.current_traceparent(), **more
    )


def parts(stored: StoredMessage) -> list:  # type: ignore[type-arg]
    return list(packed_facts.unpack_facts(rebuild.inbound.read_message(stored, "journal")))


async def turn() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.runtime.publish.publisher.PUBLISH_ATTEMPTS", 1)


async def test_a_few_are_stored_each_for_itself_and_what_waits_meanwhile_together() -> None:
    desk = Desk()
    first = [f"a{n}" for n in range(journal_writer.AT_ONCE)]
    await desk.ask(*first, "b1", "b2", "b3")
    assert len(desk.bus.gates) == journal_writer.AT_ONCE and not any(one.done() for one in desk.asked.values())
    await desk.let()
    assert desk.asked["a0"].done() and len(desk.bus.gates) == journal_writer.AT_ONCE
    await desk.ask("c1")
    while desk.bus.gates:
        await desk.let()
    assert all(one.done() and one.exception() is None for one in desk.asked.values())
    assert desk.told() == [*([one] for one in first), ["b1", "b2", "b3"], ["c1"]]
    # Each is what it would be alone: same task, same id, same cause.
    alone = Desk()
    await alone.ask("b2")
    await alone.let()
    (single,), (_, row, _) = parts(alone.inbox()[0]), parts(desk.inbox()[-2])
    assert (row.tenant, row.task, row.body, row.envelope.id, row.envelope.cause) == (
        single.tenant,
        single.task,
        single.body,
        single.envelope.id,
        single.envelope.cause,
    )


async def test_tenants_take_turns_and_never_share_a_message() -> None:
    desk = Desk()
    await desk.ask(
        *(f"x{n}" for n in range(journal_writer.AT_ONCE)), *(f"a{n}" for n in range(MAX_RESERVED_TOGETHER + 2))
    )
    await desk.ask("b1", "b2", tenant="other")
    while desk.bus.gates:
        await desk.let()
    assert [len(one) for one in desk.told()] == [*[1] * journal_writer.AT_ONCE, MAX_RESERVED_TOGETHER, 2, 2]
    assert [one.subject.split(".")[4:6] for one in desk.inbox()[-3:]] == [
        ["ledger", "acme"],
        ["ledger", "other"],
        ["ledger", "acme"],
    ]


async def test_a_repeat_waits_for_the_same_message_and_one_that_gives_up_takes_nothing_with_it() -> None:
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a", "b")
    again = [asyncio.create_task(desk.appender.store_fact(fact("a", "acme", "t-a"))) for _ in range(3)]
    await turn()
    desk.asked["a"].cancel()
    while desk.bus.gates:
        await desk.let()
    assert desk.told()[-1] == ["a", "b"] and all(one.done() and not one.exception() for one in again)
    assert desk.asked["a"].cancelled() and desk.asked["b"].result() is None


async def test_what_is_not_stored_is_told_to_all_of_its_message_and_to_nobody_else() -> None:
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a", "b")
    await desk.let()
    await desk.ask("c", "d")
    await desk.let(journal_writer.AT_ONCE - 1, "ack lost")
    while desk.bus.gates:
        await desk.let()
    failed = {name for name, one in desk.asked.items() if one.exception() is not None}
    assert failed == {"a", "b"} and isinstance(desk.asked["a"].exception(), BusUnavailable)
    assert desk.told()[-1] == ["c", "d"]


async def test_what_fits_no_row_goes_alone_and_what_is_too_large_in_parts() -> None:
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a")
    long = asyncio.create_task(desk.appender.store_fact(fact("long", "acme", "t", actor="x" * 5_000)))
    await turn()
    await desk.ask("b", "c")
    while desk.bus.gates:
        await desk.let()
    assert long.result() is None and desk.told()[-3:] == [["a"], ["long"], ["b", "c"]]
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)))
    scopes = tuple(Scope("\x00" * 200, UnitSums(100, 100)) for _ in range(8))
    large = [fact(f"y{n}", "acme", "t") for n in range(MAX_RESERVED_TOGETHER)]
    large = [replace(one, held=HeldAmount(scopes, NOW)) for one in large]
    tasks = [asyncio.create_task(desk.appender.store_fact(one)) for one in large]
    await turn()
    while desk.bus.gates:
        await desk.let()
    told = [name for names in desk.told()[journal_writer.AT_ONCE :] for name in names]
    assert told == [one.ask.reservation_id for one in large]
    assert all(one.done() for one in tasks)
    assert max(len(one.body) for one in desk.inbox()) <= MAX_MESSAGE_BYTES < sum(len(one.body) for one in desk.inbox())


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["stored", "stored", "not stored", "ack lost"]), st.integers(0, 3)),
        st.tuples(st.just("rebuild"), st.just(0)),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=150)
@given(moves=MOVES)
@pytest.mark.slow
def test_whoever_hears_that_it_is_stored_is_in_every_ledger_that_is_built_of_the_inbox(
    moves: list[tuple[str, int]],
) -> None:
    """Held to the simple model: every fact in a message of its own, in the same order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bulkhead.runtime.publish.publisher.PUBLISH_ATTEMPTS", 1)
        asyncio.run(_holds(moves))


async def _holds(moves: list[tuple[str, int]]) -> None:
    desk, known = Desk(), set()
    for what, number in moves:
        if what == "ask":
            tenant, name = ("acme", "other")[number % 2], f"r{number}"
            if name not in desk.asked or (desk.asked[name].done() and desk.asked[name].exception()):
                await desk.ask(name, tenant=tenant, task=f"t{number % 3}")
            known.add((tenant, f"t{number % 3}", name))
        elif what == "rebuild":
            _whole(desk, known)
        elif number < len(desk.bus.gates):
            await desk.let(number, what)
    while desk.bus.gates:
        await desk.let()
    assert all(one.done() for one in desk.asked.values())
    _whole(desk, known)


def _whole(desk: Desk, known: set[tuple[str, str, str]]) -> None:
    ledger, simple = LedgerState(LEASE_MS), LedgerState(LEASE_MS)
    for stored in desk.inbox():
        rebuild.fold_stored(ledger, stored)
        for name in (one.body.reservation_id for one in parts(stored)):
            [(tenant, task)] = {one[:2] for one in known if one[2] == name}
            mine = fact(name, tenant, task)
            model.restore(
                simple,
                model.entry_key("rag", tenant, task, name),
                model.sum_of(mine.ask.worst_case),
                mine.held.scopes,
                NOW,
            )
    assert ledger == simple
    told = {name for name, one in desk.asked.items() if one.done() and one.exception() is None}
    assert told <= {key.rpartition("/")[2] for key in ledger.entries}


async def test_those_of_a_ledger_that_a_later_mark_has_ended_count_no_more() -> None:
    desk = Desk()
    mark = Publisher("budget", MemoryBus(desk.broker, "budget"), b"b" * 32, lambda: NOW)
    for epoch in ("e1", "e2"):
        await mark.send("journal", LedgerMarked(epoch=epoch), tenant=rebuild.MARKS, task=rebuild.MARKS, cause=epoch)
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a", "b")
    while desk.bus.gates:
        await desk.let()
    ledger = LedgerState(LEASE_MS)
    for stored in desk.inbox():
        rebuild.fold_stored(ledger, stored)
    assert not ledger.entries and ledger.fenced_epochs == {"e1"}


async def test_a_fact_is_found_whether_it_lies_alone_or_with_others_and_the_last_one_counts() -> None:
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a", "b", task="t1")
    while desk.bus.gates:
        await desk.let()
    bus = MemoryBus(desk.broker, "budget")
    now = desk.broker.clock.now_ms()
    for name in ("x0", "a", "b"):
        found = await fact_lookup.find_fact(bus, "acme", "t1", "rag", name, now)
        assert found is not None and found.reservation_id == name
    for tenant, task, service, name in (
        ("acme", "t2", "rag", "a"),
        ("other", "t1", "rag", "a"),
        ("acme", "t1", "worker", "a"),
        ("acme", "t1", "rag", "z"),
    ):
        assert await fact_lookup.find_fact(bus, tenant, task, service, name, now) is None
    # Those stored together long before it was asked for are not looked through.
    assert await fact_lookup.find_fact(bus, "acme", "t1", "rag", "a", now + 2 * fact_lookup.CLOCKS_MS) is None
    later = fact("a", "acme", "t1")
    later = replace(
        later,
        cause=facts.cause_of("a", "e2 server"),
        ask=later.ask.model_copy(update={"worst_case": Amount(tokens=77)}),
    )
    storing = asyncio.create_task(desk.appender.store_fact(later))
    await turn()
    await desk.let()
    await storing
    found = await fact_lookup.find_fact(bus, "acme", "t1", "rag", "a", now)
    assert found is not None and found.amount.tokens == 77


async def test_a_task_reads_its_reservations_wherever_they_lie_and_no_others() -> None:
    desk = Desk()
    names = [f"x{n}" for n in range(journal_writer.AT_ONCE)]
    await desk.ask(*names, task="t1")
    await desk.ask("a", "c", task="t1")
    await desk.ask("b", task="t2")
    await desk.ask("d", tenant="other", task="t1")
    while desk.bus.gates:
        await desk.let()
    found = history.build_entries(await read_journal(MemoryBus(desk.broker, "operator"), "t1"))
    mine = [one for one in found if one.tenant == "acme"]
    assert [one.body.reservation_id for one in mine if isinstance(one.body, Reserved)] == [*names, "a", "c"]
    assert not any(isinstance(one.body, ReservedTogether) for one in found)
    alone = await read_journal(MemoryBus(desk.broker, "operator"), "t1", reservations=False)
    assert len(alone) < len(found), "who has no use for them does not look through others'"
    assert {one.tenant for one in found} == {"acme", "other"} and len({one.id for one in found}) == len(found)


def remade(broker: MemoryBroker, *inboxes: str, between: int) -> None:
    """The journal made again, one inbox behind the other, with so many messages of others between two of them."""
    old = broker.get_stream("JOURNAL")
    new = broker._streams["JOURNAL"] = Stream(old.config)
    for name in inboxes:
        for stored in old.read(f"mesh.*.{name}.>", 0, 10_000):
            new.append(stored.subject, stored.headers, stored.body, NOW + 10**9)
        for at in range(between):
            new.append("mesh.x.y.1.other.t.-", {"Nats-Stream-Source": f"INBOX_Y {at + 1}"}, b"{}", NOW + 10**9)


@pytest.mark.parametrize("inboxes", [("journal", "planner"), ("planner", "journal")])
async def test_a_task_reads_its_reservations_also_in_a_journal_that_was_made_again(inboxes: tuple[str, ...]) -> None:
    desk = Desk()
    await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)))
    await desk.ask("a", "c", task="t1")
    while desk.bus.gates:
        await desk.let()
    gateway = Publisher("gateway", MemoryBus(desk.broker, "gateway"), b"b" * 32, lambda: NOW - 1_000)
    ref = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
    await gateway.send(
        "planner",
        TaskSubmitted(objective=ref, limits=TaskLimits(), submitted_unix_ms=1),
        tenant="acme",
        task="t1",
        index="t1",
    )
    remade(desk.broker, *inboxes, between=5_000)
    found = history.build_entries(await read_journal(MemoryBus(desk.broker, "operator"), "t1"))
    assert [one.body.reservation_id for one in found if isinstance(one.body, Reserved)] == ["a", "c"]


async def test_what_was_spent_is_told_alike_whether_facts_lie_alone_or_together() -> None:
    desk, alone = Desk(), Desk()
    names = [f"r{n}" for n in range(9)]
    await desk.ask(*names, task="t1")
    await desk.ask("b", tenant="other")
    while desk.bus.gates:
        await desk.let()
    for name in names:
        await alone.ask(name, task="t1")
        await alone.let()
    assert max(map(len, desk.told())) > 1 == max(map(len, alone.told()))
    spent = [await _spent(one) for one in (desk, alone)]
    assert spent[0] == spent[1] and spent[0].total.held.calls == len(names)


async def _spent(desk: Desk) -> SpendReplied:
    book = SpendQuery(MemoryBus(desk.broker, "budget"), lambda: NOW + 1_000)
    claim = RequesterClaim(tenant="acme", person="ann", role="operator", via="api_key")
    body = SpendRequested(requester=claim, by="task", since_s=3_600)
    found = await book.answer_spend(ReceivedMessage(None, body, "acme", "spend", "gateway", 0, NOW, 1))  # type: ignore[arg-type]
    assert isinstance(found, SpendReplied) and found.failure is None
    return found


async def test_a_fact_is_of_the_trace_that_asked_for_it_whoever_stores_it() -> None:
    """What waits is stored when somebody else's is done: no tenant's trace is named in another's fact."""
    desk, of = Desk(), {}
    for number, (name, tenant) in enumerate(
        [*((f"x{n}", "acme") for n in range(journal_writer.AT_ONCE)), ("a", "one"), ("b1", "two"), ("b2", "two")], 1
    ):
        of[name] = f"00-{number:032x}-{number:016x}-01"
        with trace.span("asks", of[name]):
            await desk.ask(name, tenant=tenant)
    while desk.bus.gates:
        await desk.let()
    # Where somebody has switched spans on in this process, the span is another one; the trace is the same.
    traces = [one.headers["traceparent"].split("-")[1] for one in desk.inbox()]
    assert traces == [of[names[0]].split("-")[1] for names in desk.told()]
    assert desk.told()[-2:] == [["a"], ["b1", "b2"]]


async def test_the_same_rows_make_the_same_message() -> None:
    """Ids derive from reservation and ledger."""
    found = []
    for _ in range(2):
        desk = Desk()
        await desk.ask(*(f"x{n}" for n in range(journal_writer.AT_ONCE)), "a", "b", "c")
        while desk.bus.gates:
            await desk.let()
        found.append(desk.inbox()[-1])
    assert (found[0].headers, found[0].body) == (found[1].headers, found[1].body)
