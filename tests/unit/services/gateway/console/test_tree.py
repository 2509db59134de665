"""The tree of a task: its rows, what is open, what is found, and bars on one axis of time."""

import time

from bulkhead.journal.history import build_entries
from bulkhead.journal.story.fold import fold_story
from bulkhead.journal.story.model import as_json
from bulkhead.runtime.decider.history_file import load_history
from bulkhead_services.gateway.console.task.tree import PAGE, TaskTree
from tests.paths import HISTORIES

USAGE = {"input_tokens": 10, "output_tokens": 2, "cost_usd_micros": 5}
STEPS, CALLS = 200, 2_000
MAX_BUILD_S = 0.2


def story_of(name: str) -> dict:
    entries = build_entries(load_history(next(iter(HISTORIES.glob(f"{name}.*")))).messages)
    return as_json(fold_story(entries, entries[0].task, 0, {}))


def call(name: str, at_unix_ms: int) -> dict:
    return {
        "call_id": name, "kind": "tool", "name": "calculate", "outcome": "succeeded", "attempt": 1, "usage": USAGE,
        "asked_unix_ms": at_unix_ms, "took_ms": 10, "arguments": '{"expression": "17 * 23"}', "result": "", "waits": (),
    }  # fmt: skip


def large_story() -> dict:
    steps = [
        {
            "step_id": f"s{number}", "title": f"Step {number}", "plan_version": 1, "outcome": "accepted",
            "usage": USAGE, "took_ms": 100, "given": False, "waits": (), "tried": [
                {"number": 1, "outcome": "accepted", "began_unix_ms": 1_000 * number, "took_ms": 100, "reasons": ()}
            ],
            "calls": [call(f"c{number}-{place}", 1_000 * number + place) for place in range(CALLS // STEPS)],
        }
        for number in range(1, STEPS + 1)
    ]  # fmt: skip
    plan = {"version": 1, "origin": "submitted", "by": "ann", "notes": (), "adopted_unix_ms": 1_000}
    return {
        "began_unix_ms": 1_000, "took_ms": 1_000 * STEPS, "plans": [plan], "steps": steps, "planning": [], "waits": ()
    }  # fmt: skip


def test_a_step_that_was_tried_again_has_its_attempts_and_each_call_stands_below_its_own() -> None:
    tree = TaskTree(story_of("leased"), 0, has_ended=True)
    rows = list(tree.visible_rows(set(tree.nodes), ""))
    levels = {row.node.key: row.level for row in rows}
    assert len(levels) == len(tree.nodes) == len(rows)
    assert (levels["plan.1"], levels["step.1.c"], levels["attempt.1.2.c"]) == (1, 2, 3)
    calls = [tree.nodes[key] for key in tree.nodes["attempt.1.2.c"].children]
    assert calls and all(node.told["attempt"] == 2 for node in calls)
    bars = {row.node.key: [piece.kind for piece in row.bar] for row in rows}
    assert bars["step.1.b"][:2] == ["span", "lease"], "it waited for what the other step held"
    assert bars["step.1.c"][:3] == ["span", "span", "step"] and set(bars["step.1.c"][3:]) >= {"model", "failed"}
    assert bars["attempt.1.1.c"][0] == "span" and bars["attempt.1.1.c"][-1] == "failed", "red where it failed alone"
    assert bars[calls[0].key] == ["model"]
    assert all(piece.x >= 0 and piece.x + piece.width <= 100 for row in rows for piece in row.bar)


def test_the_run_of_an_outside_agent_is_told_by_what_it_asked_and_got() -> None:
    asked = call("m1", 1_000) | {"kind": "model", "name": "default", "arguments": "What is 17 * 23?", "result": "391"}
    step = large_story()["steps"][0] | {"calls": [asked, call("m2", 2_000)]}
    plan = large_story()["plans"][0] | {"origin": "adopted"}
    tree = TaskTree(large_story() | {"steps": [step], "plans": [plan]}, 0, has_ended=True)
    names = [(row.level, row.node.name, row.node.note) for row in tree.visible_rows(set(tree.nodes), "")]
    assert names == [
        (1, "Run of an outside agent", ""), (2, "What is 17 * 23?", "391"), (2, "calculate", "17 * 23")
    ]  # fmt: skip


def test_a_call_that_only_waited_is_no_call_in_any_bar_and_a_failure_is_in_all_above() -> None:
    wait = {"kind": "budget", "at_unix_ms": 1_000, "took_ms": None, "what": "the task's ceiling"}
    held = call("c1", 1_000) | {"kind": "model", "took_ms": None, "waits": [wait]}
    failed = call("c2", 3_000) | {"outcome": "failed"}
    step = large_story()["steps"][0] | {"calls": [held, failed]}
    tree = TaskTree(large_story() | {"steps": [step]}, 0, has_ended=True)
    plan, of_step, *calls = (row.bar for row in tree.visible_rows(set(tree.nodes), ""))
    assert [piece.kind for bar in calls for piece in bar] == ["budget", "failed"]
    assert all([piece.kind for piece in bar] == ["span", "budget", "failed"] for bar in (plan, of_step))


def test_a_bar_of_many_calls_has_no_more_pieces_than_a_person_can_tell_apart() -> None:
    step = large_story()["steps"][0]
    step |= {"calls": [call(f"c{place}", 1_000 + place) for place in range(CALLS)]}
    tree = TaskTree(large_story() | {"steps": [step], "took_ms": CALLS}, 0, has_ended=True)
    plan = next(tree.visible_rows({"plan.1"}, ""))
    assert [piece.kind for piece in plan.bar] == ["span", "tool"] and plan.bar[1].width > 99


def test_a_plan_spans_the_attempts_of_its_steps() -> None:
    step = large_story()["steps"][0] | {"calls": [call("c1", 1_020)]}
    tree = TaskTree(large_story() | {"steps": [step]}, 0, has_ended=True)
    assert (tree.nodes["plan.1"].began_unix_ms, tree.nodes["plan.1"].took_ms) == (1_000, 100)


def test_every_recorded_task_has_a_tree_with_an_axis() -> None:
    for path in sorted(HISTORIES.glob("*")):
        for has_ended in (True, False):
            tree = TaskTree(story_of(path.name.partition(".")[0]), 10**13, has_ended=has_ended)
            ticks = tree.ticks()
            assert ticks[0][0] == 0 and 2 <= len(ticks) <= 4 and ticks[-1][0] == 100
            assert len(list(tree.visible_rows(set(tree.nodes), ""))) >= len(tree.nodes)


def test_a_call_that_was_under_way_at_the_end_of_its_task_has_stopped_and_lasts_no_longer() -> None:
    story = story_of("halted_by_budget")
    calls = [call for step in story["steps"] for call in step["calls"]]
    outcomes = [call["outcome"] for call in calls]
    assert (outcomes.count("stopped"), outcomes.count("open")) == (2, 0)
    assert all(call["took_ms"] is not None for call in calls)
    assert all(step["took_ms"] <= story["took_ms"] for step in story["steps"])


def test_a_large_tree_opens_as_far_as_it_is_looked_at() -> None:
    since = time.process_time()
    tree = TaskTree(large_story(), 0, has_ended=True)
    at = tree.choose_key("", "")
    rows = list(tree.visible_rows(tree.opened_keys(at, ()), at))
    assert time.process_time() - since < MAX_BUILD_S
    assert at == "plan.1" and len(tree.nodes) == 1 + STEPS + CALLS and len(rows) == 1 + PAGE + 1
    assert (rows[-1].more, rows[-1].next) == (STEPS - PAGE, PAGE)
    following = list(tree.rows_below("plan.1", PAGE, set()))
    assert following[0].node.name == f"Step {PAGE + 1}" and following[0].level == 2 and following[0].is_open is False
    deep = "call.c170-3"
    rows = list(tree.visible_rows(tree.opened_keys(deep, ()), deep))
    assert deep in {row.node.key for row in rows} and len(rows) < 2 * PAGE + 3, "a link to a late call opens its page"
    found, more = tree.matching_rows("step 170 accepted")
    assert [row.node.key for row in found] == ["plan.1", "step.1.s170"] and not more
    assert tree.matching_rows("17 * 23")[1] and tree.matching_rows("nothing of this")[0] == []


def test_what_failed_or_waits_is_chosen_first() -> None:
    tree = TaskTree(story_of("failed_dependency"), 0, has_ended=True)
    failed = tree.choose_key("", "")
    assert tree.nodes[failed].state in ("failed", "stopped") and failed.startswith("step.2."), "of the last plan"
    assert tree.choose_key("", "b") == "step.2.b" and tree.choose_key("step.1.b", "") == "step.1.b"
    assert tree.choose_key("call.none", "") == failed


def test_the_items_of_a_map_are_folded_below_it_and_those_that_failed_come_first() -> None:
    story = large_story()
    first = story["steps"][0] | {"step_id": "fares", "inputs": ["lines"]}
    states = ["accepted", "failed", "accepted"]
    items = [
        first | {"step_id": f"fares-{number:04}", "outcome": state, "calls": ()} for number, state in enumerate(states)
    ]
    tree = TaskTree(story | {"steps": [first, *items]}, 0, has_ended=True)
    node = tree.nodes["step.1.fares"]
    assert node.note == "2 accepted, 1 failed"
    assert node.children == ["step.1.fares-0001", "step.1.fares-0000", "step.1.fares-0002"]
    assert tree.nodes["plan.1"].children == ["step.1.fares"]
