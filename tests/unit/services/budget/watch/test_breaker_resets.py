"""Breakers reset by a tenant's people: who may, what is told, and what every replica's fold makes of it."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.health.breakers.state_machine import BreakerState as Broken
from bulkhead.health.events import CallEnded
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, BreakerReset, ResetReplied, ResetRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.queries.halts import HaltRequestHandler
from bulkhead_services.budget.watch.breaker_entries import BreakerEntryOwner, entry_of, learn_entry
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.notices import DueNotices

NOW = 1_795_000_000_000
TOOL = ("tool", "acme", "http_get")


@dataclass
class Place:
    """What budget's switches need of a context."""

    bus: MemoryBus
    publisher: Publisher
    now: int = NOW

    def clock(self) -> int:
        return self.now


def place() -> Place:
    bus = MemoryBus(MemoryBroker.for_mesh(), "budget")
    return Place(bus, Publisher("budget", bus, b"b" * 32, lambda: NOW))


def breaker(**changes: Any) -> Breaker:
    fields = {
        "scope": "tool",
        "tenant": "acme",
        "name": "http_get",
        "phase": "open",
        "reason": "7 of 10 calls failed",
        "since_unix_ms": NOW - 9,
        "until_unix_ms": NOW + 30_000,
        "openings": 1,
        "actors": ("ada",),
    }
    return Breaker(**fields | changes)  # type: ignore[arg-type]


async def put(where: Place, one: Breaker) -> None:
    key = subjects.breaker_key(one.scope, one.tenant, one.name)
    await where.bus.publish(key, one.model_dump_json().encode(), {}, f"{key}{one.since_unix_ms}{one.phase}")


async def stands(where: Place, one: Breaker) -> Breaker:
    found = await where.bus.last(subjects.CONTROL_STREAM, subjects.breaker_key(one.scope, one.tenant, one.name))
    assert found is not None
    return Breaker.model_validate_json(found.body)


async def ask(
    where: Place,
    person: str = "bob",
    *,
    role: str = "operator",
    tenant: str = "acme",
    scope: str = "tool",
    name: str = "http_get",
    request: str = "m",
    reason: str = "it answers again",
) -> ResetReplied:
    who = RequesterClaim(tenant=tenant, person=person, role=role, via="api_key")  # type: ignore[arg-type]
    body = ResetRequested(requester=who, scope=scope, name=name, reason=reason)  # type: ignore[arg-type]
    head = Envelope(id=request, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return await HaltRequestHandler(where).answer_reset(
        ReceivedMessage(head, body, "acme", "halts", "gateway", 0, 1, 1)
    )  # type: ignore[arg-type]


async def facts(where: Place) -> list[StoredMessage]:
    return await where.bus.read("INBOX_JOURNAL", "mesh.>")


async def test_an_operator_whose_tasks_did_not_open_it_closes_it_and_it_is_told() -> None:
    where = place()
    await put(where, breaker())
    reply = await ask(where)
    assert reply.failure is None and reply.breaker == await stands(where, breaker())
    assert (reply.breaker.phase, reply.breaker.by) == ("closed", "acme/bob")
    assert reply.breaker.reason == "reset by acme/bob: it answers again"
    (fact,) = await facts(where)
    told = BreakerReset.model_validate_json(fact.body)
    assert (told.breaker, told.was, told.reason) == (reply.breaker, "7 of 10 calls failed", "it answers again")
    assert fact.headers["ce-actor"] == "acme/bob"
    again = await ask(where, request="n")
    assert again.failure is not None and again.failure.code == "not_open" and len(await facts(where)) == 1


async def test_a_reset_that_is_repeated_under_its_id_is_made_once_also_when_it_has_opened_again() -> None:
    where = place()
    await put(where, breaker())
    first = await ask(where)
    assert (await ask(where)).breaker == first.breaker, "the answer was lost"
    other = await ask(where, reason="because")
    assert other.failure is not None and other.failure.code == "idempotency_reused"
    breakers, owner = WatchFold(DEFAULT).watch.breakers, BreakerEntryOwner(where.bus, b"b" * 32)
    await owner.sync_entries(breakers, DueNotices())
    opened = Broken("tool", "http_get", phase="open", since_unix_ms=NOW + 5, until_unix_ms=NOW + 9, openings=1)
    breakers.adopt_breaker(TOOL, opened)
    breakers.changed[TOOL] = opened
    await owner.sync_entries(breakers, DueNotices())
    again = await ask(where)
    assert again.breaker is not None and again.breaker.phase == "open" == (await stands(where, breaker())).phase
    assert len(await facts(where)) == 1 and (await ask(where, request="n")).breaker is not None


@pytest.mark.parametrize(
    ("entry", "asks", "code"),
    [
        ({}, {"person": "ada"}, "tripped_it"),
        ({"phase": "half_open"}, {"person": "ada"}, "tripped_it"),
        ({}, {"role": "submitter"}, "forbidden"),
        ({}, {"role": "approver"}, "forbidden"),
        ({}, {"tenant": "other"}, "forbidden"),
        ({"tenant": "other"}, {}, "not_open"),
        ({"tenant": ""}, {}, "not_open"),
        ({"phase": "closed"}, {}, "not_open"),
        ({}, {"name": "calculate"}, "not_open"),
        (
            {"scope": "tenant", "tenant": "", "name": "acme", "actors": ()},
            {"scope": "tenant", "name": "acme"},
            "not_yours",
        ),
        ({"scope": "tenant", "tenant": "", "name": "other"}, {"scope": "tenant", "name": "other"}, "forbidden"),
    ],
)
async def test_who_was_tripped_by_it_and_who_is_of_elsewhere_may_not(entry: dict, asks: dict, code: str) -> None:
    where = place()
    before = breaker(**entry)
    await put(where, before)
    reply = await ask(where, **asks)
    assert reply.breaker is None and reply.failure is not None
    assert reply.failure.code == code and reply.failure.hint
    assert await stands(where, before) == before and await facts(where) == []


async def test_a_clock_that_is_behind_closes_it_all_the_same() -> None:
    where = place()
    where.now = NOW - 3_600_000
    await put(where, breaker())
    reply = await ask(where)
    assert reply.breaker is not None and reply.breaker.since_unix_ms == NOW - 9


# The fold


def opened() -> WatchFold:
    fold = WatchFold(DEFAULT)
    for number in range(DEFAULT.breakers.min_calls):
        fold.watch.fold_event(
            CallEnded(
                f"m{number}",
                "acme/t1",
                "s1/1",
                "acme",
                "tool",
                "http_get",
                True,
                5,
                NOW - 60 + number,
                actor="ada" if number % 2 else "eve",
            )
        )
    assert fold.watch.breakers.states[TOOL].phase == "open"
    return fold


async def test_every_fold_knows_of_it_by_the_journal_and_believes_nobody_else() -> None:
    where, fold = place(), opened()
    await put(where, breaker(since_unix_ms=fold.watch.breakers.states[TOOL].since_unix_ms))
    await ask(where)
    (fact,) = await facts(where)
    for liar in ("worker", "tool_executor", "gateway"):
        parts = fact.subject.split(".")
        forged = StoredMessage(".".join([parts[0], liar, *parts[2:]]), fact.headers, fact.body, fact.sequence, NOW)
        fold.replay_message(forged)
        assert fold.watch.breakers.states[TOOL].phase == "open", liar
    fold.fold_message(fact)
    assert fold.watch.breakers.states[TOOL].phase == "closed" and not fold.watch.breakers.changed
    assert fold.watch.breakers.states[TOOL].reason == "reset by acme/bob"
    [change] = fold.control_changes.changes_of("acme")
    assert (change.act, change.scope, change.name, change.by) == ("reset", "tool", "http_get", "acme/bob")
    assert change.reason == "it answers again" and fold.control_changes.changes_of("bolt") == ()


def test_for_whom_it_opened_stands_in_its_entry_also_after_another_took_over() -> None:
    breakers = opened().watch.breakers
    entry = entry_of(TOOL, breakers.states[TOOL], breakers.opening_of(TOOL))
    assert set(entry.actors) == {"ada", "eve"}
    assert entry.tasks == ("t1",) * len(entry.evidence)
    later = WatchFold(DEFAULT).watch
    learn_entry(later.breakers, entry)
    due = later.breakers.states[TOOL].until_unix_ms
    trial = CallEnded("n", "acme/t2", "s1/1", "acme", "tool", "http_get", False, 5, due + 9, actor="bob")
    later.fold_event(trial)
    half = entry_of(TOOL, later.breakers.states[TOOL], later.breakers.opening_of(TOOL))
    assert (half.phase, half.actors, half.evidence, half.tasks) == (
        "half_open",
        entry.actors,
        entry.evidence,
        entry.tasks,
    )
    later.fold_event(CallEnded("o", "acme/t2", "s1/1", "acme", "tool", "http_get", True, 5, due + 19, actor="bob"))
    again = entry_of(TOOL, later.breakers.states[TOOL], later.breakers.opening_of(TOOL))
    assert again.phase == "open" and set(again.actors) == {"ada", "eve", "bob"}


def test_who_made_many_of_the_calls_that_opened_it_is_known_although_others_made_the_last_ones() -> None:
    breakers, at = WatchFold(DEFAULT).watch.breakers, itertools.count(NOW)
    for who, failed, times in (("eve", False, 30), ("mallory", True, 20), ("eve", False, 15), ("ada", True, 40)):
        for _ in range(times):
            number = next(at)
            breakers.fold_call(
                CallEnded(f"m{number}", "acme/t1", "s1/1", "acme", "tool", "http_get", failed, 5, number, actor=who)
            )
    assert breakers.states[TOOL].phase == "open" and set(breakers.opening_of(TOOL).actors) == {"mallory", "ada"}
    assert len(breakers.opening_of(TOOL).evidence) == 16


def test_who_only_had_calls_under_way_did_not_open_it_again() -> None:
    """ada's last calls end after the reset and count for nothing; then eve's open it: ada may reset it, eve may not."""
    breakers = opened().watch.breakers
    breakers.reset_breaker(TOOL, "acme/bob", NOW)
    for number in range(5):
        breakers.fold_call(
            CallEnded(
                f"u{number}", "acme/t1", "s1/1", "acme", "tool", "http_get", True, 900, NOW + 10 + number, actor="ada"
            )
        )
    for number in range(DEFAULT.breakers.min_calls):
        breakers.fold_call(
            CallEnded(
                f"n{number}", "acme/t2", "s1/1", "acme", "tool", "http_get", True, 5, NOW + 99 + number, actor="eve"
            )
        )
    assert breakers.states[TOOL].phase == "open" and breakers.opening_of(TOOL).actors == ("eve",)
    assert {one[0] for one in breakers.opening_of(TOOL).evidence} == {"n"}
