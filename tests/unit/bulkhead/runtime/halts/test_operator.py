"""Who may halt and who may let go on, and what the doers' view makes of it: as tables."""

from dataclasses import replace

import pytest

from bulkhead.runtime.halts.live import TRIAL_GAP_MS, Halts, HaltTarget
from bulkhead.runtime.halts.operator import HaltRequest, change_of, judge_request
from bulkhead_contracts.bounds import MAX_SWITCH_CHANGES
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_contracts.result import Failure

ADA, BOB, OPERATOR = "acme/ada", "acme/bob", "operator:root"


def wish(by: str, *, active: bool, scope: str = "tool", name: str = "http_get") -> HaltRequest:
    return HaltRequest(scope, "acme", name, active, "because", by, 7)  # type: ignore[arg-type]


def stands(by: str, *, active: bool = True, pauses: bool = True) -> Halt:
    return Halt(active=active, scope="tool", tenant="acme", name="http_get", code="x", reason="r", by=by, pauses=pauses)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (None, wish(ADA, active=True), ""),
        (None, wish(ADA, active=False), "not_halted"),
        (stands(ADA), wish(BOB, active=False), ""),
        (stands(ADA, active=False), wish(BOB, active=False), "not_halted"),
        (stands(OPERATOR), wish(ADA, active=False), "not_yours"),
        (stands(OPERATOR), wish(ADA, active=True), "not_yours"),
        (stands(OPERATOR), wish(OPERATOR, active=False), ""),
        (stands(ADA), wish(OPERATOR, active=False), ""),
        (stands("budget", pauses=False), wish(OPERATOR, active=False), "ended"),
        (stands("budget", pauses=False), wish(ADA, active=True), "ended"),
    ],
)
def test_who_may(old: Halt | None, new: HaltRequest, code: str) -> None:
    found = judge_request(new, old)
    if code:
        assert isinstance(found, Failure) and found.code == code and found.hint
    else:
        assert isinstance(found, Halt) and (found.active, found.by, found.pauses) == (new.active, new.by, True)


def test_a_repeat_changes_nothing_and_who_operates_the_mesh_takes_over() -> None:
    old = stands(ADA)
    assert judge_request(wish(BOB, active=True), old) is old
    taken = judge_request(wish(OPERATOR, active=True), old)
    assert isinstance(taken, Halt) and taken.by == OPERATOR
    assert isinstance(judge_request(wish(ADA, active=False), taken), Failure), (
        "what was taken over, ada does not release"
    )


def test_a_repeat_under_its_key_counts_once_also_when_another_one_changed_it_since() -> None:
    halted = judge_request(replace(wish(ADA, active=True), change=change_of("k1", "True because")), None)
    assert isinstance(halted, Halt)
    resumed = judge_request(replace(wish(BOB, active=False), change=change_of("k2", "False because")), halted)
    assert isinstance(resumed, Halt) and len(resumed.changes) == 2
    assert judge_request(replace(wish(BOB, active=False), change=resumed.changes[1]), resumed) is resumed, (
        "its answer was lost"
    )
    assert judge_request(replace(wish(ADA, active=True), change=halted.changes[0]), resumed) is resumed, "it goes on"
    other = judge_request(replace(wish(ADA, active=True), change=change_of("k1", "True for another reason")), resumed)
    assert isinstance(other, Failure) and other.code == "idempotency_reused" and other.hint
    for number in range(20):
        old, active = resumed, not resumed.active
        resumed = judge_request(replace(wish(ADA, active=active), change=change_of(f"n{number}", "x")), old)
        assert isinstance(resumed, Halt) and len(resumed.changes) <= MAX_SWITCH_CHANGES
    kept = judge_request(wish(OPERATOR, active=not resumed.active), resumed)
    assert isinstance(kept, Halt) and kept.changes == resumed.changes, "who sends no key forgets nobody else's"


def test_a_tenant_named_operator_is_not_who_operates_the_mesh() -> None:
    assert not wish("operator/ada", active=True).is_operator


def entry(**changes: object) -> tuple[str, bytes]:
    fields = {"scope": "tool", "name": "http_get", "code": "x", "reason": "r", "by": ADA, "pauses": True} | changes
    return "$KV.CONTROL.any", Halt(**fields).model_dump_json().encode()  # type: ignore[arg-type]


TARGET = HaltTarget("acme", "t1", ("worker", "worker.step"), "mail", "http_get", "gpt-4.1")


@pytest.mark.parametrize(
    ("changes", "hit"),
    [
        ({}, True),
        ({"tenant": "acme"}, True),
        ({"tenant": "other"}, False),
        ({"name": "calculate"}, False),
        ({"scope": "agent", "name": "worker-step"}, True),
        ({"scope": "agent", "name": "worker"}, True),
        ({"scope": "agent", "name": "planner"}, False),
        ({"scope": "feature", "name": "mail"}, True),
        ({"scope": "model", "name": "gpt-4-1"}, True),
        ({"scope": "tenant", "name": "acme"}, True),
        ({"scope": "task", "tenant": "acme", "name": "t1"}, True),
        ({"scope": "task", "tenant": "other", "name": "t1"}, False),
    ],
)
def test_what_a_halt_reaches(changes: dict[str, object], hit: bool) -> None:
    halts = Halts(None)  # type: ignore[arg-type]
    event = halts.halt_event(TARGET)
    halts._fold_entry(*entry(**changes))
    assert (halts.find(TARGET) is not None, event.is_set()) == (hit, hit)
    halts._fold_entry(*entry(**changes, active=False))
    assert halts.find(TARGET) is None and not event.is_set()


def test_what_ends_comes_before_what_pauses() -> None:
    halts = Halts(None)  # type: ignore[arg-type]
    halts._fold_entry(*entry(scope="tenant", name="acme"))
    halts._fold_entry(*entry(scope="model", name="gpt-4-1", pauses=False))
    found = halts.find(TARGET)
    assert found is not None and found.scope == "model"


def test_a_halt_that_only_pauses_ends_nothing() -> None:
    halts = Halts(None)  # type: ignore[arg-type]
    event = halts.halt_event(TARGET, ends=True)
    halts._fold_entry(*entry(scope="task", tenant="acme", name="t1"))
    assert not event.is_set()
    halts._fold_entry(*entry(scope="task", tenant="acme", name="t1", pauses=False))
    assert event.is_set() and halts.halt_event(TARGET, ends=True) is event
    halts._fold_entry(*entry(scope="task", tenant="acme", name="t1", active=False))
    assert not event.is_set()


def breaker(**changes: object) -> tuple[str, bytes]:
    fields = {"scope": "tool", "name": "http_get", "phase": "open", "reason": "r", "until_unix_ms": 10_000} | changes
    return "control.live.breaker.any", Breaker(**fields).model_dump_json().encode()  # type: ignore[arg-type]


def test_an_open_breaker_holds_back_then_lets_trials_through_one_by_one() -> None:
    halts = Halts(None)  # type: ignore[arg-type]
    assert halts.holding_breaker(TARGET, 0) is None
    halts._fold_entry(*breaker())
    held = halts.holding_breaker(TARGET, 4_000)
    assert held is not None and held.retry_after_ms == 6_000
    assert halts.holding_breaker(TARGET, 10_000) is None, "the first trial"
    held = halts.holding_breaker(TARGET, 10_100)
    assert held is not None and held.retry_after_ms == TRIAL_GAP_MS - 100
    assert halts.holding_breaker(TARGET, 10_000 + TRIAL_GAP_MS) is None
    halts._fold_entry(*breaker(phase="closed"))
    assert halts.holding_breaker(TARGET, 10_000 + TRIAL_GAP_MS) is None


def test_a_call_that_another_breaker_holds_is_no_trial() -> None:
    halts = Halts(None)  # type: ignore[arg-type]
    halts._fold_entry(*breaker())
    halts._fold_entry(*breaker(scope="model", name="gpt-4-1", until_unix_ms=20_000))
    assert halts.holding_breaker(TARGET, 12_000) is not None
    halts._fold_entry(*breaker(scope="model", name="gpt-4-1", phase="closed"))
    assert halts.holding_breaker(TARGET, 12_000) is None, "the trial was not used up"
