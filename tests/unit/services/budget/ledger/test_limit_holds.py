"""What doers were told that it holds never adds up to more than the limit, however facts, rebuilds and repeats fall.

The order in which budget works: held in the ledger, the fact, a look whether it is still the same ledger, the answer. A
fact that is late lies in the journal and nobody was told of it.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead_contracts.budget import Amount, LedgerMarked, Reserved
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import facts, model, rebuild
from bulkhead_services.budget.ledger.model import LedgerState, ReservationHeld, Scope, UnitSums

LEASE_MS = 10_000
LIMIT = 100
SCOPES = (Scope("task:acme:t1", UnitSums(LIMIT, LIMIT)), Scope("day:acme:2026-11-21", UnitSums(10 * LIMIT, 10 * LIMIT)))
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

    ledger: LedgerState = field(default_factory=lambda: LedgerState(LEASE_MS))
    epoch: int = 0
    under_way: list[tuple[str, int]] = field(default_factory=list)
    inbox: list[ReceivedMessage] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def say(self, body: Body, cause: str, tenant: str = "acme") -> None:
        head = Envelope(id=str(len(self.inbox)), type=body.ce_type(), source="budget", time_unix_ms=0, cause=cause)
        self.inbox.append(
            ReceivedMessage(head, body, tenant, "t1", "budget", len(self.inbox) + 1, 0, receiver="journal")
        )

    def ask(self, key: str) -> None:
        if isinstance(model.reserve(self.ledger, entry(key), UnitSums(0, ASKS[key]), SCOPES, 0), ReservationHeld):
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
            if epoch == self.epoch and model.is_held_or_settled(self.ledger, entry(key)):
                self.told.add(key)

    def rebuild(self) -> None:
        self.epoch += 1
        self.say(LedgerMarked(epoch=f"e{self.epoch}"), "", rebuild.MARKS)
        self.ledger = LedgerState(LEASE_MS)
        for message in self.inbox:
            rebuild.fold_message(self.ledger, message)
        for key, used in self.settled.items():
            model.settle(self.ledger, entry(key), UnitSums(0, used), False)

    def settle(self, key: str, used: int) -> None:
        """Whoever was told calls, and says what it cost: no more than was reserved."""
        if key in self.told and key not in self.settled:
            self.settled[key] = min(used, ASKS[key])
            model.settle(self.ledger, entry(key), UnitSums(0, self.settled[key]), False)

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
