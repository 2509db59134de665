"""What brings nothing and leaves nothing changed: ends that are over, writes undone, names given anew, talk round a
tie; and what looks like it and is honest."""

import pytest

from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.events import Act
from bulkhead.health.thresholds import DEFAULT
from tests.unit.bulkhead.health.loops.test_detectors import Run
from tests.unit.bulkhead.health.loops.test_handed_back_values import Tokens

ANTIQUES = ("harbour", "ledger", "mast", "quarry", "lantern", "orchard", "bridge", "mill", "canal")
ENDS = ({"state": "exited", "exit_code": 2}, {"status": "cancelled", "by": "quota"}, {"conclusion": "failure"})


REASONS = (
    "The harbour keeps its old mast through the winter.",
    "Nobody has measured how deep the canal runs by now.",
    "A bridge would serve both banks and cost less.",
    "Our ledger shows what the mill earned in spring.",
    "Lanterns burn longer when the orchard shelters them.",
    "Whoever crossed last year came by the quarry road.",
)


@pytest.mark.parametrize("end", ENDS)
def test_what_has_ended_is_not_waited_for_however_patiently(end) -> None:
    run = Run()
    run.call("a", "get_job", {"job": "j-17"}, {"state": "running"})
    for _ in range(4):
        assert not run.stopped
        run.call("a", "get_job", {"job": "j-17"}, end, after_ms=60_000).call("a", "wait", {"seconds": 60}, "waited")
    assert run.stopped == ["loop.repeat"]


def test_what_may_begin_anew_is_waited_for() -> None:
    run = Run()
    for _ in range(9):
        run.call("a", "ci_status", {"branch": "main"}, {"conclusion": "failure"}, after_ms=600_000)
    assert run.stopped == []


def test_one_that_has_ended_beside_one_that_runs_is_looked_at_with_it() -> None:
    run = Run()
    for number in range(18):
        state = "failed" if number % 2 else "running"
        run.call("a", "get_job", {"job": 11 + number % 2}, {"status": state}, after_ms=60_000)
    assert run.stopped == []


def test_what_boots_is_asked_until_it_is_up() -> None:
    run = Run()
    for host in ("north-1", "north-2"):
        run.call("a", "ssh", {"host": host, "cmd": "reboot"}, "")
        for _ in range(9):
            run.call("a", "ssh", {"host": host, "cmd": "uptime"}, "Connection refused", error=True, after_ms=15_000)
        run.call("a", "ssh", {"host": host, "cmd": "uptime"}, f"{host} is up")
    assert run.stopped == []


def test_what_never_comes_up_and_what_nobody_has_set_going_are_stopped() -> None:
    for first in ("reboot", "uptime"):
        run = Run()
        run.call("a", "ssh", {"host": "north-1", "cmd": first}, "")
        run.call("b", "read", {}, "x")
        for _ in range(21 if first == "reboot" else 8):
            run.call(
                "a",
                "ssh",
                {"host": "north-1", "cmd": "ls"},
                "Connection refused",
                error=True,
                after_ms=15_000 if first == "reboot" else 2_000,
            )
        assert run.stopped == ["loop.error"]


def test_one_who_acts_on_what_he_reads_and_two_who_go_by_the_clock_undo_nothing() -> None:
    alone, clock = Run(), Run()
    for number in range(9):
        for on, reading in ((True, 18.9), (False, 21.1)):
            alone.call("a", "read", {"room": "hall"}, round(reading + number / 100, 2), after_ms=300_000)
            alone.call("a", "set_heater", {"room": "hall", "on": on}, "ok")
        clock.call("night", "set_mode", {"site": "plant", "mode": "night"}, "ok", after_ms=43_200_000)
        clock.call("day", "set_mode", {"site": "plant", "mode": "day"}, "ok", after_ms=43_200_000)
    assert alone.stopped == clock.stopped == []


def test_two_who_write_in_one_book_in_turns_undo_nothing() -> None:
    run = Run()
    for _ in range(9):
        for who in ("north", "south"):
            run.call(who, "log_entry", {"book": "river", "station": who, "entry": "all quiet"}, "ok", after_ms=300_000)
    assert "loop.undone" not in run.stopped


def test_settings_that_are_tried_and_items_that_are_missing_are_work() -> None:
    sweep, items, jobs, tokens = Run(), Run(), Run(), Tokens()
    for number, size in enumerate((96, 80, 72, 64, 56, 48, 40)):
        sweep.call("a", "train", {"batch": size, "model": "resnet-large"}, "out of memory", error=True)
        sweep.call("a", "card", {}, "24 GB, idle")
        items.call("a", "get_user", {"id": 400 + number}, "404 Not Found", error=True)
        items.call("a", "create_user", {"id": 400 + number, "name": ANTIQUES[number]}, "created")
        job = tokens.fresh(12)
        jobs.call("a", "next_ticket", {"queue": "thumbnails of the north"}, {"ticket": job, "kind": "resize a picture"})
        jobs.call("a", "handle", {"ticket": job}, "cannot decode the picture", error=True)
    assert sweep.stopped == items.stopped == jobs.stopped == []


def _talk(*said: tuple[str, str, str]) -> list[str]:
    chatter, found = ChatterDetector(DEFAULT.chatter), []
    for number, (agent, text, to) in enumerate(said):
        found += chatter.fold_act(Act(f"m{number}", "t", agent, "say", text, says=True, to=to))
    return [trip.level for trip in found]


LATER = (
    "There are no appointments available at the moment. Please try again later.",
    "ip-10-0-1-10 NotReady,SchedulingDisabled node v1.29.3",
    "build pass 2m\nunit pending 0\nlint pass 1m, all of them",
    "rollout in eu: status: progressing, traffic is being shifted",
)


@pytest.mark.parametrize("answer", LATER)
@pytest.mark.parametrize("timed", [True, False])
def test_a_slow_thing_is_looked_at_for_as_long_as_it_says_that_it_is_not_there_yet(answer, timed) -> None:
    run = Run()
    for _ in range(9):
        run.call("a", "kubectl", {"args": "get node ip-10-0-1-10"}, answer, after_ms=30_000 if timed else 0)
    assert run.stopped == []


def test_whoever_looks_each_half_minute_watches_and_who_acts_so_or_looks_sooner_does_not() -> None:
    told = "There are three boats in the harbour, and nobody is on any of them."
    for action, after_ms, level in (
        ("open_page", 30_000, []),
        ("update_page", 30_000, ["loop.repeat"]),
        ("open_page", 5_000, ["loop.repeat"]),
    ):
        run = Run()
        for _ in range(9):
            run.call("a", action, {"url": "boats"}, told, after_ms=after_ms)
        assert run.stopped == level, (action, after_ms)


def test_a_push_refused_for_what_others_push_is_tried_again_after_each_pull() -> None:
    run = Run()
    for number in range(6):
        run.call("a", "bash", {"command": "git push"}, "rejected: fetch first", error=True)
        run.call("a", "bash", {"command": "git pull --rebase"}, f"Updating {number}ab12cd..{number + 1}ab12cd")
        run.call("a", "bash", {"command": "make test"}, "412 passed")
    assert "loop.counting" not in run.stopped


def test_pauses_of_milliseconds_are_no_patience() -> None:
    run = Run()
    for exponent in range(9):
        run.call("a", "look", {"q": "x"}, "nothing", after_ms=2**exponent)
    assert run.stopped == ["loop.repeat"]
