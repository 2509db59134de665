"""What counts up by itself: rounds that lead nowhere although no two results are the same; and what is progress."""

import uuid

import pytest

from tests.unit.bulkhead.health.loops.test_detectors import Run

LOGS = "panic: the braised trench sweetens every patched brine"


def test_numbers_that_fall_are_progress_and_what_is_looked_at_may_be_news() -> None:
    run = Run()
    for number in range(9, 0, -1):
        run.call("a", "repair", {}, f"{number} errors left, one failed").call("a", "check", {}, "not yet")
    assert run.stopped == []
    run = Run()
    for number in range(1, 9):
        run.call("a", "take_job", {}, {"job": number}).call("a", "do_job", {}, "done")
    assert run.stopped == []


def test_a_refused_request_with_a_fresh_key_is_the_same_request() -> None:
    run = Run()
    for _ in range(4):
        run.call(
            "a",
            "post",
            {"sensor": "s-1", "key": str(uuid.uuid4())},
            "503 Service Unavailable (request aIfTG7ma)",
            error=True,
            after_ms=900,
        )
    assert run.stopped == ["loop.error"]


def test_the_same_thought_under_another_number_is_the_same_thought() -> None:
    run = Run()
    for number in range(4):
        run.call(
            "a",
            "sequentialthinking",
            {"thought": "I look at the tables first.", "thoughtNumber": number},
            {"thoughtNumber": number, "nextThoughtNeeded": True},
        )
    assert "loop.repeat" in run.stopped


def test_hits_that_differ_in_their_scores_are_the_same_hits() -> None:
    run = Run()
    for number in range(4):
        run.call("a", "retrieve", {"q": "x"}, [{"id": "d1", "text": "the dim signal", "score": 0.4 + number / 10}])
    assert run.stopped == ["loop.repeat"]


@pytest.mark.parametrize("claims", [False, True])
def test_a_ring_whose_hops_are_counted_is_a_ring(claims) -> None:
    run = Run()
    for number in range(12):
        assert not run.stopped
        here, there = f"{'abcd'[number % 4]}", f"{'abcd'[(number + 1) % 4]}"
        run.call(here, "claim", {"ticket": 3548, "handover_id": str(uuid.uuid4())}, {"owner": here, "hop": number})
        if not claims:
            run.say(here, "This is rather one for you, I should think.", to=there)
    assert set(run.stopped) == {"loop.ring"}


def test_hand_overs_in_one_form_around_different_work_are_none() -> None:
    run = Run()
    for number in range(24):
        here, there = f"{'abcd'[number % 4]}", f"{'abcd'[(number + 1) % 4]}"
        run.call(here, "translate", {"chapter": f"{'abcdefghijklmnopqrstuvwx'[number]}"}, f"text {number * 7}")
        run.say(here, "This chapter is done, the next one is yours.", to=there)
    assert run.stopped == []


WORDS = (
    "harbour",
    "tariff",
    "crane",
    "ledger",
    "pilot",
    "storm",
    "anchor",
    "cargo",
    "winch",
    "berth",
    "tide",
    "rope",
    "mast",
    "deck",
    "hull",
    "keel",
    "stern",
    "bow",
)


def other_words(number: int, count: int = 8) -> str:
    return " ".join(f"{WORDS[(number * 5 + at * 7) % len(WORDS)]}{number}{at}" for at in range(count))


PAGE = " ".join(f"line {number} of the page that stays as it is" for number in range(6))


def test_what_is_found_and_used_or_changed_by_somebody_else_is_no_noise() -> None:
    used, changed = Run(), Run()
    for number in range(12):
        used.call("a", "open_page", {"url": "https://x.example/p"}, f"{PAGE} Ticket: {other_words(number)}")
        used.call("a", "answer", {"about": other_words(number).split()[0]}, "sent")
        changed.call("a", "open_board", {"board": "b"}, f"{PAGE} Done: {other_words(number)}")
        changed.call("b", "edit", {"file": other_words(number)}, f"saved {other_words(number)}")
    assert not used.trips and not changed.stopped


def test_who_searches_room_after_room_through_the_same_corridor_finds_something_in_each() -> None:
    run = Run()
    furniture = "a door to the corridor that is open, a table on which there is nothing, a window, a lamp, a drawing"
    for room in ("kitchen", "study", "bedroom", "cellar", "studio", "workshop"):
        for place, seen in (
            ("corridor", "the doors to all the rooms of this house, all of them open"),
            (room, f"{furniture} and the {room}'s carpet"),
        ):
            run.call("a", "open", {"door": place}, "The door is already open.")
            run.call("a", "enter", {"place": place}, f"You are in the {place}.")
            run.call("a", "look", {"at": "all around"}, f"You see {seen}.")
            run.call("a", "take", {"object": "cup"}, "You have the cup.")
    assert run.stopped == []


def test_files_that_are_read_once_more_are_no_loop() -> None:
    run = Run()
    for _ in range(2):
        for number in range(12):
            run.call("a", "read_file", {"path": f"{WORDS[number]}.py"}, other_words(number, 40))
    assert not run.stopped


def test_a_list_of_plans_that_is_only_written_anew_is_a_monologue_and_one_between_work_is_none() -> None:
    idle, busy = Run(), Run()
    for number in range(8):
        plans = [f"look at the {word} and mend what is wrong with it" for word in WORDS[:5]]
        plans = [*plans[number % 5 :], *plans[: number % 5]]
        for run in (idle, busy):
            run.call("a", "todo_write", {"todos": plans}, "Todos have been modified")
        busy.call("a", "edit", {"file": f"{WORDS[number]}.py", "text": other_words(number)}, "ok")
    assert "loop.monologue" in idle.stopped and not busy.stopped
