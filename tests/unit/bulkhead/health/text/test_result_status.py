"""What changes by itself, what is pending, what is a list: honest runs that come close to a loop, and the reverse."""

import pytest

from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.events import Act
from bulkhead.health.text import result_status
from bulkhead.health.thresholds import DEFAULT
from tests.unit.bulkhead.health.loops.test_detectors import Run

PART = "Please look into this: every second faint detector obscures the moot crater."
PEOPLE = ("Ayla Demir", "Benoit Caron", "Cem Yildiz", "Daria Popova", "Eoin Walsh")


@pytest.mark.parametrize(
    "answer",
    [
        "pending",
        '{"status":"in_progress"}',
        '{"builds":[{"id":"7","state":"RUNNING"}]}',
        "still building (3 of 7)",
        "The order is pending.",
        '{"done": false}',
        "Job J-7: not finished",
        "Waiting for the second reader to agree to it",
    ],
)
def test_what_is_said_to_be_pending_is(answer) -> None:
    assert result_status.state_of(answer, False, "") == "pending"


@pytest.mark.parametrize(
    "answer",
    [
        "Each pending tissue absorbs the acute comet, and the running clerk overturns no scheduled hearing at all.",
        "The clerk has started many engines of the northern array.",
        "done",
        '{"status":"completed"}',
        "",
    ],
)
def test_a_word_in_a_page_says_nothing_of_the_page(answer) -> None:
    assert not result_status.state_of(answer, False, "")


def test_a_page_with_such_a_word_in_it_is_read_over_and_over_in_vain() -> None:
    run = Run()
    for _ in range(4):
        run.call("a", "cat", {"path": "x"}, "A pending judge cites the comet. " * 9, after_ms=4_000)
    assert run.stopped == ["loop.repeat"]


@pytest.mark.parametrize(
    "values", [(60, 61, 60, 61, 60, 61, 60, 61), (55, 56, 56, 55, 55, 55, 55, 55), (7, 8, 8, 8, 8, 8)]
)
def test_a_gauge_may_stay_and_come_back(values) -> None:
    run = Run()
    for value, pause_s in zip(values, (10, 60, 15, 10, 60, 60, 10, 15), strict=False):
        run.call("a", "read", {"name": "load"}, {"load": value, "unit": "requests a second"}, after_ms=pause_s * 1_000)
    assert run.stopped == []


def test_two_gauges_in_turns_are_no_alternation() -> None:
    run = Run()
    for one, other in ((50, 7), (51, 8), (50, 8), (51, 7), (51, 7), (51, 7), (51, 7)):
        run.call("a", "read", {"name": "load"}, {"value": one}, after_ms=12_000)
        run.call("a", "read", {"name": "disk"}, {"value": other}, after_ms=500)
    assert run.stopped == []


def test_a_toggle_is_no_gauge() -> None:
    run = Run()
    for _ in range(4):
        run.call("a", "click", {"on": "menu"}, "menu opened", after_ms=4_000)
        run.call("a", "click", {"on": "menu"}, "menu closed", after_ms=4_000)
    assert run.stopped == ["loop.alternation"]


def test_what_changed_by_own_doing_does_not_change_by_itself() -> None:
    run = Run()
    for number in range(5, 2, -1):
        run.call("a", "pytest", {}, f"{number} failed in 0.{number}3s", after_ms=12_000)
        run.call("a", "edit", {"line": f"{'abcdef'[number]} instead"}, "ok", after_ms=12_000)
    for _ in range(4):
        run.call("a", "pytest", {}, "2 failed in 0.83s", after_ms=12_000)
    assert run.stopped == ["loop.repeat"]


def test_the_end_of_a_scrolled_page_is_a_loop_however_much_there_was_before() -> None:
    run = Run()
    for number in (1, 2, 3, 4, 4, 4, 4):
        run.call("a", "scroll", {}, f"{'abcdefgh'[number]}{number} " * 90, after_ms=12_000)
    assert run.stopped == ["loop.repeat"]


def test_no_pause_repairs_what_is_declined() -> None:
    run = Run()
    for pause_s in (1, 2, 4, 8):
        run.call("a", "charge", {"cents": 5}, f"card declined (PjVOALBoL0N{pause_s})", True, after_ms=pause_s * 1_000)
    assert run.stopped == ["loop.error"]


def test_a_warning_does_not_hide_that_another_detector_stops() -> None:
    run = Run()
    for name in "abbaababba":
        run.call("x", name, result="same")
    assert run.stopped, "six acts of two kinds without news, whose last rounds would only warn"
    assert run.trips[-1].level == "stop" and len(run.trips[-1].evidence) <= 6


def helped(run: Run, answer: str, *, call: bool = False) -> Run:
    for person in PEOPLE:
        run.say("lead", f"{person.partition(' ')[0]}, {PART}", to=person)
        if call:
            run.call(person, "open", {"door": "dock 9"}, "denied", error=True)
        run.say(person, f"This is {person}. {answer}", to="lead")
    return run


def test_a_vote_is_none() -> None:
    assert helped(Run(), "I approve of that.").stopped == []
    assert helped(Run(), "No objections.").stopped == []


def test_a_squad_that_says_the_same_things_over_is_stopped_before_one_that_argues() -> None:
    said, trips = ("Is everybody here?", "I am here.", "When do we meet next?", "Same time?", "Fine with me."), {}
    for texts in ("old", "new"):
        chatter, found = ChatterDetector(DEFAULT.chatter), []
        for at in range(40):
            text = said[at % len(said)] if texts == "old" else f"A thought of {at}, and {at * 7} of {at * 3}."
            act = Act(f"m{at}", "t", f"a{at % 3}", "say", text, says=True, to=f"a{(at + 1) % 3}")
            found += [(at, trip) for trip in chatter.fold_act(act) if trip.level == "stop"]
        trips[texts] = found[0][0]
    assert trips["old"] < 24 < trips["new"]


def test_a_figure_that_is_nothing_but_a_duration_is_the_answer() -> None:
    run = Run()
    for lag in (1_234, 1_190, 1_101, 950, 720):
        run.call("a", "sql", {"query": "select replay_lag()"}, f"{lag} s", after_ms=10_000)
    assert run.stopped == []


def reviewed(run: Run, *, works: bool) -> Run:
    """One says the same to another, who does new work in between, or the same work."""
    for number in range(6):
        run.call("author", "merge", {"change": number if works else 1}, "merged")
        run.say("ada", "+1", to="author")
    return run


def test_what_is_said_to_one_who_works_on_is_no_repetition() -> None:
    assert reviewed(Run(), works=True).stopped == []
    assert reviewed(Run(), works=False).stopped


@pytest.mark.parametrize(
    ("action", "stops"), [("run_checks", False), ("transfer_to_author", False), ("list_files", True)]
)
def test_checks_and_hand_overs_are_about_what_others_did(action, stops) -> None:
    """Anything else may be for a while, if others changed something and did not only look."""
    for does, what, rounds in (("push", "pushed", 30), ("push", "pushed", 12), ("read", "a page", 6)):
        run = Run()
        for number in range(rounds):
            run.call("author", does, {"diff": f"{chr(97 + number)} instead"}, what)
            run.call("ci", action, {"of": "main"}, "the same as ever")
        assert bool(run.stopped) is (stops and rounds != 12), (does, rounds)


def test_a_bare_call_is_about_what_others_have_made_meanwhile() -> None:
    run = Run()
    for number in range(6):
        run.call("maker", "make", {"part": f"{'abcdef'[number]}"}, f"part {number}")
        run.call("judge", "inspect_next", {}, "pass")
    assert run.stopped == []
    run = Run()
    for _ in range(6):
        run.call("maker", "make", {"part": "a"}, "part 1").call("judge", "inspect_next", {}, "pass")
    assert run.stopped


def test_the_time_that_is_left_is_news() -> None:
    run = Run()
    for left in (36, 34, 31, 20, 9):
        run.call("a", "progress", {"job": 7}, f"{left} min left", after_ms=4_000)
    assert run.stopped == []


def test_a_table_that_is_not_there_does_not_come_whatever_its_name_is() -> None:
    """`network_1` is a name, and nothing that passes; a network that cannot be reached may."""
    for error, stopped in (("Table 'network_1.students' doesn't exist", ["loop.error"]), ("network unreachable", [])):
        run = Run()
        for _ in range(4):
            run.call("a", "query", {"sql": "select name from students"}, error, error=True, after_ms=0)
        assert run.stopped == stopped, error
