"""The pure ledger: facts in any order give one ledger; nothing is made or lost; what people read names the amounts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead_contracts.bounds import UNLIMITED
from bulkhead_contracts.budget import Amount, Limit, Reserved
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import TaskLimits
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.accounts import fact_scopes, scopes_of
from bulkhead_services.budget.ledger.model import (
    NO_LIMIT,
    Balance,
    LedgerState,
    MetCeiling,
    ReservationConflict,
    ReservationDenied,
    ReservationHeld,
    ReservationStopped,
    ReservationWaiting,
    Scope,
    UnitSums,
)
from bulkhead_services.budget.limits import messages as limit_messages
from tests.samples import sample

LEASE_MS = 1_000
SCOPES = (Scope("task:acme:t1", UnitSums(1_000, 100)), Scope("day:acme:2026-11-21", UnitSums(10_000, 150)))
OTHER = (Scope("task:acme:t2", UnitSums(1_000, 100)), SCOPES[1])

FACTS = st.dictionaries(
    st.sampled_from([f"r{n}" for n in range(10)]),
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from([SCOPES, OTHER])),
)
SETTLED = st.dictionaries(
    st.sampled_from([f"r{n}" for n in range(12)]), st.tuples(st.integers(0, 80), st.integers(0, 80), st.booleans())
)


def total(sums: list[UnitSums]) -> UnitSums:
    return UnitSums(sum(one.tokens for one in sums), sum(one.cost_usd_micros for one in sums))


@given(facts=FACTS, settled=SETTLED, data=st.data())
def test_any_order_and_any_repetition_of_the_streams_give_one_ledger(
    facts: dict[str, tuple[int, int, tuple[Scope, ...]]], settled: dict[str, tuple[int, int, bool]], data: st.DataObject
) -> None:
    """Between the two inboxes there is no order; within the ledger none is needed."""
    messages = [("fact", key) for key in facts] + [("settled", key) for key in settled]
    messages += data.draw(st.lists(st.sampled_from(messages), max_size=10)) if messages else []
    ledger = LedgerState(LEASE_MS)
    for kind, key in data.draw(st.permutations(messages)):
        if kind == "fact":
            tokens, cost, scopes = facts[key]
            model.restore(ledger, key, UnitSums(tokens, cost), scopes, 0)
        else:
            tokens, cost, estimated = settled[key]
            model.settle(ledger, key, UnitSums(tokens, cost), estimated)
    for scope in (SCOPES[0], OTHER[0], SCOPES[1]):
        held, spent = [], []
        for key, (tokens, cost, scopes) in facts.items():
            if scope not in scopes:
                continue
            if key not in settled:
                held.append(UnitSums(tokens, cost))
            elif settled[key][2]:
                spent.append(UnitSums(tokens, cost))
            else:
                spent.append(UnitSums(*settled[key][:2]))
        balance = ledger.balances.get(scope.name, model.Balance())
        assert balance == model.Balance(total(held), total(spent), len(spent))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.booleans()), max_size=40))
def test_honest_calls_never_spend_more_than_the_limit(calls: list[tuple[int, int, bool]]) -> None:
    """A call that uses no more than it reserved cannot take any scope past its ceiling, whatever is open beside it."""
    ledger = LedgerState(LEASE_MS)
    for n, (worst, real, settles) in enumerate(calls):
        scopes = SCOPES if n % 2 else OTHER
        answer = model.reserve(ledger, f"r{n}", UnitSums(worst, worst), scopes, n * 50)
        if isinstance(answer, ReservationHeld) and settles:
            model.settle(ledger, f"r{n}", UnitSums(min(real, worst), min(real, worst)), False)
        for name, limit, _ in (SCOPES[0], OTHER[0], SCOPES[1]):
            balance = ledger.balances.get(name, model.Balance())
            assert not balance.reserved.plus(balance.spent).exceeds_ask(limit)


def test_a_task_that_was_stopped_gets_no_more_and_others_do() -> None:
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "a", UnitSums(1, 60), SCOPES, 0)
    model.stop_scope(ledger, SCOPES[0].name)
    assert model.reserve(ledger, "b", UnitSums(1, 10), SCOPES, 0) == ReservationStopped("task:acme:t1")
    assert model.reserve(ledger, "c", UnitSums(1, 60), SCOPES, 0) == ReservationStopped("task:acme:t1"), (
        "and is not told to wait"
    )
    assert model.reserve(ledger, "a", UnitSums(1, 60), SCOPES, 0) == ReservationHeld(SCOPES, 0), (
        "what it holds it holds"
    )
    assert isinstance(model.reserve(ledger, "d", UnitSums(1, 10), OTHER, 0), ReservationHeld)
    assert model.settle(ledger, "a", UnitSums(1, 60), False).kind == "settled"


def test_spent_refuses_and_held_waits() -> None:
    ledger = LedgerState(LEASE_MS)
    assert model.reserve(ledger, "a", UnitSums(1, 60), SCOPES, 0) == ReservationHeld(SCOPES, 0)
    assert model.reserve(ledger, "b", UnitSums(1, 40), SCOPES, 0) == ReservationHeld(SCOPES, 0)
    waiting = model.reserve(ledger, "c", UnitSums(1, 1), SCOPES, 0)
    assert waiting == ReservationWaiting(MetCeiling("task:acme:t1", "cost_usd_micros", 0, 100, 1, 100))
    model.settle(ledger, "a", UnitSums(1, 60), False)
    assert isinstance(model.reserve(ledger, "c", UnitSums(1, 1), SCOPES, 0), ReservationWaiting)
    denied = model.reserve(ledger, "d", UnitSums(1, 41), SCOPES, 0)
    assert denied == ReservationDenied(MetCeiling("task:acme:t1", "cost_usd_micros", 60, 40, 41, 100))
    model.settle(ledger, "b", UnitSums(1, 1), False)
    assert isinstance(model.reserve(ledger, "c", UnitSums(1, 1), SCOPES, 0), ReservationHeld)


def test_the_day_of_two_tasks_is_one_account() -> None:
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "a", UnitSums(0, 90), SCOPES, 0)
    model.settle(ledger, "a", UnitSums(0, 90), False)
    denied = model.reserve(ledger, "b", UnitSums(0, 61), OTHER, 0)
    assert denied == ReservationDenied(MetCeiling("day:acme:2026-11-21", "cost_usd_micros", 90, 0, 61, 150))
    assert ledger.balances.get("task:acme:t2", model.Balance()) == model.Balance()


def test_a_known_id_is_not_held_twice_and_covers_no_more_than_it_did() -> None:
    ledger = LedgerState(LEASE_MS)
    first = model.reserve(ledger, "a", UnitSums(5, 50), SCOPES, 0)
    assert model.reserve(ledger, "a", UnitSums(5, 50), OTHER, 500) == first
    assert model.reserve(ledger, "a", UnitSums(6, 50), SCOPES, 500) == ReservationConflict(UnitSums(5, 50))
    model.settle(ledger, "a", UnitSums(1, 1), False)
    assert ledger.balances["task:acme:t1"] == model.Balance(UnitSums(), UnitSums(1, 1), 1)


@pytest.mark.parametrize("ask", [UnitSums(5, 50), UnitSums(1, 1), UnitSums(9, 99)])
def test_a_settled_id_admits_no_second_call(ask: UnitSums) -> None:
    """Its settlement would be a repetition, and the call free."""
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "a", UnitSums(5, 50), SCOPES, 0)
    model.settle(ledger, "a", UnitSums(1, 1), False)
    before = dict(ledger.entries)
    assert model.reserve(ledger, "a", ask, SCOPES, 500) == ReservationConflict(UnitSums(5, 50), settled=True)
    assert ledger.entries == before and ledger.balances["task:acme:t1"] == model.Balance(UnitSums(), UnitSums(1, 1), 1)
    # Settled before its reservation was seen: the call was made all the same.
    model.settle(ledger, "b", UnitSums(1, 1), False)
    assert model.reserve(ledger, "b", ask, SCOPES, 500) == ReservationConflict(UnitSums(), settled=True)
    assert model.restore(ledger, "b", UnitSums(5, 50), SCOPES, 0).charged == UnitSums(1, 1)


def test_what_nobody_settles_counts_as_spent_until_somebody_does() -> None:
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "lost", UnitSums(0, 80), SCOPES, 0)
    assert isinstance(model.reserve(ledger, "b", UnitSums(0, 30), SCOPES, LEASE_MS - 1), ReservationWaiting)
    assert isinstance(model.reserve(ledger, "b", UnitSums(0, 30), SCOPES, LEASE_MS), ReservationDenied)
    assert ledger.balances["task:acme:t1"] == model.Balance(UnitSums(), UnitSums(0, 80))
    assert model.settle(ledger, "lost", UnitSums(0, 3), False).charged == UnitSums(0, 3)
    assert ledger.balances["task:acme:t1"] == model.Balance(UnitSums(), UnitSums(0, 3), 1)


def test_estimated_charges_the_reservation_and_more_than_reserved_is_charged_and_told() -> None:
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "a", UnitSums(7, 30), SCOPES, 0)
    assert model.settle(ledger, "a", UnitSums(0, 0), True).charged == UnitSums(7, 30)
    model.reserve(ledger, "b", UnitSums(7, 30), SCOPES, 0)
    settlement = model.settle(ledger, "b", UnitSums(7, 75), False)
    assert settlement.over and settlement.charged == UnitSums(7, 75)
    assert settlement.ceiling == MetCeiling("task:acme:t1", "cost_usd_micros", 105, 0, 0, 100)
    again = model.settle(ledger, "b", UnitSums(7, 75), False)
    # The halt may not have been published the first time.
    assert again == replace(settlement, kind="repeated", over=False)


GRANT = sample(
    TaskGrant,
    tenant="acme",
    feature="search",
    workflow="nightly",
    limits=TaskLimits(cost_usd_micros=7, tokens=8),
    day_cost_usd_micros=2**52,
    day_tokens=9,
    expires_unix_ms=0,
)
JUST_BEFORE_MIDNIGHT = 1_790_035_199_999


def test_scopes_come_from_the_grant_and_the_utc_day() -> None:
    plain = GRANT.model_copy(update={"feature": "", "workflow": "", "actor": "ada"})
    task, user, day, month, mesh = scopes_of(plain, JUST_BEFORE_MIDNIGHT)
    assert task == Scope("task:acme:t1", NO_LIMIT._replace(tokens=8, cost_usd_micros=7))
    assert day == Scope("day:acme:2026-09-21", NO_LIMIT._replace(tokens=9, cost_usd_micros=2**52))
    assert [one.name for one in (user, month, mesh)] == [
        "user:acme:ada:2026-09-21",
        "month:acme:2026-09",
        "mesh:-:2026-09-21",
    ]
    assert scopes_of(plain, JUST_BEFORE_MIDNIGHT + 1)[2].name == "day:acme:2026-09-22"
    assert model.scopes_from_json(model.scopes_json((task, day))) == (task, day)


def test_every_account_of_a_call_is_in_its_fact_and_comes_back_from_it() -> None:
    limits = {"step": Limit(tokens=9)}
    scopes = scopes_of(GRANT, JUST_BEFORE_MIDNIGHT, step_id="s1", agent="worker.researcher", limits=limits)
    assert [one.name.split(":")[0] for one in scopes] == [
        "task",
        "step",
        "agent",
        "workflow",
        "feature",
        "user",
        "day",
        "month",
        "mesh",
    ]
    first, more = fact_scopes(scopes)
    fact = sample(Reserved, reservation_id="r", amount=Amount(), scopes=first, more_scopes=more)
    # What a fact cannot hold is as good as no ceiling.
    unlimited = scopes[6]._replace(limit=scopes[6].limit._replace(cost_usd_micros=UNLIMITED))
    assert model.scopes_from((*fact.scopes, *fact.more_scopes)) == (*scopes[:6], unlimited, *scopes[7:])


def test_limits_of_a_name_come_before_those_of_its_kind_and_never_above_the_grant_but_for_one_task() -> None:
    limits = {
        "task": Limit(tokens=5, model_calls=3),
        "day": Limit(tokens=100, tool_calls=6),
        "month": Limit(wall_ms=4),
        "feature": Limit(tokens=10, tool_calls=2),
        "feature/search": Limit(tokens=50),
        "user/eve": Limit(tokens=0),
    }
    by = {one.name.split(":")[0]: one.limit for one in scopes_of(GRANT, 0, step_id="s", agent="a", limits=limits)}
    assert by["task"] == NO_LIMIT._replace(tokens=5, cost_usd_micros=7, model_calls=3)
    assert by["day"] == NO_LIMIT._replace(tokens=9, cost_usd_micros=2**52, tool_calls=6)
    assert by["month"] == NO_LIMIT._replace(wall_ms=4)
    assert by["feature"] == NO_LIMIT._replace(tokens=50, tool_calls=2)
    assert by["user"] == by["agent"] == NO_LIMIT
    assert "step" not in by, "it has an account where it has a limit"
    raised = scopes_of(GRANT, 0, limits=limits | {"task/t1": Limit(tokens=1_000)})[0]
    assert raised.limit == NO_LIMIT._replace(tokens=1_000, cost_usd_micros=7, model_calls=3)
    assert scopes_of(GRANT, 0, limits=limits | {"task/t2": Limit(tokens=1_000)})[0].limit == by["task"]


def test_a_limit_of_a_service_is_each_of_its_agents_that_has_none_of_its_own() -> None:
    limits = {
        "agent": Limit(tokens=9, tool_calls=5),
        "agent/planner": Limit(tokens=7, model_calls=3),
        "agent/planner.revise": Limit(model_calls=1),
    }
    found = {
        agent: scopes_of(GRANT, 0, agent=agent, limits=limits)[1]
        for agent in ("planner.draft", "planner.revise", "planner", "planners.draft")
    }
    assert [one.name.split(":")[2] for one in found.values()] == list(found), "each has an account of its own"
    every = NO_LIMIT._replace(tokens=9, tool_calls=5)
    assert found["planner.draft"].limit == found["planner"].limit == every._replace(tokens=7, model_calls=3)
    assert found["planner.revise"].limit == every._replace(tokens=7, model_calls=1)
    assert found["planners.draft"].limit == every


def test_calls_and_time_are_limited_too() -> None:
    ledger = LedgerState(LEASE_MS)
    two = (Scope("task:acme:t1", NO_LIMIT._replace(model_calls=2, wall_ms=100)),)
    assert isinstance(model.reserve(ledger, "a", UnitSums(model_calls=1), two, 0), ReservationHeld)
    model.settle(ledger, "a", model.sum_of_usage(Usage(model_calls=1), wall_ms=60), False)
    assert isinstance(model.reserve(ledger, "b", UnitSums(model_calls=2), two, 0), ReservationDenied)
    assert isinstance(model.reserve(ledger, "c", UnitSums(model_calls=1), two, 0), ReservationHeld)
    told = model.settle(ledger, "c", model.sum_of_usage(Usage(model_calls=1), wall_ms=60), False)
    # Nobody asks for time, so more of it is no under-estimate; but the ceiling is passed.
    assert not told.over and told.ceiling == MetCeiling("task:acme:t1", "wall_ms", 120, 0, 0, 100)


def test_what_a_stopped_task_costs_is_told_with_every_settlement() -> None:
    ledger = LedgerState(LEASE_MS)
    model.reserve(ledger, "a", UnitSums(5, 50), SCOPES, 0)
    model.reserve(ledger, "b", UnitSums(5, 40), SCOPES, 0)
    assert model.settle(ledger, "a", UnitSums(1, 20), False).stopped is None
    assert model.stop_scope(ledger, SCOPES[0].name) == Balance(UnitSums(5, 40), UnitSums(1, 20), 1, True)
    late = model.settle(ledger, "b", UnitSums(2, 3), False)
    assert late.stopped == Balance(UnitSums(), UnitSums(3, 23), 2, True)
    assert model.settle(ledger, "b", UnitSums(2, 3), False).stopped == late.stopped
    assert model.amount_of(late.stopped.spent) == Amount(tokens=3, cost_usd_micros=23)


def test_people_read_the_limit_the_spent_the_asked_and_what_to_do() -> None:
    task = limit_messages.denied_text(MetCeiling("task:acme:t1", "cost_usd_micros", 480_000, 0, 50_000, 500_000))
    assert task == (
        "The budget of task t1 of tenant acme does not cover the next call: limit $0.50, spent $0.48, "
        "and the call may cost up to $0.05. Submit it again with a higher limit: --limit-usd 0.530000 is what it takes "
        "to make this next call; the calls after it need more, so leave room."
    )
    day = limit_messages.denied_text(MetCeiling("day:acme:2026-11-21", "tokens", 9_000, 0, 2_000, 10_000))
    assert "tenant acme's day 2026-11-21 (UTC)" in day and "raise day.tokens of tenant acme to at least 11000" in day
    assert "10,000 tokens" in limit_messages.waiting_text(MetCeiling("day:acme:2026-11-21", "tokens", 1, 2, 3, 10_000))
    assert limit_messages.format_amount(1, "cost_usd_micros") == "$0.000001"
    assert limit_messages.format_amount(1_234_000_000, "cost_usd_micros") == "$1,234.00"
