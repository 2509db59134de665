"""A doer asks, again and again under one id, hears nothing, gives up and settles with nothing; or hears that it holds,
and settles with what it used. Whatever of that comes late, twice or in another order, with a rebuild, a checkpoint or a
midnight in between: who was told holds money until it settles, nothing is free, and in the end nothing stays held.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead_contracts.budget import Amount, LedgerMarked, LedgerPart, Reserved, Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Usage
from bulkhead_contracts.types import Body
from bulkhead_services.budget.ledger import facts, model, rebuild
from bulkhead_services.budget.ledger.checkpoint import (
    add_settled_names,
    fold_part,
    parts_of,
    prune_ledger,
    reopen_lapsed,
)
from bulkhead_services.budget.ledger.model import Balance, LedgerState, ReservationHeld, Scope, UnitSums

LEASE_MS, KEEP_MS, NOW = 600_000, 10 * 86_400_000, 1_795_231_204_272
LIMIT = 100
TASK, MONTH = Scope("task:acme:t1", UnitSums(LIMIT, LIMIT)), Scope("month:acme:2026-11", model.NO_LIMIT)
ASKS = {"a": 60, "b": 60, "c": 30, "d": 10}
KEYS = st.sampled_from(sorted(ASKS))
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), KEYS, st.just(0)),
        st.tuples(st.just("ask"), KEYS, st.just(0)),
        st.tuples(st.just("land"), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("land"), st.just(""), st.just(0)),
        st.tuples(st.just("answer lost"), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("give up"), KEYS, st.just(0)),
        st.tuples(st.just("settle"), KEYS, st.integers(0, 60)),
        st.tuples(st.just("hear"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("hear again"), st.just(""), st.integers(0, 3)),
        st.sampled_from([("rebuild", "", 0), ("checkpoint", "", 0), ("midnight", "", 0)]),
    ),
    min_size=5,
    max_size=40,
)


def entry(key: str) -> str:
    return model.entry_key("rag", "acme", "t1", key)


@dataclass
class Budget:
    """One ledger after the other over two inboxes, whose messages stand from when they are stored on. heard: so many
    settlements has the ledger that stands charged."""

    ledger: LedgerState = field(default_factory=lambda: LedgerState(LEASE_MS))
    epoch: int = 0
    day: int = 21
    under_way: list[tuple[str, int, ReservationHeld, bool]] = field(default_factory=list)
    journal: list[ReceivedMessage] = field(default_factory=list)
    inbox: list[ReceivedMessage] = field(default_factory=list)
    heard: int = 0
    told: set[str] = field(default_factory=set)
    settled: dict[str, int] = field(default_factory=dict)
    kept: tuple[list[LedgerPart], int, int, list[str]] = field(default_factory=lambda: ([], 0, 0, []))
    """The newest checkpoint: its parts, how far it goes in both inboxes, the rebuilds before it."""
    parted: set[str] = field(default_factory=set)
    """Given up before the newest checkpoint, with a fact that was not stored by then, and may come yet."""

    def say(
        self, stream: list[ReceivedMessage], body: Body, sender: str, cause: str = "", tenant: str = "acme"
    ) -> None:
        head = Envelope(id=str(len(stream)), type=body.ce_type(), source=sender, time_unix_ms=0, cause=cause)
        to = "journal" if sender == "budget" else "budget"
        stream.append(ReceivedMessage(head, body, tenant, "t1", sender, len(stream) + 1, 0, receiver=to))

    def now(self) -> int:
        return NOW + (self.day - 21) * 1_000

    def ask(self, key: str) -> None:
        """A doer asks while it has neither been told nor given up; copies of its asks may be under way even then."""
        scopes = (TASK, Scope(f"day:acme:2026-11-{self.day}", model.NO_LIMIT), MONTH)
        answer = model.reserve(self.ledger, entry(key), UnitSums(0, ASKS[key]), scopes, self.now())
        if isinstance(answer, ReservationHeld):
            self.under_way.append((key, self.epoch, answer, key in self.settled))

    def land(self, at: int, *, lost: bool = False) -> None:
        """A fact is stored, its writer looks whether the ledger is the same, and answers."""
        if at < len(self.under_way):
            key, epoch, held, late = self.under_way.pop(at)
            fact = Reserved(
                reservation_id=key,
                call_id=key,
                service="rag",
                resource="x",
                amount=Amount(cost_usd_micros=ASKS[key]),
                scopes=model.scope_limits(held.scopes),
                reserved_unix_ms=held.at_unix_ms,
            )
            self.say(self.journal, fact, "budget", facts.cause_of(key, f"e{epoch} server"))
            if epoch != self.epoch:
                return
            if not model.is_held_or_settled(self.ledger, entry(key)):
                model.restore(self.ledger, entry(key), UnitSums(0, ASKS[key]), held.scopes, held.at_unix_ms)
            if not lost and not late and key not in self.settled:
                self.told.add(key)

    def settle(self, key: str, used: int) -> None:
        """Who was told says what it used; who was not gives up with nothing. Each once."""
        if key not in self.settled:
            self.settled[key] = min(used, ASKS[key]) if key in self.told else 0
            usage = Usage(cost_usd_micros=self.settled[key])
            self.say(self.inbox, Settled(reservation_id=key, call_id=key, usage=usage), "rag")

    def hear(self, at: int) -> None:
        """The ledger that stands charges the next settlement, as budget does: what it does not know is looked up."""
        message = self.inbox[at]
        assert isinstance(message.body, Settled)
        key, used = message.body.reservation_id, model.sum_of_usage(message.body.usage)
        if model.settle(self.ledger, entry(key), used, False).kind == "unknown":
            found = [
                one.body for one in self.journal if isinstance(one.body, Reserved) and one.body.reservation_id == key
            ]
            if found and at >= self.heard:
                fact = found[-1]
                model.restore(
                    self.ledger,
                    entry(key),
                    model.sum_of(fact.amount),
                    model.scopes_from(fact.scopes),
                    fact.reserved_unix_ms,
                )
        self.heard = max(self.heard, at + 1)

    def folded(self, *, whole: bool = False) -> LedgerState:
        """What the streams say: of the newest checkpoint and the tail, or of all there is."""
        parts, journal, inbox, marks = self.kept if not whole else ([], 0, 0, [])
        ledger = LedgerState(LEASE_MS)
        for part in parts:
            fold_part(ledger, LedgerPart.model_validate_json(part.encode()))
        for mark in marks:
            model.apply_rebuild_mark(ledger, mark)
        for message in (*self.journal[journal:], *self.inbox[inbox:]):
            rebuild.fold_message(ledger, message)
        return ledger

    def rebuild(self) -> None:
        self.epoch += 1
        self.say(self.journal, LedgerMarked(epoch=f"e{self.epoch}"), "budget", tenant=rebuild.MARKS)
        self.ledger = self.folded()
        add_settled_names(self.ledger)
        self.heard = max(self.heard, len(self.inbox))

    def checkpoint(self) -> None:
        """Every settlement before it has its fact before it, but for those of who gave up."""
        ledger = self.folded()
        prune_ledger(ledger, self.now(), KEEP_MS)
        reopen_lapsed(ledger)
        marks = [one.body.epoch for one in self.journal if isinstance(one.body, LedgerMarked)]
        self.parted |= set(self.settled) - {
            one.body.reservation_id for one in self.journal if isinstance(one.body, Reserved)
        }
        self.kept = (list(parts_of(ledger, "c")), len(self.journal), len(self.inbox), marks)

    def held(self, ledger: LedgerState | None = None) -> Balance:
        return (ledger or self.ledger).balances.get(TASK.name, Balance())


def play(moves: list[tuple[str, str, int]]) -> Budget:
    budget = Budget()
    budget.rebuild()
    for what, key, number in moves:
        match what:
            case "ask":
                budget.ask(key)
            case "land":
                budget.land(number)
            case "answer lost":
                budget.land(number, lost=True)
            case "give up":
                if key not in budget.told:
                    budget.settle(key, 0)
            case "settle":
                if key in budget.told:
                    budget.settle(key, number)
            case "hear":
                if budget.heard < len(budget.inbox):
                    budget.hear(budget.heard)
            case "hear again":
                if number < budget.heard:
                    budget.hear(number)
            case "rebuild":
                budget.rebuild()
            case "checkpoint":
                budget.checkpoint()
            case _:
                budget.day += 1
        balance = budget.held()
        owed = sum(budget.settled.get(one, ASKS[one]) for one in budget.told)
        assert owed <= balance.reserved.cost_usd_micros + balance.spent.cost_usd_micros <= LIMIT
    return budget


@settings(max_examples=500)
@given(moves=MOVES)
@pytest.mark.slow
def test_who_was_told_holds_and_nothing_is_free_and_in_the_end_nothing_stays_held(
    moves: list[tuple[str, str, int]],
) -> None:
    budget = play(moves)
    while budget.under_way:
        budget.land(0, lost=True)
    for key in ASKS:
        budget.settle(key, ASKS[key])
    while budget.heard < len(budget.inbox):
        budget.hear(budget.heard)
    spent = UnitSums(0, sum(budget.settled[key] for key in budget.told))
    whole = budget.held(budget.folded(whole=True))
    assert (whole.reserved, whole.spent) == (UnitSums(), spent), "all that is stored says so"
    assert budget.held().spent == spent, "and the ledger that stands"
    for balance in budget.ledger.balances.values():
        assert balance.reserved.cost_usd_micros <= sum(ASKS[key] for key in budget.parted)


def test_a_checkpoint_between_a_give_back_and_its_late_fact_leaves_it_held_until_its_lease_ends() -> None:
    """A checkpoint forgets settlements without a reservation. Too much is held then, never too little."""
    budget = play([("ask", "a", 0), ("give up", "a", 0), ("checkpoint", "", 0), ("land", "", 0), ("rebuild", "", 0)])
    assert budget.parted == {"a"} and budget.held().reserved.cost_usd_micros == ASKS["a"]
    model.lapse_overdue(budget.ledger, budget.now() + LEASE_MS)
    assert budget.held().spent.cost_usd_micros == ASKS["a"]


def test_a_fact_that_came_too_late_does_not_count_and_its_call_waits_for_room() -> None:
    late = [("ask", "a", 0), ("rebuild", "", 0), ("ask", "b", 0), ("land", "", 1), ("land", "", 0)]
    budget = play([*late, ("rebuild", "", 0), ("ask", "a", 0)])
    assert (budget.told, budget.under_way) == ({"b"}, []) and budget.held().reserved.cost_usd_micros == ASKS["b"]
    budget.settle("b", 10)
    budget.hear(0)
    budget.ask("a")
    budget.land(0)
    budget.rebuild()
    assert budget.told == {"a", "b"} and budget.held().reserved.cost_usd_micros == ASKS["a"]


def test_a_fact_of_which_nobody_was_told_but_which_a_rebuild_found_counts() -> None:
    """Its writer died before it answered: whoever asks again is told, and the room was kept."""
    budget = play([("ask", "a", 0), ("answer lost", "", 0), ("rebuild", "", 0), ("ask", "b", 0)])
    assert budget.under_way == [] and budget.held().reserved.cost_usd_micros == ASKS["a"]
    budget.ask("a")
    budget.land(0)
    assert budget.told == {"a"}
