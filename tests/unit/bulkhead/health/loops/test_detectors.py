"""Playbooks of the loop detectors: what is a loop, and what only looks like one."""

import itertools
import random
import time
import uuid

import pytest

from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding
from bulkhead.health.loops.windows import LoopDetector
from bulkhead.health.text import normalize
from bulkhead.health.thresholds import DEFAULT


class Run:
    """Acts of one lineage, a second apart unless told otherwise, and what they tripped."""

    def __init__(self) -> None:
        self.watch = LoopDetector(DEFAULT.loops)
        self.trips: list[HealthFinding] = []
        self.acts = 0
        self.now = 1_790_000_000_000

    def call(self, agent="a", action="look", arguments=None, result="x", error=False, after_ms=1_000):
        self.now += after_ms
        self.acts += 1
        act = Act(f"m{self.acts}", "t", agent, action, arguments or {}, result, error, time_unix_ms=self.now)
        self.trips += self.watch.fold_act(act)
        return self

    def say(self, agent, text, to="", after_ms=1_000, productive=None):
        self.now += after_ms
        self.acts += 1
        self.trips += self.watch.fold_act(
            Act(
                f"m{self.acts}", "t", agent, "say", text, says=True, to=to, time_unix_ms=self.now, productive=productive
            )
        )
        return self

    @property
    def stopped(self):
        return [trip.detector for trip in self.trips if trip.level == "stop"]

    @property
    def warned(self):
        return [trip.detector for trip in self.trips if trip.level == "warn"]


def test_the_same_call_with_the_same_result_warns_then_stops() -> None:
    run = Run()
    for _ in range(3):
        run.call(arguments={"q": "x"}, result="nothing")
    assert (run.warned, run.stopped) == (["loop.repeat"], [])
    run.call(arguments={"q": "x"}, result="nothing")
    assert run.stopped == ["loop.repeat"]
    (trip,) = [trip for trip in run.trips if trip.level == "stop"]
    assert trip.evidence == ("m1", "m2", "m3", "m4") and trip.facts["rounds"] == 4 and "look" in trip.what
    run.call(arguments={"q": "x"}, result="nothing")
    assert len(run.trips) == 2, "told once"


@pytest.mark.parametrize("period", [2, 3, 6, 13, 24])
def test_a_period_is_stopped_with_its_third_round(period) -> None:
    run = Run()
    for number in range(3 * period):
        assert not run.stopped
        run.call(action=f"tool{number % period}", arguments={"n": "x"}, result=f"r{number % period}")
    assert len(run.stopped) == 1 and run.trips[-1].facts["period"] == period


@pytest.mark.parametrize("agents", [2, 3, 7])
def test_a_ring_of_agents_is_one_loop_of_the_lineage(agents) -> None:
    run = Run()
    for number in range(3 * agents):
        assert not run.stopped
        here, there = f"agent{number % agents}", f"agent{(number + 1) % agents}"
        run.say(here, f"please take over ticket 17 (request {uuid.uuid4()})", to=there)
    assert run.stopped


def test_a_ring_is_found_beside_an_agent_that_works() -> None:
    run, numbers = Run(), itertools.count()
    for number in range(21):
        run.say(f"r{number % 7}", "yours, I think", to=f"r{(number + 1) % 7}")
        run.call("busy", "read", {"file": f"f{next(numbers)}"}, f"text of {next(numbers)}")
    assert run.stopped == ["loop.ring"]


@pytest.mark.parametrize(
    "noise",
    [
        lambda: {"q": "bulkhead", "request_id": str(uuid.uuid4())},
        lambda: {"q": "bulkhead", "X-Correlation-Id": uuid.uuid4().hex},
        lambda: {"q": f"bulkhead  (req-{random.randrange(10**5, 10**6)})"},
        lambda: {"q": f"bulkhead as of 2026-11-21T09:{random.randrange(10, 60)}:00Z please"},
        lambda: {"q": "bulkhead", "attempt": random.randrange(100), "ts": 1_790_000_000 + random.randrange(1000)},
        lambda: {"q": "bulkhead", "thought": f"now I {random.choice('abc')}"},
        lambda: dict(random.sample([("q", "bulkhead"), ("k", 8), ("lang", "en")], 3)),
        lambda: f'{{"k" : {8},  "q": "bulkhead"}}',
    ],
)
def test_what_changes_by_itself_hides_nothing(noise) -> None:
    run = Run()
    for number in range(4):
        run.call(arguments=noise(), result={"hits": [], "request_id": f"{number}-{uuid.uuid4()}", "took_ms": number})
    assert run.stopped == ["loop.repeat"]


def test_an_address_is_no_noise() -> None:
    """Ids that a result gave are what the calls are about, whatever they look like."""
    names = [str(uuid.UUID(int=number << 64 | 0xABCDEF)) for number in range(12)]
    run = Run().call(action="list", result={"customers": names})
    for name in names:
        run.call(action="open_invoices", arguments={"customer": name, "fields": "all"}, result="no open invoices")
    assert not run.stopped
    run = Run()
    for _ in range(12):
        run.call(action="close", arguments={"id": str(uuid.uuid4())}, result="ok")
    assert not run.stopped, "ids of the objective, which no result gave"


def test_a_number_of_a_program_is_no_made_up_id() -> None:
    run = Run()
    for mask in ("0xAAAAAAAAAAAAAAAA", "0x5555555555555555", "0xAAAAAAAA", "0x55555555", "0x3333333333333333"):
        run.call(action="python", arguments={"code": f"def odd(n): return n | {mask}"}, result="Test did not pass.")
    assert not run.stopped
    run = Run()
    for at in range(4):
        run.call(action="python", arguments={"code": "print(it)"}, result=f"<Session object at 0x7f{at:010x}>")
    assert run.stopped == ["loop.repeat"]


@pytest.mark.parametrize(("work", "rounds"), [(True, 4), (None, 3)])
def test_work_that_is_handed_in_and_approved_has_a_round_more(work, rounds) -> None:
    """ChatDev's reviews have three rounds, the reviewer content or not, and then the next phase begins."""
    run, code = Run(), "main.py: def closest_vowel(word): return next((c for c in word if c in VOWELS), '')"
    for number in range(rounds):
        assert not run.stopped, number
        run.say("reviewer", "<INFO> Finished", to="programmer")
        run.say("programmer", code, to="reviewer", productive=work)
    assert run.stopped == ["loop.alternation"]


def test_other_arguments_or_another_result_are_work() -> None:
    run = Run()
    for number in range(40):
        run.call(action="get_page", arguments={"page": number}, result=f"rows {number * 10}..")
        run.call(action="edit", arguments={"line": number, "text": f"fix {number * 7}"}, result="ok")
        run.call(action="run_tests", arguments={}, result="1 failed")
    assert not run.stopped


def test_honest_polling_is_no_loop() -> None:
    run = Run()
    for number in range(20):
        run.call(action="status", arguments={"job": 7}, result={"state": "running", "done": number}, after_ms=500)
    assert not run.trips, "the result changes"
    run = Run()
    for number in range(8):
        run.call(action="status", arguments={"job": 7}, result="not there", after_ms=1_000 * 2**number)
    assert not run.trips, "back-off"
    run = Run()
    for _ in range(25):
        run.call(action="status", arguments={"job": 7}, result={"state": "pending"}, after_ms=5_000)
    assert not run.trips, "it says that it is pending"
    run = Run()
    for _ in range(20):
        run.call(action="status", result="no").call(action="wait_seconds", arguments={"s": 2}, result="ok")
        run.call(action="bash", arguments={"command": "sleep 5"}, result="")
    assert not run.stopped, "it waits in between"


def test_a_number_in_the_name_of_a_pause_is_how_long_it_lasts() -> None:
    for pause in ("wait1", "env.wait2", "sleep30"):
        run = Run()
        for _ in range(8):
            run.call(action=pause, result="You decide to wait for 1 iterations.")
        assert not run.trips, pause
    run = Run()
    for _ in range(4):
        run.call(action="waiter1", result="You decide to wait for 1 iterations.")
    assert run.stopped == ["loop.repeat"], "another word that begins like it"


def test_a_busy_loop_on_something_pending_is_one() -> None:
    run = Run()
    for _ in range(4):
        run.call(action="status", result="pending", after_ms=200)
    assert run.stopped


def test_retries_with_back_off_are_honest_and_repeating_an_error_is_not() -> None:
    run = Run()
    for number in range(5):
        run.call(result="503 unavailable", error=True, after_ms=500 * 2**number)
    assert not run.stopped
    run = Run()
    for _ in range(4):
        run.call(result="no such table: users", error=True)
    assert "loop.error" in run.warned and run.stopped == ["loop.error"]


def test_the_same_error_with_other_arguments_stops_late() -> None:
    run = Run()
    for number in range(8):
        assert not run.stopped
        run.call(arguments={"sql": f"select {number} from t{number}"}, result="permission denied", error=True)
    assert "loop.error" in run.warned and run.stopped == ["loop.error"]


def test_a_monologue_stops_when_it_says_the_same_and_a_story_does_not() -> None:
    run = Run()
    for number in range(8):
        run.say("a", f"I should now think about which of the files I need to read next{'!' * number} Let me think.")
    assert "loop.monologue" in run.stopped or "loop.repeat" in run.stopped
    run, chance = Run(), random.Random(1)
    for _ in range(30):
        run.say("a", " ".join("".join(chance.choices("abcdefghijklmnop", k=7)) for _ in range(30)))
    assert not run.stopped and "loop.monologue" in run.warned


def test_a_coordinator_that_says_next_is_answered_with_news() -> None:
    run = Run()
    for number in range(20):
        run.say("boss", "next, please", to="worker")
        run.say("worker", f"chapter {number * 17} is about {number}", to="boss")
    assert not run.stopped


def test_a_call_that_brings_news_arms_the_detector_again() -> None:
    run = Run()
    for turn in range(3):
        for _ in range(4):
            run.call(arguments={"q": f"{turn} x"}, result="nothing")
    assert run.stopped == ["loop.repeat"] * 3


def test_calls_in_any_order_without_news_are_stopped() -> None:
    run, chance = Run(), random.Random(3)
    for _ in range(12):
        for name in chance.sample("abc", 3):
            run.call(action=name, result="same")
    assert run.stopped


def test_memory_is_freed_with_the_lineage() -> None:
    run = Run()
    for number in range(2_000):
        run.say(f"a{number}", f"text {number}", to=f"a{number + 1}")
    (lineage,) = run.watch._lineages.values()
    assert len(lineage.agents) <= DEFAULT.loops.max_agents and len(lineage.seen) <= 1_025
    run.watch.end_lineage("t")
    assert len(run.watch) == 0


@pytest.mark.parametrize(
    "text",
    [
        "a1" * 4_096,
        "1" * 8_192,
        "deadbeef1" * 900,
        "req-" * 2_000 + "1",
        "2026-11-21T09:00:" * 480,
        "1234abcd-" * 900,
        "attempt 1 of " * 600,
        "attempt" + " " * 8_000 + "x1",
        "ref:#=_" * 1_100 + "9",
        "1 1 1 ms" * 1_000,
        "[" * 100_000,
        '{"a":' * 5_000,
    ],
    ids=range(12),
)
def test_hostile_texts_are_normalised_in_linear_time(text) -> None:
    began = time.process_time()
    normalize.canonical_result(text)
    normalize.canonical_call(text)
    normalize.canonical_call({"a": text}, {"x"})
    assert time.process_time() - began < 0.5
