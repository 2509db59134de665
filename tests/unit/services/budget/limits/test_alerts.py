"""Which alerts follow from how far accounts have come, in whatever order; what is told of them, and how often."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.events import CallEnded
from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.budget import Alerted, NoticeRequested, Overran, Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.model import CeilingLevel, LedgerState, Scope, SettlementResult, UnitSums
from bulkhead_services.budget.limits import messages
from bulkhead_services.budget.limits.alert_rules import (
    MIN_SPAN_MS,
    SAMPLE_MS,
    WINDOW_MS,
    add_sample,
    period_end,
    rate_alert,
    share_alert,
)
from bulkhead_services.budget.limits.alerts import RECHECK_TOLD_MS, AlertPublisher

NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z
MIDNIGHT = NOON + 12 * 3_600_000
TASK = CeilingLevel("task:acme:t1", "cost_usd_micros", 0, 1_000, NOON + 3_600_000)
DAY = CeilingLevel("day:acme:2026-11-21", "cost_usd_micros", 0, 1_000_000)


@dataclass
class Publisher:
    """Keeps what is sent, by the id that the broker knows it by."""

    sent: list[tuple[str, Any, str]] = field(default_factory=list)

    async def send(self, to: str, body: Any, **how: Any) -> None:
        self.sent.append((to, body, f"{how['cause']}/{how['index']}"))


def alerts(store: Any, publisher: Any, now: list[int]) -> AlertPublisher:
    return AlertPublisher(None, publisher, store, lambda: now[0])  # type: ignore[arg-type]


def settled(*levels: CeilingLevel) -> SettlementResult:
    return SettlementResult("settled", UnitSums(1, 1), UnitSums(1, 1), levels=levels)


BODY = Settled(reservation_id="r1", call_id="c1", usage=Usage())
HEAD = Envelope("f" * 32, BODY.ce_type(), "model_gateway", NOON)
MESSAGE = ReceivedMessage(HEAD, BODY, "acme", "t1", "model_gateway", 1, NOON, 1)


def test_a_share_is_told_by_the_highest_threshold_that_is_reached() -> None:
    told = {spent: share_alert(TASK._replace(spent=spent)) for spent in (0, 499, 500, 799, 800, 949, 950, 1_000, 2_000)}
    assert {spent: one and one.percent for spent, one in told.items()} == {
        0: None,
        499: None,
        500: 50,
        799: 50,
        800: 80,
        949: 80,
        950: 95,
        1_000: 95,
        2_000: 95,
    }
    assert told[500].id == told[799].id != told[800].id
    other = TASK._replace(spent=500)
    ids = {
        share_alert(one).id
        for one in (
            other,
            other._replace(limit=999),
            other._replace(unit="tokens"),
            other._replace(scope="task:acme:t2"),
        )
    }
    assert len(ids) == 4, "a limit that was changed, another unit and another account have alerts of their own"
    assert share_alert(TASK._replace(limit=0, spent=5)) is None


def test_levels_are_those_of_the_limited_units_of_every_account_and_the_same_when_it_comes_again() -> None:
    scopes = (
        Scope("task:acme:t1", model.NO_LIMIT._replace(cost_usd_micros=100), 7),
        Scope("day:acme:2026-11-21", model.NO_LIMIT._replace(tokens=50)),
        Scope("mesh:-:x", model.NO_LIMIT),
    )
    ledger = LedgerState(1_000)
    model.reserve(ledger, "a", UnitSums(9, 60), scopes, 0)
    found = model.settle(ledger, "a", UnitSums(9, 55), False)
    assert found.levels == (
        CeilingLevel("task:acme:t1", "cost_usd_micros", 55, 100, 7),
        CeilingLevel("day:acme:2026-11-21", "tokens", 9, 50),
    )
    assert model.settle(ledger, "a", UnitSums(9, 55), False).levels == found.levels


@given(st.lists(st.integers(0, 1_200), min_size=1, max_size=30), st.data())
def test_each_threshold_is_told_once_whatever_the_order_the_replica_and_the_repetitions(
    spent: list[int], data: st.DataObject
) -> None:
    async def run() -> None:
        store, publisher, now = MemoryStore(lease_ms=1_000), Publisher(), [NOON]
        replicas = [alerts(store, publisher, now) for _ in range(3)]
        reached = set()
        for one in spent:
            level = TASK._replace(spent=one)
            reached |= {found.percent} if (found := share_alert(level)) else set()
            for _ in range(data.draw(st.integers(1, 2))):
                await data.draw(st.sampled_from(replicas)).alert_on_settled(MESSAGE, BODY, settled(level))
                now[0] += data.draw(st.sampled_from([0, 1, RECHECK_TOLD_MS]))
        shares = [(to, type(body), body.percent) for to, body, _ in publisher.sent if body.kind == "share"]
        told = [(to, kind) for to in ("gateway", "journal", "tool_executor") for kind in (Alerted, NoticeRequested)]
        told = [one for one in told if one not in (("journal", NoticeRequested), ("tool_executor", Alerted))]
        assert Counter(shares) == Counter((*who, one) for one in reached for who in told)

    asyncio.run(run())


def test_an_alert_whose_mark_was_not_made_is_told_again_under_the_same_id_and_a_days_not_as_a_tasks() -> None:
    class Forgets(MemoryStore):
        async def get_value(self, name: str) -> bytes:
            return b""

    async def run() -> None:
        publisher, now = Publisher(), [NOON]
        for _ in range(2):
            await alerts(Forgets(lease_ms=1_000), publisher, now).alert_on_settled(
                MESSAGE, BODY, settled(DAY._replace(spent=850_000))
            )
        (one, notice, _, *again) = publisher.sent
        assert [to for to, _, _ in publisher.sent] == ["journal", "gateway", "tool_executor"] * 2
        assert [sent[2] for sent in publisher.sent[:3]] == [sent[2] for sent in again]
        told, fact = notice[1], one[1]
        assert isinstance(told, NoticeRequested) and (told.notice, told.account, told.what, told.hint) == (
            fact.alert,
            fact.scope,
            fact.what,
            fact.hint,
        )
        assert "tenant acme's day 2026-11-21 (UTC) has spent $0.85 of $1.00 (85 %)" in one[1].what
        assert isinstance(one[1], Alerted) and one[1].percent == 80 and "bulkhead limits set day" in one[1].hint

    asyncio.run(run())


def test_what_all_tenants_spend_together_is_told_to_no_tenants_webhook() -> None:
    async def run() -> None:
        publisher = Publisher()
        every = CeilingLevel("mesh:-:2026-11-21", "tokens", 60, 100)
        await alerts(MemoryStore(lease_ms=1_000), publisher, [NOON]).alert_on_settled(MESSAGE, BODY, settled(every))
        assert [to for to, _, _ in publisher.sent] == ["journal"]

    asyncio.run(run())


def watched(level: CeilingLevel, per_s: int, seconds: int, begin: int = 0, every: int = 1):
    """What is said second by second while it is spent evenly; by second."""
    pace, said = (), {}
    for at in range(0, seconds, every):
        now, level = NOON + at * 1_000, level._replace(spent=begin + per_s * at)
        pace = add_sample(pace, level, now)
        assert len(pace) <= WINDOW_MS // SAMPLE_MS + 2
        if (found := rate_alert(pace, level, now)) is not None:
            said[at] = found
    return said


def test_a_pace_that_reaches_the_limit_before_its_end_is_told_and_not_in_the_first_minute() -> None:
    said = watched(DAY, 2_000, 300)
    assert min(said) == MIN_SPAN_MS // 1_000, "before that nothing is known of its rate"
    first = said[60]
    assert first.kind == "rate" and first.reached_unix_ms == NOON + 60_000 + 440_000
    assert len({one.id for one in said.values()}) == 1


def test_no_alarm_for_slow_or_single_or_ended_or_far_away_spending() -> None:
    assert not watched(DAY, 20, 600), "ten times slower than the period"
    assert not watched(DAY, 1, 600, begin=900_000), "twelve times what was watched is not enough to know"
    assert not watched(TASK._replace(until_unix_ms=NOON + 61_000), 2, 120, begin=100), "its grant ends before"
    pace = add_sample((), DAY, NOON)
    for at, spent in ((70_000, 500_000), (71_000, 500_000), (72_000, 500_000)):
        pace = add_sample(pace, DAY._replace(spent=spent), NOON + at)
    assert rate_alert(pace, DAY._replace(spent=500_000), NOON + 72_000) is None, "one large call is no pace"
    assert rate_alert((), DAY, NOON) is None


def test_late_looks_change_nothing_and_a_pause_begins_anew() -> None:
    pace = add_sample((), DAY._replace(spent=50), NOON)
    assert (
        add_sample(pace, DAY._replace(spent=40), NOON + 1) == pace == add_sample(pace, DAY._replace(spent=60), NOON - 1)
    )
    assert len(add_sample(pace, DAY._replace(spent=60), NOON + WINDOW_MS)) == 1


def test_periods_end_where_their_names_say() -> None:
    assert period_end(DAY) == period_end(DAY._replace(scope="user:acme:b:ob:2026-11-21")) == MIDNIGHT
    assert period_end(DAY._replace(scope="month:acme:2026-12")) == 1_798_761_600_000  # 2027-01-01
    assert period_end(TASK) == NOON + 3_600_000 and period_end(TASK._replace(until_unix_ms=0)) == 0


def test_hints_name_the_account_that_is_to_have_more() -> None:
    told = {
        scope: messages.raise_hint(DAY._replace(scope=scope))
        for scope in (
            "task:acme:t1",
            "step:acme:t1/s1",
            "agent:acme:worker.a:2026-11-21",
            "month:acme:2026-11",
            "mesh:-:2026-11-21",
        )
    }
    for scope, words in (
        ("task:acme:t1", "topup t1 --usd 1."),
        ("step:acme:t1/s1", "set step --usd 2."),
        ("agent:acme:worker.a:2026-11-21", "set agent/worker.a --usd 2."),
        ("month:acme:2026-11", "set month --usd 2."),
        ("mesh:-:2026-11-21", "BULKHEAD_MESH_DAY_"),
    ):
        assert words in told[scope], told[scope]
        assert "nothing is stopped yet" in told[scope]
        at_it = messages.raise_hint(DAY._replace(scope=scope, spent=DAY.limit))
        assert at_it == told[scope].replace("nothing is stopped yet", "the next call is held back")


def test_one_is_not_several() -> None:
    assert [messages.format_amount(count, "model_calls") for count in (0, 1, 2)] == [
        "0 model calls",
        "1 model call",
        "2 model calls",
    ]


# More than was reserved


def overran(number: int, used_tokens: int = 2_100) -> list[Any]:
    used, reserved = UnitSums(used_tokens, 30, 1), UnitSums(500, 10, 1)
    body = Overran(
        reservation_id=f"r{number}",
        call_id=f"c{number}",
        service="model_gateway",
        resource="big",
        reserved=model.amount_of(reserved),
        used=model.amount_of(used),
        what=messages.overrun_text(used, reserved),
        overran_unix_ms=NOON,
    )
    head = Envelope(f"{number:032x}", body.ce_type(), "budget", NOON)
    return JournalReader().read("mesh.budget.journal.1.acme.t1.-", head.to_headers(), body.encode(), NOON + number)


def test_a_model_whose_calls_use_more_than_was_reserved_is_held_back_with_words() -> None:
    named, breakers, trips = DEFAULT.breakers, BreakerRegistry(DEFAULT.breakers), []
    for number in range(named.min_calls * 2):
        (event,) = overran(number)
        fine = replace(event, id=f"m{number}", failed=False, counted=False, why="", latency_ms=5)
        # Three of five use more; between what tells of one call there is no order.
        both = [fine, event] if number % 2 else [event, fine]
        for one in both if number % 5 < 3 else [fine]:
            trips += breakers.fold_call(one)
    (trip,) = trips
    assert trip.detector == "breaker.model" and "big" in trip.what
    assert "it used $0.00003 where $0.00001 was reserved, and 2,100 tokens where 500 tokens was reserved" in trip.what
    assert breakers.states["tenant", "", "acme"].buckets[-1].calls == named.min_calls * 2, "each call counts once"


def test_a_small_overrun_is_no_failure_of_the_model() -> None:
    assert overran(1, 1_501) and not overran(1, 1_500)


def test_a_few_of_many_are_charged_and_hold_nothing_back() -> None:
    breakers, trips = BreakerRegistry(DEFAULT.breakers), []
    for number in range(40):
        (event,) = overran(number)
        trips += breakers.fold_call(replace(event, id=f"m{number}", failed=False, counted=False, why=""))
        trips += breakers.fold_call(event) if number % 3 == 0 else []
    assert not trips and isinstance(event, CallEnded)
