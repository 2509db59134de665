"""What an answer hands out and the next call hands back is no news; what a queue, a list or somebody else gives is."""

import random

import pytest

from tests.unit.health.test_loops import Run

TEXT = "The braised trench sweetens every patched brine, as the clerk of the harbour noticed."
CREW = ("Ayla", "Benoit", "Cem", "Daria")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


class Tokens:
    """Fresh ones, the same in every run."""

    def __init__(self) -> None:
        self._chance = random.Random("tokens")

    def fresh(self, length: int = 40) -> str:
        return "".join(self._chance.choice(LETTERS) for _ in range(length))


def test_a_token_that_is_refused_however_often_it_is_renewed_is_a_loop() -> None:
    run, tokens = Run(), Tokens()
    bearer = tokens.fresh()
    for _ in range(4):
        assert not run.stopped
        run.call("a", "get_orders", {"bearer": bearer}, {"status": 401, "trace": tokens.fresh(16)}, error=True)
        bearer = tokens.fresh()
        run.call("a", "renew_token", {}, {"token": bearer, "expires": "2026-11-21T19:00:00Z"})
    assert run.stopped == ["loop.counting"]


def test_an_address_that_has_run_out_whenever_it_is_used_is_one() -> None:
    run, tokens = Run(), Tokens()
    for number in range(4):
        assert not run.stopped
        url = f"https://files.example/a.zip?X-Signature={number:064x}"
        run.call("a", "sign_url", {"file": "a.zip"}, {"url": url})
        run.call("a", "download", {"url": url}, f"403 Request has expired (RequestId {tokens.fresh(16)})", error=True)
    assert run.stopped == ["loop.counting"]


def test_a_run_by_its_number_that_fails_at_the_same_step_is_one() -> None:
    run = Run()
    for number in range(71_000, 71_004):
        run.call("a", "rerun", {"run": number}, {"run": number + 1}, after_ms=61_000 + 7_000 * (number % 3))
        run.call("a", "result", {"run": number + 1}, {"run": number + 1, "conclusion": "failure", "step": "lint"})
    assert run.stopped == ["loop.counting"]


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


def test_the_same_text_under_one_version_after_the_other_is_kept_in_vain() -> None:
    run = Run()
    for number in range(3, 7):
        assert not run.stopped
        run.call("a", "load", {"name": "brief.md"}, TEXT)
        run.call("a", "save", {"name": f"draft_v{number}.md", "text": TEXT}, f"saved draft_v{number}.md")
    assert run.stopped == ["loop.versions"] and "loop.versions" in run.warned


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


def test_mailboxes_that_answer_each_other_by_themselves_are_stopped() -> None:
    run = Run()
    for number in range(40_100, 40_108):
        assert not run.stopped
        here, there = ("desk", "buyer") if number % 2 == 0 else ("buyer", "desk")
        text = (
            "Thank you for your mail. Your case has the number {0}."
            if here == "desk"
            else "I am out of the office and shall answer when I am back. Reference: {0}."
        )
        run.say(here, text.format(number), to=there, after_ms=97_000)
    assert run.stopped == ["loop.automatic"]


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


def test_a_comment_with_a_fresh_word_mends_nothing() -> None:
    run, tokens = Run(), Tokens()
    for _ in range(4):
        for code, error in (("let a: number = '1'", "TS2322 no number"), ("let a: string = 1", "TS2345 no string")):
            run.call("a", "write", {"path": "a.ts", "text": f"{code}\n// attempt {tokens.fresh(8)}"}, "Wrote 2 lines.")
            run.call("a", "check_types", {}, error, error=True)
    assert run.stopped


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


def test_the_same_push_under_another_digest_is_no_news_for_the_check() -> None:
    run = Run()
    for number in range(4):
        assert not run.stopped
        run.call("writer", "push", {"diff": TEXT}, {"commit": f"{number * 7919:040x}"})
        run.call("hook", "make", {"target": "check"}, "OK")
    assert run.stopped


@pytest.mark.parametrize("stops", [True, False])
def test_who_hands_out_may_be_somebody_else_when_he_answers_the_same(stops) -> None:
    run, tokens = Run(), Tokens()
    for number in range(4):
        url = f"https://files.example/a?X-Signature={tokens.fresh(32)}"
        run.call("signer", "sign", {"file": "a.zip" if stops else f"{'abcd'[number]}.zip"}, {"url": url})
        run.say("signer", f"Here it is: {url}", to="fetcher")
        run.call("fetcher", "download", {"url": url}, "403 Request has expired", error=True)
    assert ("loop.counting" in run.stopped) is stops


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


def test_a_code_that_has_always_run_out_is_asked_for_in_vain() -> None:
    run = Run()
    for code in ("481516", "234208", "900131", "771204"):
        assert not run.stopped
        run.call("a", "ask_for_code", {}, {"sent": True}).call("a", "read_mail", {}, f"Your code is {code}")
        run.call("a", "enter", {"code": code}, "Code expired. Ask for a new one.")
    assert run.stopped == ["loop.counting"]


def test_what_one_makes_oneself_and_what_fails_is_made_in_vain() -> None:
    run = Run()
    for number in range(4):
        assert not run.stopped
        run.call("a", "create_release", {"of": "x"}, {"release": f"rel-{number + 200}"})
        run.call("a", "put_out", {"release": f"rel-{number + 200}"}, {"status": "rolled back", "why": "probe failed"})
    assert run.stopped == ["loop.counting"]


def test_prices_that_come_nearer_are_a_bargain() -> None:
    run = Run()
    for number in range(6):
        run.say("seller", f"I could let the whole lot go for {9_000 - 150 * number} crowns, not for less.", to="buyer")
        run.say("buyer", f"I cannot pay more than {7_000 + 150 * number} crowns for all that is in it.", to="seller")
    assert run.stopped == []
