"""What an answer hands out and the next call hands back is no news; what a queue, a list or somebody else gives is."""

import random

import pytest

from tests.unit.bulkhead.health.loops.test_detectors import Run

TEXT = "The braised trench sweetens every patched brine, as the clerk of the harbour noticed."
CREW = ("Ayla", "Benoit", "Cem", "Daria")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


class Tokens:
    """Fresh ones, the same in every run."""

    def __init__(self) -> None:
        self._chance = random.Random("tokens")

    def fresh(self, length: int = 40) -> str:
        return "".join(self._chance.choice(LETTERS) for _ in range(length))


def test_a_token_that_is_good_once_it_was_renewed_is_none() -> None:
    run, tokens = Run(), Tokens()
    bearer = tokens.fresh()
    for page in range(8):
        run.call("a", "get_orders", {"page": page, "bearer": bearer}, {"status": 401, "error": "expired"}, error=True)
        bearer = tokens.fresh()
        run.call("a", "renew_token", {}, {"token": bearer})
        run.call("a", "get_orders", {"page": page, "bearer": bearer}, {"orders": [f"order {page}"]})
    assert run.stopped == []


@pytest.mark.parametrize("source", ["next_job", "queue.pop", "takeTicket", "fetch_job", "scratch"])
def test_what_a_queue_gives_out_is_work(source) -> None:
    run, tokens = Run(), Tokens()
    for _ in range(7):
        job = tokens.fresh(32)
        run.call("a", source, {}, {"job": job}).call("a", "process", {"job": job}, "failed: no such format")
    assert run.stopped == []


def test_a_list_whose_items_are_refused_one_by_one_is_gone_through() -> None:
    run, tokens = Run(), Tokens()
    items = [tokens.fresh(32) for _ in range(7)]
    run.call("a", "list", {}, {"items": items})
    for item in items:
        run.call("a", "remove", {"item": item}, "failed: it is in use").call("a", "note", {}, "noted")
    assert "loop.counting" not in run.stopped


@pytest.mark.parametrize("name", ["draft_v{0}.md", "node-{0}.conf"])
def test_another_text_or_another_place_is_work(name) -> None:
    run = Run()
    for number in range(8):
        text = TEXT + (f" It is the {'abcdefgh'[number]}th time." if "draft" in name else "")
        run.call("a", "save", {"name": name.format(number), "text": text}, "saved")
    assert run.stopped == []


def test_a_version_after_each_piece_of_news_is_work() -> None:
    run = Run()
    for number in range(8):
        run.call("a", "look", {"at": "harbour"}, f"{'abcdefgh'[number]} ships")
        run.call("a", "save", {"name": f"log v{number}", "text": TEXT}, "saved")
    assert run.stopped == []


def test_two_that_go_through_numbered_things_by_word_of_mouth_are_not() -> None:
    run = Run()
    for number in range(40_100, 40_112):
        run.say("chief", f"Please book the invoice with the number {number} and tell me.", to="clerk")
        run.say("clerk", f"The invoice with the number {number} cannot be booked, it is not there.", to="chief")
    assert run.stopped == []


def test_a_mailbox_that_somebody_works_behind_is_not() -> None:
    run = Run()
    for number in range(40_100, 40_112):
        run.say("buyer", f"Thank you for your answer. My next order has the number {number}.", to="desk")
        run.call("desk", "book", {"order": number}, f"booked on page {number * 7}")
        run.say("desk", f"Thank you for your order, it was received. Its case number is {number}.", to="buyer")
    assert run.stopped == []


def test_a_baton_with_the_number_of_the_round_goes_round_in_vain() -> None:
    run, tokens = Run(), Tokens()
    for number in range(12):
        here, there = CREW[number % 4], CREW[(number + 1) % 4]
        run.call(here, "take_baton", {"nonce": tokens.fresh(8), "round": number // 4 + 1}, {"holder": here})
        run.say(here, f"Your turn (round {number // 4 + 1}).", to=there)
    assert set(run.stopped) == {"loop.ring"}


def test_no_failures_are_no_failure() -> None:
    run = Run()
    for number in range(8):
        run.call("a", "metrics", {}, {"requests": 900 + 31 * number, "failed": 0, "error": None}, after_ms=5_000)
    assert run.stopped == []


@pytest.mark.parametrize("answer", ["OK", "failed: {0} of 40 have not passed"])
def test_a_check_of_what_somebody_else_has_made_meanwhile_is_another_one(answer) -> None:
    run = Run()
    for number in range(8):
        run.call("writer", "commit", {"patch": f"line {number}: {TEXT[number:]}"}, "committed")
        run.call("hook", "make", {"target": "check"}, answer.format((7, 9, 8, 11, 10, 12, 9, 13)[number]))
    assert run.stopped == []


def test_a_check_that_fails_after_each_mend_of_somebody_else_is_stopped_when_trying_around_would_be() -> None:
    run = Run()
    for number in range(8):
        assert not run.stopped
        run.call("writer", "commit", {"patch": f"line {number}: {TEXT[number:]}"}, "committed")
        run.call("hook", "check", {"target": "tree"}, "the tree is red", error=True)
    assert run.stopped == ["loop.error"]


def test_seats_that_are_proposed_and_taken_are_tried_one_by_one() -> None:
    run = Run()
    for seat in ("14C", "15A", "17F", "18B", "19A", "21C"):
        run.call("a", "propose_seat", {}, {"seat": seat}).call("a", "book", {"seat": seat}, "refused: it is taken")
    assert run.stopped == []


def test_the_same_settings_measured_under_one_version_after_the_other_are_work() -> None:
    run = Run()
    for number in range(7):
        settings = {"run": f"run_v{number}", "settings": TEXT}
        run.call("a", "train", settings, {"accuracy": (91, 93, 92, 95, 90, 94, 96)[number]})
    assert run.stopped == []


def test_counts_of_failures_that_are_watched_are_figures() -> None:
    run = Run()
    for number in range(8):
        run.call("a", "metrics", {}, {"requests": 900 + 31 * number, "failed": 3 + number // 3}, after_ms=5_000)
    assert run.stopped == []


def test_prices_that_come_nearer_are_a_bargain() -> None:
    run = Run()
    for number in range(6):
        run.say("seller", f"I could let the whole lot go for {9_000 - 150 * number} crowns, not for less.", to="buyer")
        run.say("buyer", f"I cannot pay more than {7_000 + 150 * number} crowns for all that is in it.", to="seller")
    assert run.stopped == []
