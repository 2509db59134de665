"""An agent that only talks in task after task: playbooks of when it is held back, why, and what lets it go on."""

import json

import pytest

from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.breakers.state_machine import BreakerState
from bulkhead.health.events import CallEnded
from bulkhead.health.findings import HealthFinding, Level, finding_of
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from tests.unit.bulkhead.health.test_chatter import Talk

NAMED = DEFAULT.breakers
AGENT = ("agent", "acme", "worker.step")
NOW = 1_000_000
RING = (("a", "b"), ("b", "c"), ("c", "a"))


def ring(talk: Talk, rounds: int = 14, *, works: bool = False) -> list[HealthFinding]:
    """Three steps that ask each other all round, and do nothing else unless they work."""
    return [
        trip
        for _ in range(rounds)
        for by, to in RING
        for trip in talk.ask(by, to, question=talk.words()) + (talk.work(by) + talk.work(to) if works else [])
    ]


def test_the_third_task_in_which_an_agent_only_talked_opens_its_breaker_and_all_three_are_the_evidence() -> None:
    watch, trips = Watch(DEFAULT), list[HealthFinding]()
    for task, actor in (("t1", "ada"), ("t2", "bob"), ("t3", "ada")):
        assert not watch.breakers.changed, "first they are warned, then their tasks are stopped"
        trips += ring(Talk(task, watch, actor=actor))
    levels = [(one.lineage, one.level) for one in trips if one.detector == "chatter.group"]
    assert levels == [(f"acme/{task}", level) for task in ("t1", "t2", "t3") for level in ("warn", "stop")]
    (found,) = [one for one in trips if one.detector == "breaker.agent"]
    assert (found.lineage, found.agents, found.level) == ("acme/t3", ("worker.step",), "stop")
    assert "3 tasks (t1, t2, t3) were stopped within 10 min because the agents only talked" in found.what
    assert {name.partition("-")[0] for name in found.evidence} == {"t1", "t2", "t3"} and len(found.evidence) == 15
    assert watch.breakers.changed[AGENT].phase == "open" and watch.breakers.opening_of(AGENT).evidence == found.evidence
    assert watch.breakers.opening_of(AGENT).actors == ("ada", "bob"), "they do not reset it"
    again = Watch(DEFAULT)
    same = [
        trip
        for task, actor in (("t1", "ada"), ("t2", "bob"), ("t3", "ada"))
        for trip in ring(Talk(task, again, actor=actor))
    ]
    assert [one.id for one in same] == [one.id for one in trips], "whoever folds the same names it the same"


def test_neither_one_task_nor_work_nor_another_tenants_talk_opens_it() -> None:
    watch = Watch(DEFAULT)
    trips = ring(Talk("t1", watch), rounds=40)
    assert {"chatter.task", "chatter.group"} <= {one.detector for one in trips if one.level == "stop"}
    for number in range(5):
        trips += ring(Talk(f"w{number}", watch), works=True)
    for tenant in ("other", "third"):
        trips += ring(Talk("t1", watch, tenant=tenant))
    assert not [one for one in trips if one.detector.startswith("breaker")] and not watch.breakers.changed


def stopped(task: str, at: int = NOW, level: Level = "stop", *, roles: object = ("worker.step",)) -> HealthFinding:
    facts = {"roles": list(roles)} if isinstance(roles, tuple) else {}
    evidence = tuple(f"{task}-{number}" for number in range(30))
    pair = ("a/1", "b/1")
    return finding_of("chatter.pair", level, "acme", f"acme/{task}", pair, "they talk", evidence, at, task, facts)


def opened() -> BreakerRegistry:
    breakers = BreakerRegistry(NAMED)
    found = [
        trip for number in range(3) for trip in breakers.fold_chatter_trip(stopped(f"t{number}", NOW + number), "ada")
    ]
    assert [one.detector for one in found] == ["breaker.agent"]
    return breakers


@pytest.mark.parametrize(
    "trips",
    [
        [stopped(f"t{number}", NOW + number * (NAMED.chatter_window_ms // 2)) for number in range(9)],
        [stopped(f"t{number}", level="warn") for number in range(9)],
        [stopped(f"t{number}", roles=None) for number in range(9)],
        [stopped("t1", NOW + number) for number in range(9)],
        [stopped(f"t{number}", roles=(f"worker.r{number}",)) for number in range(9)],
    ],
    ids=["seldom", "warned", "unknown", "told again", "others"],
)
def test_it_stays_closed(trips: list[HealthFinding]) -> None:
    breakers = BreakerRegistry(NAMED)
    assert [one for trip in trips for one in breakers.fold_chatter_trip(trip)] == []


def good(number: int, at: int) -> CallEnded:
    return CallEnded(f"g{number}", "acme/t9", "s1/1", "acme", "tool", "look", False, 5, at, "worker.step", actor="ada")


def test_while_it_is_open_nothing_more_is_told_and_the_first_that_talks_when_it_is_tried_opens_it_again() -> None:
    breakers = opened()
    until = breakers.states[AGENT].until_unix_ms
    assert until == NOW + 2 + NAMED.open_ms
    assert [breakers.fold_chatter_trip(stopped("late", at)) for at in (NOW, until - 1)] == [[], []]
    (again,) = breakers.fold_chatter_trip(stopped("t7", until + 9), "bob")
    assert "task t7 was stopped" in again.what and set(again.evidence) <= {f"t7-{number}" for number in range(30)}
    found = breakers.states[AGENT]
    assert (found.openings, found.until_unix_ms - found.since_unix_ms) == (2, 2 * NAMED.open_ms)
    assert breakers.opening_of(AGENT).actors == ("ada", "bob")


def test_good_calls_as_trials_close_it_and_then_it_takes_three_tasks_again() -> None:
    breakers = opened()
    until = breakers.states[AGENT].until_unix_ms
    for number in range(NAMED.trials):
        breakers.fold_call(good(number, until + 100 + number))
    assert breakers.states[AGENT].phase == "closed" and breakers.opening_of(AGENT).actors == ()
    found = [len(breakers.fold_chatter_trip(stopped(f"n{number}", until + 200 + number), "ada")) for number in range(3)]
    assert found == [0, 0, 1]


def test_who_closes_it_closes_it_over_what_was_before_also_when_it_is_told_late() -> None:
    breakers = opened()
    breakers.reset_breaker(AGENT, "acme/eve", NOW + 5_000)
    assert [
        one for number in range(9) for one in breakers.fold_chatter_trip(stopped(f"old{number}", NOW + 4_999))
    ] == []
    found = [len(breakers.fold_chatter_trip(stopped(f"n{number}", NOW + 5_000 + number))) for number in range(3)]
    assert found == [0, 0, 1]
    fresh = BreakerRegistry(NAMED)
    fresh.talk_from_unix_ms = NOW + 1
    assert [one for number in range(9) for one in fresh.fold_chatter_trip(stopped(f"t{number}", NOW))] == []


def use(breakers: BreakerRegistry, actor: str, at: int, role: str = "worker.step") -> None:
    task = f"acme/of-{actor}"
    breakers.fold_call(
        CallEnded(f"u{actor}{at}", task, "s1/1", "acme", "tool", "look", False, 5, at, role, actor=actor)
    )


def opens(breakers: BreakerRegistry, *said: tuple[str, int]) -> list[int]:
    """How many breakers each task opened: for whom it ran, and when it was stopped."""
    return [len(breakers.fold_chatter_trip(stopped(f"t{at}", at), actor)) for actor, at in said]


def test_one_persons_chatter_holds_nobody_elses_work_back() -> None:
    breakers = BreakerRegistry(NAMED)
    use(breakers, "bob", NOW - 1)
    assert opens(breakers, *(("ada", NOW + number) for number in range(20))) == [0] * 20, "what she asks for"
    assert opens(breakers, ("bob", NOW + 30)) == [1], "bob's too: it is the agent"
    assert breakers.opening_of(AGENT).actors == ("ada", "bob")


@pytest.mark.parametrize(
    ("who", "before", "role"),
    [("ada", 1, "worker.step"), ("bob", NAMED.chatter_window_ms + 3, "worker.step"), ("bob", 1, "worker.other")],
    ids=["nobody else", "long ago", "another agent"],
)
def test_where_nobody_else_uses_the_agent_one_persons_tasks_are_enough(who: str, before: int, role: str) -> None:
    breakers = BreakerRegistry(NAMED)
    use(breakers, who, NOW - before, role)
    assert opens(breakers, ("ada", NOW), ("ada", NOW + 1), ("ada", NOW + 2)) == [0, 0, 1]


@pytest.mark.parametrize("used", [False, True])
def test_what_counts_outlives_a_restart_and_names_the_same_trip(used: bool) -> None:
    """Those tasks ended, and nobody reads them again: the mark says what they were."""
    before, after = BreakerRegistry(NAMED), BreakerRegistry(NAMED)
    if used:
        use(before, "bob", NOW - 1)
    assert opens(before, ("ada", NOW), ("ada", NOW + 1)) == [0, 0]
    after.talkers.restore_rows(json.loads(json.dumps(before.talkers.dump_rows())))
    assert after.talkers.dump_rows() == before.talkers.dump_rows()
    unbroken, begun_again = [one.fold_chatter_trip(stopped("t9", NOW + 2), "ada") for one in (before, after)]
    assert [one.id for one in unbroken] == [one.id for one in begun_again] and len(unbroken) == (not used)
    assert before.changed == after.changed


def test_who_learns_that_it_was_closed_counts_only_what_came_after() -> None:
    breakers = BreakerRegistry(NAMED)
    assert opens(breakers, ("ada", NOW), ("ada", NOW + 10)) == [0, 0]
    closed = BreakerState("agent", "worker.step", since_unix_ms=NOW + 5, reason="3 trials succeeded")
    breakers.adopt_breaker(AGENT, closed)
    assert opens(breakers, ("ada", NOW + 11), ("ada", NOW + 12)) == [0, 1], "one was before it closed"
