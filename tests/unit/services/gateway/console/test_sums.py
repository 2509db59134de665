"""Sums of a run: each instant counted once, by work before what is waited for, and money by what it was spent for."""

from bulkhead_services.gateway.console.task.sums import reserved_amount, sum_run
from bulkhead_services.gateway.console.task.tree import TaskTree
from tests.unit.services.gateway.console.test_tree import call, large_story


def wait(kind: str, at_unix_ms: int, took_ms: int | None) -> dict:
    return {"kind": kind, "at_unix_ms": at_unix_ms, "took_ms": took_ms, "what": ""}


def test_work_beside_a_wait_is_work_and_the_parts_are_the_whole() -> None:
    first = call("c1", 1_000) | {"took_ms": 300, "waits": [wait("budget", 1_100, 100)]}
    second = call("c2", 2_000) | {"took_ms": 100}
    waits = [wait("time", 1_000, 500), wait("step", 1_000, 1_000), wait("approval", 2_050, 450)]
    step = large_story()["steps"][0] | {"calls": [first, second], "waits": waits}
    tree = TaskTree(large_story() | {"steps": [step], "took_ms": 1_700}, 0, has_ended=True)
    times = dict(sum_run(tree).times)
    assert times == {"worked": 300, "budget": 100, "time": 200, "approval": 400, "span": 700}
    assert sum(times.values()) == tree.until_unix_ms - tree.began_unix_ms


def test_what_goes_on_lasts_until_now() -> None:
    step = large_story()["steps"][0] | {"calls": [], "waits": [wait("approval", 1_500, None)]}
    tree = TaskTree(large_story() | {"steps": [step], "took_ms": 600}, 4_000, has_ended=False)
    assert dict(sum_run(tree).times) == {"approval": 2_500, "span": 500}


def test_attempts_after_the_first_are_told_by_what_they_keep() -> None:
    calls = [call("c1", 1_000), call("c2", 1_100) | {"attempt": 2, "reserved_usd_micros": 40}]
    fresh = large_story()["steps"][0] | {"calls": calls, "retry": "fresh"}
    other = fresh | {"step_id": "s2", "retry": "with_feedback", "calls": [call("c3", 1_000)]}
    tree = TaskTree(large_story() | {"steps": [fresh, other]}, 0, has_ended=True)
    sums = sum_run(tree)
    assert (sums.spent_usd_micros, sums.reserved_usd_micros, sums.retries) == (15, 40, (("fresh", 5),))
    assert reserved_amount(tree.nodes["step.1.s1"]) == 40
