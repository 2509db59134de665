"""Honest work that repeats itself, each next to the loop that it resembles."""

import re
import uuid

import pytest

from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.events import Act
from bulkhead.health.thresholds import DEFAULT
from bulkhead.tools.results import RETRY_HINT
from tests.unit.bulkhead.health.loops.test_detectors import Run

WORDS = ("amber", "basil", "cedar", "dahlia", "elder", "fennel", "garlic", "hazel", "iris", "juniper", "kale", "laurel")


@pytest.mark.parametrize(
    ("does", "looks_at", "stops"),
    [
        ("edit", {"branch": "main"}, False),  # who only looks may look after each change
        ("read", {"branch": "main"}, True),  # a page that somebody reads changes nothing
    ],
)
def test_a_look_after_each_change_of_somebody_else_is_none(does, looks_at, stops) -> None:
    run = Run()
    for word in WORDS[:8]:
        run.call("coder", does, {"text": f"{word} instead"}, f"done with {word}")
        run.call("ada", "outline", looks_at, "1. The beginning 2. The middle 3. The end of it")
    assert bool(run.stopped) is stops


def test_who_acts_is_not_excused_by_changes_of_something_else() -> None:
    run = Run()
    for word in WORDS[:8]:
        run.call("ada", "set_state", {"item": "lamp", "state": "off"}, "ok")
        run.call("ada", "set_state", {"item": "lamp", "state": "on"}, "ok")
        run.call("coder", "edit", {"text": f"{word} instead"}, f"done with {word}")
    assert run.stopped


@pytest.mark.parametrize(
    ("action", "arguments", "rounds", "stops"),
    [
        ("press_key", {"key": "Tab"}, 19, False),
        ("drive", {"meters": 1}, 19, False),
        ("scroll", {}, 20, True),
        ("save", {"name": "x"}, 4, True),
    ],
)
def test_what_a_step_changes_shows_elsewhere(action, arguments, rounds, stops) -> None:
    run = Run()
    for _ in range(rounds):
        run.call("a", action, arguments, "ok")
    assert bool(run.stopped) is stops


def test_batches_until_nothing_is_left_are_none_and_one_row_over_and_over_is() -> None:
    for many, stops in (("DELETE 1000", False), ("DELETE 1", True)):
        run = Run()
        for _ in range(9):
            run.call("a", "sql", {"query": "delete from old where id in (select id from old limit 1000)"}, many)
        assert bool(run.stopped) is stops


def test_a_heartbeat_is_no_act() -> None:
    run = Run()
    for _ in range(40):
        run.call("a", "extend_lease", {"job": 7}, {"ok": True})
    assert run.trips == []


def test_of_an_error_that_passes_nobody_knows_how_patient_it_was() -> None:
    for error, rounds, stops in (
        ("503 Service Unavailable", 6, False),
        ("503 Service Unavailable", 7, True),
        ("permission denied", 4, True),
    ):
        run = Run()
        for _ in range(rounds):
            run.call("a", "put", {"key": "k"}, error, error=True, after_ms=0)
        assert bool(run.stopped) is stops, (error, rounds)


def test_who_pauses_as_a_tool_that_is_away_asks_for_is_no_loop() -> None:
    [pause_s] = re.findall(r"again in (\d+) s", RETRY_HINT)
    run = Run()
    for _ in range(DEFAULT.loops.patient_stop - 1):
        run.call("a", "append", {"text": "x"}, "unavailable: no replica", error=True, after_ms=1_000 * int(pause_s))
    assert run.stopped == []


@pytest.mark.parametrize(
    ("asks", "stops"), [("whois {0}.example", False), ("select {1}, {2} from nowhere order by {2}, {1}", True)]
)
def test_a_list_of_what_is_not_there_is_gone_through(asks, stops) -> None:
    run = Run()
    for number, word in enumerate(WORDS):
        text = asks.format(word, WORDS[number % 3], WORDS[number % 4])
        run.call("a", "ask", {"text": text}, "not found: there is no such thing here", error=True)
    assert bool(run.stopped) is stops


def test_what_others_ask_in_between_is_another_question() -> None:
    run = Run()
    hits = ["Refunds are paid within fourteen days to the card that was used."]
    for number in range(12):
        run.say(f"customer{number}", f"When does my {WORDS[number]} refund come?", to="desk")
        run.call("desk", "search", {"query": f"when does the refund of {WORDS[number]} come exactly"}, hits)
    assert run.stopped == []


def test_what_is_made_or_goes_on_is_another_one_each_time() -> None:
    run = Run()
    for number in range(8):
        run.call("a", "create_account", {"kind": "test"}, {"id": 100 + 2 * number})
        run.call("a", "create_wallet", {"kind": "test"}, {"id": 101 + 2 * number})
    for _ in range(8):
        run.call("a", "click", {"element": "arrow-right"}, "clicked")
        run.call("a", "observe", {}, {"text": "The gallery of the winter exhibition", "image": str(uuid.uuid4())})
    assert run.stopped == []


def test_a_plan_before_each_failing_call_hides_nothing() -> None:
    run = Run()
    for word in WORDS[:4]:
        assert not run.stopped
        run.call("a", "update_plan", {"steps": [f"try {word}"]}, "ok")
        run.call("a", "connect", {"host": "h"}, "password authentication failed", error=True)
    assert run.stopped == ["loop.error"]


@pytest.mark.parametrize("new", [True, False])
def test_talk_that_goes_on_saying_something_new_may_go_on_longer(new) -> None:
    chatter, stopped = ChatterDetector(DEFAULT.chatter), False
    for at in range(40):
        text = " ".join(WORDS[at * by % 12] + WORDS[(at + by) // 4 % 12] for by in (1, 3, 5, 7, 9, 11))
        act = Act(
            f"m{at}",
            "t",
            "ab"[at % 2],
            "say",
            text if new else f"Point {at}: what do you think of it?",
            says=True,
            to="ba"[at % 2],
        )
        stopped |= any(trip.level == "stop" for trip in chatter.fold_act(act))
    assert stopped is not new
