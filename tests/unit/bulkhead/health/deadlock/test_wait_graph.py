"""The wait-for graph against a slow exact algorithm, on random graphs with waits that open and close."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.health.deadlock import evidence
from bulkhead.health.deadlock.confirmation import ConfirmedDeadlock, DeadlockConfirmations, RefutedSuspicion
from bulkhead.health.deadlock.wait_graph import Wait, WaitGraph


def slow_stuck(waits: Iterable[Wait]) -> set[str]:
    """Exact: remove whoever can go on until nobody can."""
    waits = list(waits)
    left = {wait.waiter for wait in waits}
    while True:
        free = {
            name
            for name in left
            if all(
                (not set(wait.targets) & left) if wait.mode == "all" else bool(set(wait.targets) - left)
                for wait in waits
                if wait.waiter == name
            )
        }
        if not free:
            return left
        left -= free


def holds_itself_up(circle: frozenset[str], waits: list[Wait]) -> bool:
    """Whether all of it would be stuck if everybody else could go on."""
    inner = [
        replace(wait, targets=tuple(one for one in wait.targets if one in circle))
        for wait in waits
        if wait.waiter in circle and set(wait.targets) & circle and (wait.mode == "all" or set(wait.targets) <= circle)
    ]
    return slow_stuck(inner) == circle


def slow_circles(waits: Iterable[Wait]) -> set[frozenset[str]]:
    """Strongly connected parts of the stuck that hold themselves up, by plain reachability (Warshall)."""
    waits = list(waits)
    stuck = slow_stuck(waits)
    nodes = sorted(stuck)
    reach = {(one, other): False for one in nodes for other in nodes}
    for wait in waits:
        blocked = set(wait.targets) & stuck
        if wait.waiter in stuck and blocked and (wait.mode == "all" or blocked == set(wait.targets)):
            for target in blocked:
                reach[wait.waiter, target] = True
    for middle in nodes:
        for one in nodes:
            for other in nodes:
                reach[one, other] = reach[one, other] or (reach[one, middle] and reach[middle, other])
    return {
        frozenset(other for other in nodes if reach[one, other] and reach[other, one])
        for one in nodes
        if reach[one, one]
        and holds_itself_up(frozenset(other for other in nodes if reach[one, other] and reach[other, one]), waits)
    }


NAMES = "abcdefgh"
OPENING = st.tuples(
    st.just("open"), st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), st.booleans()
)
CLOSING = st.tuples(
    st.sampled_from(("close", "answer", "lose", "end")), st.integers(0, 30), st.integers(0, 2), st.booleans()
)


def check(graph: WaitGraph) -> None:
    waits = list(graph.waits.values())
    assert graph.stuck == slow_stuck(waits)
    for circle in slow_circles(waits):
        told = [one for one in graph._told.values() if graph.still_holds(one) and one.closing_parties <= circle]
        assert told, f"nobody was told of {sorted(circle)}"
    assert not graph.stuck or any(graph.still_holds(one) for one in graph._told.values())
    for one in graph._told.values():
        assert slow_stuck(one.waits) == one.closing_parties, "the edges of the evidence close no circle by themselves"


@settings(max_examples=150)
@given(st.lists(st.one_of(OPENING, OPENING, CLOSING), max_size=40))
def test_agrees_with_the_slow_algorithm_after_every_step(steps) -> None:
    graph, opened = WaitGraph(), []
    for number, (what, one, more, flag) in enumerate(steps):
        if what == "open":
            wait = Wait(f"w{number}", one, tuple(more), "any" if flag else "all", task=f"t{ord(one) % 3}")
            graph.open_wait(wait)
            opened.append(wait.key)
        elif what == "close" and opened:
            graph.close_wait(opened[one % len(opened)])
        elif what in ("answer_target", "lose_target") and opened:
            wait = graph.waits.get(opened[one % len(opened)])
            if wait is not None:
                getattr(graph, what)(wait.key, wait.targets[more % len(wait.targets)])
        elif what == "end" and flag:
            graph.end_task(f"t{one % 3}")
        check(graph)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=30))
def test_plain_waits_are_told_on_the_edge_that_closes_the_first_cycle(edges) -> None:
    graph, open_edges = WaitGraph(), []
    for number, (one, other) in enumerate(edges):
        wait = Wait(f"w{number}", one, (other,))
        before = slow_circles(open_edges)
        open_edges.append(wait)
        told, after = graph.open_wait(wait), slow_circles(open_edges)
        if not before and after:
            assert [set(trip.circle) for trip in told] == [set(circle) for circle in after]
            (trip,) = told
            closed = [(edge.waiter, edge.targets[0]) for edge in trip.waits]
            assert sorted(edge[0] for edge in closed) == sorted(edge[1] for edge in closed), "not a cycle"
            assert trip.victim in trip.cycle and wait.key in [edge.key for edge in trip.waits]
        elif before == after:
            assert not told


@settings(max_examples=80)
@given(st.lists(st.one_of(OPENING, OPENING, CLOSING), max_size=30), st.randoms(use_true_random=False))
def test_refusing_every_victim_frees_everybody(steps, chance) -> None:
    graph = WaitGraph()
    pending = []
    for number, (what, one, more, flag) in enumerate(steps):
        if what == "open":
            pending += graph.open_wait(Wait(f"w{number}", one, tuple(more), "any" if flag else "all"))
    for _ in range(100):
        pending = [trip for trip in pending if graph.still_holds(trip)]
        if not pending:
            break
        trip = pending.pop(chance.randrange(len(pending)))
        assert trip.refused_wait in graph.waits and graph.waits[trip.refused_wait].waiter == trip.victim
        pending += graph.close_wait(trip.refused_wait)
    assert graph.stuck == set() == slow_stuck(graph.waits.values())


def test_the_order_of_messages_does_not_matter() -> None:
    """Answers before their requests, repeated requests, requests of ended tasks: no wait is left open."""
    graph = WaitGraph()
    ask, back = Wait("1", "a", ("b",), task="t"), Wait("2", "b", ("a",), task="t")
    assert graph.close_wait("1", task="t") == []
    assert graph.open_wait(ask) == graph.open_wait(back) == []
    assert graph.close_wait("2") == graph.open_wait(back) == graph.open_wait(back) == []
    assert not graph.waits
    graph.end_task("t")
    assert graph.open_wait(Wait("3", "a", ("a",), task="t")) == [] and not graph.waits


def test_a_lease_is_a_party_that_is_never_the_victim() -> None:
    """Two agents take two leases in opposite order: the cheaper is refused, of two alike the younger."""
    graph = WaitGraph()
    for number, name in enumerate(("x", "y")):
        graph.add_party_facts(name, name, number, 100)
    assert graph.open_wait(Wait("h1", "lease x", ("x",), task="x", firm=True)) == []
    assert graph.open_wait(Wait("h2", "lease y", ("y",), task="y", firm=True)) == []
    assert graph.open_wait(Wait("w1", "x", ("lease y",), task="x")) == []
    (trip,) = graph.open_wait(Wait("w2", "y", ("lease x",), task="y"))
    assert (trip.victim, trip.refused_wait, trip.tasks) == ("y", "w2", ("x", "y"))
    assert trip.cycle == ("y", "lease x", "x", "lease y")
    graph.close_wait("w2")
    graph.add_party_facts("y", "y", 1, 1)
    (trip,) = graph.open_wait(Wait("w3", "y", ("lease x",), task="y"))
    assert trip.victim == "x"


def test_a_tail_is_no_victim_and_two_cycles_that_share_a_party_are_broken_one_by_one() -> None:
    graph = WaitGraph()
    edges = enumerate(("tm", "ma", "am", "mb"))
    told = [graph.open_wait(Wait(f"w{number}", one, (other,))) for number, (one, other) in edges]
    assert [len(one) for one in told] == [0, 0, 1, 0] and set(told[2][0].cycle) == {"a", "m"}
    assert graph.open_wait(Wait("w4", "b", ("m",))) == [], "one suspicion at a time per circle"
    graph.close_wait("w2")
    assert "m" in graph.stuck and "t" in graph.stuck and "a" not in graph.stuck
    assert any(graph.still_holds(one) and set(one.cycle) == {"b", "m"} for one in graph._told.values())


def test_any_of_is_stuck_only_when_all_of_them_are() -> None:
    graph = WaitGraph()
    assert graph.open_wait(Wait("1", "a", ("b", "c"), "any")) == []
    assert graph.open_wait(Wait("2", "b", ("a",))) == []
    (trip,) = graph.open_wait(Wait("3", "c", ("a",)))
    assert trip.circle == ("a", "b", "c") and len(trip.waits) == 3
    graph.answer_target("1", "c")
    assert not graph.stuck


def test_an_any_wait_that_loses_its_way_out_closes_the_circle() -> None:
    graph = WaitGraph()
    assert graph.open_wait(Wait("1", "a", ("b", "c"), "any")) == [] == graph.open_wait(Wait("2", "b", ("a",)))
    [told] = graph.lose_target("1", "c")
    assert set(told.circle) == {"a", "b"}


def test_an_edge_that_only_counts_beside_a_way_out_joins_no_circle() -> None:
    """c is held up by b alone: what it asks of a may also be answered by b, which is no part of their circle."""
    graph = WaitGraph()
    for number, (name, targets, mode) in enumerate((("a", "ac", "any"), ("c", "ab", "any"), ("b", "b", "all"))):
        graph.open_wait(Wait(str(number), name, tuple(targets), mode))
    graph.open_wait(Wait("3", "c", ("b", "c")))
    assert graph.stuck == {"a", "b", "c"}
    assert {told.circle for told in graph._told.values()} == {("b",), ("c",)}


def test_what_is_no_request_cannot_be_refused_and_who_is_known_later_to_have_spent_less_gives_way() -> None:
    graph = WaitGraph()
    graph.open_wait(Wait("1", "a", ("b",), firm=True))
    graph.add_party_facts("b", "t", 1, 100)
    graph.add_party_facts("c", "t", 2, 300)
    graph.open_wait(Wait("2", "b", ("c",)))
    [told] = graph.open_wait(Wait("3", "c", ("a",)))
    assert told.victim == "b"
    graph.add_party_facts("b", "t", 1, 900)
    assert evidence.choose_victim(told, graph.parties).victim == "c"


def test_a_trip_is_named_by_its_edges_whatever_their_order() -> None:
    waits = [Wait(str(number), one, (other,)) for number, (one, other) in enumerate(("ab", "bc", "cd", "da"))]
    names = set()
    for turn in range(4):
        graph = WaitGraph()
        told = [graph.open_wait(wait) for wait in waits[turn:] + waits[:turn]]
        names.add((told[-1][0].trip, told[-1][0].victim))
    assert len(names) == 1


def test_nothing_is_acted_on_before_every_inbox_was_read_as_far() -> None:
    graph, waiting = WaitGraph(), DeadlockConfirmations()
    graph.open_wait(Wait("1", "a", ("b",)))
    (trip,) = graph.open_wait(Wait("2", "b", ("a",)))
    waiting.add_suspicion(trip, {"WORKER": 7, "BUDGET": 3})
    waiting.mark_read("WORKER", 9)
    assert waiting.settle_suspicions(graph) == [] and waiting.missing_sequences(trip.trip) == {"BUDGET": 3}
    waiting.mark_read("BUDGET", 2)
    assert waiting.settle_suspicions(graph) == []
    waiting.mark_read("BUDGET", 3)
    assert waiting.settle_suspicions(graph) == [ConfirmedDeadlock(trip)]
    assert waiting.settle_suspicions(graph) == []


def test_a_cycle_of_late_messages_vanishes() -> None:
    """The answer lay in an inbox that the watcher had not read yet."""
    graph, waiting = WaitGraph(), DeadlockConfirmations()
    graph.open_wait(Wait("1", "a", ("b",)))
    (trip,) = graph.open_wait(Wait("2", "b", ("a",)))
    waiting.add_suspicion(trip, {"WORKER": 7})
    graph.close_wait("1")
    waiting.mark_read("WORKER", 7)
    (outcome,) = waiting.settle_suspicions(graph)
    assert isinstance(outcome, RefutedSuspicion) and "a was answered" in outcome.why


def test_nothing_of_a_task_is_left_when_it_has_ended() -> None:
    graph = WaitGraph()
    for task in range(50):
        for number in range(20):
            graph.add_party_facts(f"{task}/{number}", f"t{task}", 0)
            graph.open_wait(
                Wait(f"{task}/{number}", f"{task}/{number}", (f"{task}/{(number + 1) % 20}",), task=f"t{task}")
            )
            graph.close_wait(f"{task}/{number}-early", task=f"t{task}")
    for task in range(50):
        graph.end_task(f"t{task}")
    left = [graph.waits, graph.parties, graph.stuck, graph._of, graph._on, graph._tasks]
    assert not any(left) and not [one for one in graph._told.values() if graph.still_holds(one)]


def test_a_task_cannot_fill_the_graph() -> None:
    graph = WaitGraph()
    for number in range(5_000):
        graph.open_wait(Wait(str(number), "a", (f"n{number}",), task="t"))
    graph.open_wait(Wait("wide", "b", tuple(f"m{number}" for number in range(1_000)), task="u"))
    assert len(graph.waits) == 1_024 and graph.refused == 5_000 - 1_024 + 1


def test_what_stuck_parties_wait_for_besides_costs_no_look_at_the_whole_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, size = WaitGraph(), 50
    ring = [Wait(f"w{at}", f"p{at}", (f"p{(at + 1) % size}",), task="t") for at in range(size)]
    found = [one for wait in ring for one in graph.open_wait(wait)]
    assert len(found) == 1 and len(graph.stuck) == size

    def looks(*_: object) -> list[object]:
        raise AssertionError("all of the circle was looked at")

    monkeypatch.setattr(WaitGraph, "_free_parties", looks)
    monkeypatch.setattr(WaitGraph, "_report_circles", looks)
    for at in range(size):
        free = Wait(f"free{at}", f"p{at}", ("nobody", "else"), mode="any", task=f"t{at}")
        assert not graph.open_wait(free) and not graph.open_wait(
            Wait(f"two{at}", f"p{at}", (f"p{(at + 9) % size}",), task="t")
        )
        assert not graph.answer_target(free.key, "else") and graph.still_holds(found[0])
    many = Wait("many", "p1", ("x", "y"), task="t1")
    assert not graph.open_wait(many) and not graph.answer_target("many", "x") and not graph.end_task("t1")
    monkeypatch.undo()
    assert len(graph.stuck) == size
    for at in range(size):
        graph.close_wait(f"two{at}")
    assert graph.still_holds(found[0]) and not graph.close_wait("w3") and not graph.stuck


def test_tasks_whose_end_nobody_tells_are_forgotten_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.health.deadlock.wait_graph.MAX_TASKS", 3)
    graph = WaitGraph()
    for number in range(100):
        graph.open_wait(Wait(f"w{number}", f"p{number}", ("x",), task=f"phantom{number}"))
        graph.close_wait(f"unknown{number}", task=f"late{number}")
    assert len(graph._tasks) == 3 and len(graph.waits) <= 3 and len(graph._of) <= 3
    graph.open_wait(Wait("a", "a", ("b",), task="t1"))
    [found] = graph.open_wait(Wait("b", "b", ("a",), task="t2"))
    assert graph.still_holds(found)
