"""What doers were told that it holds never adds up to more than the limit, however facts, rebuilds and repeats fall.

The order in which budget works: held in the ledger, the fact, a look whether it is still the same ledger, the answer. A
fact that is late lies in the journal and nobody was told of it.
"""

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.runtime.background import Background
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Amount, LedgerMarked, Reserved
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import facts, model, rebuild
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import Held, Ledger, Scope, Sum

LEASE_MS = 10_000
LIMIT = 100
SCOPES = (Scope("task:acme:t1", Sum(LIMIT, LIMIT)), Scope("day:acme:2026-11-21", Sum(10 * LIMIT, 10 * LIMIT)))
ASKS = {"a": 60, "b": 60, "c": 30}
KEYS = st.sampled_from(sorted(ASKS))
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), KEYS, st.just(0)),
        st.tuples(st.just("land"), st.just(""), st.integers(0, 1)),
        st.tuples(st.just("rebuild"), st.just(""), st.just(0)),
        st.tuples(st.just("settle"), KEYS, st.integers(0, 60)),
    ),
    min_size=7,
    max_size=24,
)


@dataclass
class Budget:
    """One ledger after the other over the same inbox."""

    ledger: Ledger = field(default_factory=lambda: Ledger(LEASE_MS))
    epoch: int = 0
    under_way: list[tuple[str, int]] = field(default_factory=list)
    inbox: list[Received] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def say(self, body: Body, cause: str, tenant: str = "acme") -> None:
        head = Envelope(id=str(len(self.inbox)), type=body.ce_type(), source="budget", time_unix_ms=0, cause=cause)
        self.inbox.append(Received(head, body, tenant, "t1", "budget", len(self.inbox) + 1, 0, receiver="journal"))

    def ask(self, key: str) -> None:
        if isinstance(model.reserve(self.ledger, entry(key), Sum(0, ASKS[key]), SCOPES, 0), Held):
            self.under_way.append((key, self.epoch))

    def land(self, at: int) -> None:
        """A fact is stored, and its writer looks whether it may say so."""
        if at < len(self.under_way):
            key, epoch = self.under_way.pop(at)
            fact = Reserved(
                reservation_id=key,
                call_id=key,
                service="rag",
                resource="x",
                amount=Amount(cost_usd_micros=ASKS[key]),
                scopes=model.scope_limits(SCOPES),
                reserved_unix_ms=0,
            )
            self.say(fact, facts.cause_of(key, f"e{epoch} server"))
            if epoch == self.epoch and model.holds(self.ledger, entry(key)):
                self.told.add(key)

    def rebuild(self) -> None:
        self.epoch += 1
        self.say(LedgerMarked(epoch=f"e{self.epoch}"), "", rebuild.MARKS)
        self.ledger = Ledger(LEASE_MS)
        for message in self.inbox:
            rebuild.fold(self.ledger, message)
        for key, used in self.settled.items():
            model.settle(self.ledger, entry(key), Sum(0, used), False)

    def settle(self, key: str, used: int) -> None:
        """Whoever was told calls, and says what it cost: no more than was reserved."""
        if key in self.told and key not in self.settled:
            self.settled[key] = min(used, ASKS[key])
            model.settle(self.ledger, entry(key), Sum(0, self.settled[key]), False)

    def held(self) -> int:
        balance = self.ledger.balances.get(SCOPES[0].name, model.Balance())
        return balance.reserved.cost_usd_micros + balance.spent.cost_usd_micros


def entry(key: str) -> str:
    return model.entry_key("rag", "acme", "t1", key)


def begun() -> Budget:
    """The first ledger is a rebuild, too."""
    budget = Budget()
    budget.rebuild()
    return budget


@settings(max_examples=300)
@given(moves=MOVES)
def test_what_was_told_fits_under_the_limit_whatever_came_too_late(moves: list[tuple[str, str, int]]) -> None:
    budget = begun()
    for what, key, number in moves:
        match what:
            case "ask":
                budget.ask(key)
            case "land":
                budget.land(number)
            case "rebuild":
                budget.rebuild()
            case _:
                budget.settle(key, number)
        assert sum(budget.settled.get(one, ASKS[one]) for one in budget.told) <= budget.held() <= LIMIT


def test_a_fact_that_came_too_late_does_not_count_and_its_call_waits_for_room() -> None:
    budget = begun()
    budget.ask("a")
    budget.rebuild()
    budget.ask("b")
    budget.land(1)
    budget.land(0)
    assert budget.told == {"b"} and len(budget.inbox) == 4
    budget.rebuild()
    assert budget.held() == ASKS["b"]
    budget.ask("a")
    assert not budget.under_way
    budget.settle("b", 10)
    budget.ask("a")
    budget.land(0)
    budget.rebuild()
    assert budget.told == {"a", "b"} and budget.held() == ASKS["a"] + 10


def test_a_fact_of_which_nobody_was_told_but_which_a_rebuild_found_counts() -> None:
    """Its writer died before it answered: whoever asks again is told, and the room was kept."""
    budget = begun()
    budget.ask("a")
    epoch, (key, _) = budget.epoch, budget.under_way[0]
    budget.land(0)
    budget.told.clear()
    budget.rebuild()
    assert budget.epoch == epoch + 1 and budget.held() == ASKS[key]
    budget.ask("b")
    assert not budget.under_way
    budget.ask("a")
    budget.land(0)
    assert budget.told == {"a"}


async def test_a_mark_that_comes_late_when_another_rebuild_has_marked_is_refused() -> None:
    """Its writer stood still behind the lock, and the lock ran out: no fact of the ledger that stands came too late."""
    broker = MemoryBroker.mesh()
    slow, other = keeper(broker), keeper(broker)
    lock = slow._store.lock

    async def stands_still(token: str, lock_ms: int) -> bool:
        held = await lock(token, lock_ms)
        other.start(Background())
        await other.wait_built()
        return held

    slow._store.lock = stands_still  # type: ignore[method-assign]
    assert "sequence" in await slow._try()
    marks = broker.stream("INBOX_JOURNAL").read("mesh.budget.journal.*.ledger.ledger", 0, 10)
    assert [json.loads(one.body)["epoch"] for one in marks] == [other.epoch.partition(" ")[0]]
    await other.stop()


def keeper(broker: MemoryBroker) -> rebuild.Keeper:
    bus = MemoryBus(broker, "budget")
    return rebuild.Keeper(
        bus,
        Publisher("budget", bus, b"b" * 32, lambda: 0),
        MemoryStore(lease_ms=LEASE_MS),
        lambda: 0,
        lease_ms=LEASE_MS,
        keep_ms=10**9,
        rebuild_at_start=True,
        tail_grace_s=0.0,
    )
