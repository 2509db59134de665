"""Loops that hide behind words, fresh names and page numbers; and pauses, digests and repeats that are honest."""

import pytest

from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding
from bulkhead.health.sources.trace_rows import TraceRowReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from tests.unit.bulkhead.health.loops.test_detectors import Run


def test_prose_between_equal_calls_does_not_hide_them() -> None:
    run = Run()
    for thought in ("Let me look.", "Perhaps over there?", "One more thing to check.", "I am nearly done."):
        run.say("a", thought).call(result="nothing of use here, as was said before, really")
    assert run.stopped == ["loop.repeat"]


def test_apologies_between_equal_failures_do_not_hide_them() -> None:
    run = Run()
    for text in ("Sorry.", "Oops, again.", "Let me try once more.", "That should work now."):
        run.say("a", text, to="user").call(result="no such column", error=True)
    assert run.stopped == ["loop.error"] or run.stopped == ["loop.repeat"]


def test_what_another_agent_did_in_between_is_news() -> None:
    run = Run()
    for number in range(6):
        run.call("tester", "run_tests", result="1 failed, of all the tests that there are in here")
        run.say("tester", f"please fix it, variant {number}", to="coder")
        run.call("coder", "edit", {"line": f"try the {'abcdef'[number]} way"}, result="saved")
        run.say("coder", f"done, the {'abcdef'[number]} way", to="tester")
    assert run.stopped == []


def test_the_same_failing_call_is_one_however_the_error_is_worded() -> None:
    run = Run()
    for error in ("denied by policy", "missing permission", "not allowed for you", "you lack the right"):
        run.call(result=error, error=True)
    assert run.stopped == ["loop.error"]


def test_siblings_that_read_the_same_are_no_ring() -> None:
    run = Run()
    for number in range(12):
        run.say("planner", f"part {number} is yours", to=f"mapper-{number}")
    for number in range(12):
        run.call(f"mapper-{number}", "read", {"file": "guide.md"}, "the guide")
    assert run.stopped == []


def test_hand_overs_with_fresh_ids_are_the_same_hand_over() -> None:
    run = Run()
    for number in range(4):
        fresh = f"f8298cbf-cfb5-499c-a30f-cf54995fab{number}6"
        run.call("triage", "transfer_to_sales", {"handoff_id": fresh}, {"assistant": "sales"})
        run.call("sales", "transfer_to_triage", {"handoff_id": fresh[::-1]}, {"assistant": "triage"})
    assert run.stopped


def test_a_draft_handed_in_again_unchanged_is_a_loop_whatever_was_said() -> None:
    run = Run()
    draft = "The fare is refunded in full within a day of booking, and by half after that, but for the tax."
    for remark in ("A citation is missing.", "There is still no citation.", "Please cite.", "Where is the source?"):
        run.call("writer", "submit", {"draft": draft}, "submitted")
        run.say("writer", f"I have improved it ({remark[:3]}).", to="checker")
        run.say("checker", remark, to="writer")
    assert "loop.repeat" in run.stopped


def test_doubled_pauses_after_an_error_are_back_off() -> None:
    run = Run()
    for pause_s in (1, 2, 4, 8, 16, 32):
        run.call(
            "a",
            "http_get",
            {"url": "u"},
            "503 Service Unavailable: the upstream did not answer in time",
            True,
            after_ms=pause_s * 1_000,
        )
    assert run.stopped == []


def test_pauses_that_grow_steadily_wait_for_a_lock() -> None:
    run = Run()
    for pause_s in (1, 5, 8, 12.7, 20, 32):
        run.call(
            "a",
            "acquire_lock",
            {"name": "x"},
            {"acquired": False, "holder": "somebody with quite a long name"},
            after_ms=int(pause_s * 1_000),
        )
    assert run.stopped == []


def test_a_slow_model_is_not_taken_for_a_patient_one() -> None:
    run = Run()
    for pause_s in (60, 35, 80, 41):
        run.call(result="no", after_ms=pause_s * 1_000)
    assert run.stopped == ["loop.repeat"]


def test_a_call_that_waits_as_it_was_asked_to_is_a_long_poll() -> None:
    run = Run()
    for _ in range(8):
        run.call("a", "receive", {"queue": "q", "wait_seconds": 20}, {"messages": []}, after_ms=20_200)
    assert run.stopped == []


def test_one_that_comes_back_at_once_did_not_wait() -> None:
    run = Run()
    for _ in range(4):
        run.call("a", "receive", {"queue": "q", "wait_seconds": 20}, {"messages": []}, after_ms=700)
    assert run.stopped == ["loop.repeat"]


def test_another_picture_is_another_result() -> None:
    run = Run()
    for number in range(8):
        run.call("a", "press_key", {"key": "Tab"}, {"screenshot": f"blob:{number:064x}", "request_id": f"r{number}"})
    assert run.stopped == []


def test_prose_whose_small_words_come_back_is_no_monologue() -> None:
    run = Run()
    for part in range(14):
        words = (f"the {word}{part} of the {word}{part}s was in the house" for word in ("cat", "dog", "owl"))
        run.say("a", " ".join(words))
    assert run.stopped == []


def test_an_act_told_twice_happened_once() -> None:
    watch = Watch()
    act = Act("m1", "t", "a", "look", {}, "x", time_unix_ms=1)
    assert [trip for _ in range(10) for trip in watch.fold_event(act)] == []


def test_handing_out_parts_and_telling_what_came_of_them_is_no_chatter() -> None:
    chatter, trips, at = ChatterDetector(DEFAULT.chatter), [], 0
    for kind in ("out", "work", "back"):
        for number in range(60):
            at += 1
            mapper = f"mapper-{number}"
            agent, to = {"out": ("planner", mapper), "work": (mapper, ""), "back": (mapper, "planner")}[kind]
            trips += chatter.fold_act(Act(f"m{at}", "t", agent, "say" if to else "read", "x", says=bool(to), to=to))
    assert trips == []


@pytest.mark.parametrize("told", [True, False])
def test_twins_that_were_asked_in_one_turn_count_once(told) -> None:
    watch, rows, stopped = Watch(), TraceRowReader(), set()
    for number in range(5):
        row = {
            "agent": "a",
            "action": "ask",
            "arguments": {"q": "x"},
            "result": "the same answer, as it happens",
            "time": 1_790_000_002 + number,
        } | ({"since": 1_790_000_000} if told else {})
        for event in rows.read(row):
            stopped |= {
                trip.detector
                for trip in watch.fold_event(event)
                if isinstance(trip, HealthFinding) and trip.level == "stop"
            }
    assert stopped == (set() if told else {"loop.repeat"})


def test_a_sleep_anywhere_in_a_round_makes_it_a_watch() -> None:
    """The acts before the first round decide which act a round is taken to begin with."""
    run = Run()
    run.call("watch", "read_runbook", {"page": 1}, result="ask both services every minute")
    for _ in range(8):
        for service in ("router", "reports"):
            run.call("watch", "http_get", {"url": f"http://{service}/healthz"}, result='{"status": "ok"}')
        run.call("watch", "sleep", {"seconds": 60}, result="slept")
    assert run.stopped == []


def test_a_smoke_suite_is_about_what_another_agent_rolled_out_before() -> None:
    run = Run()
    for service in ("billing", "search", "mail", "cart", "stock", "login"):
        run.call("builder", "build_image", {"service": service}, result=f"image of {service} stands")
        for stage in ("staging", "production"):
            run.call("deployer", "roll_out", {"service": service, "stage": stage}, result=f"{service} runs on {stage}")
            run.call("smoke", "run_suite", {"stage": stage}, result="12/12 passed, nothing was skipped or slow")
    assert run.stopped == []
