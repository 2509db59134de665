"""Playbooks of chatter, breakers and stalls, and of the whole watch over one stream."""

from bulkhead.health.breakers.state_machine import open_breaker as open_breaker
from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.events import Act, LineageEnded, WaitOpened, WorkClosed, WorkOpened
from bulkhead.health.stalls import StallDetector
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch

NOW = 1_790_000_000_000


def say(number: int, agent: str, to: str, tokens: int = 0) -> Act:
    return Act(
        f"m{number}",
        "t",
        agent,
        "say",
        f"thought {number * 7919 % 101} of {number}",
        says=True,
        to=to,
        tokens=tokens,
        time_unix_ms=NOW + 1_000 * number,
    )


def work(number: int, agent: str) -> Act:
    return Act(f"w{number}", "t", agent, "read", {"n": number}, f"text {number}", time_unix_ms=NOW)


def test_work_by_one_of_them_sets_the_count_back() -> None:
    chatter, found = ChatterDetector(DEFAULT.chatter), []
    for number in range(200):
        found += chatter.fold_act(say(number, "abc"[number % 3], "bca"[number % 3]))
        if number % 3 == 0:
            found += chatter.fold_act(work(number, "b"))
    assert not found
    for number in range(200, 240):
        found += chatter.fold_act(say(number, "abc"[number % 3], "bca"[number % 3]))
    assert [trip.level for trip in found if trip.detector == "chatter.group"] == ["warn", "stop"]


def test_reports_to_one_who_never_answers_are_no_group() -> None:
    chatter, found = ChatterDetector(DEFAULT.chatter), []
    for number in range(60):
        found += chatter.fold_act(work(number, f"w{number % 5}"))
        found += chatter.fold_act(say(number, f"w{number % 5}", "boss"))
    assert not found


def test_tokens_count_too() -> None:
    chatter, found = ChatterDetector(DEFAULT.chatter), []
    for number in range(6):
        found += chatter.fold_act(say(number, "a", "b", tokens=30_000))
    assert [trip.level for trip in found] == ["warn", "stop"]
    chatter.end_lineage("t")
    assert len(chatter) == 0


def opened(key: str, at: int = NOW, kind="call", until: int = 0) -> WorkOpened:
    return WorkOpened(f"o{key}", "acme/t", key, kind, at, "acme", until)


def test_a_stall_is_nothing_outstanding_for_long_and_not_ended() -> None:
    after = DEFAULT.stalls.after_ms
    stalls = StallDetector(DEFAULT.stalls)
    stalls.fold_event(opened("1"))
    assert stalls.pass_time(NOW + 100 * after) == [], "a call is outstanding"
    stalls.fold_event(WorkClosed("c1", "acme/t", "1", NOW + 1_000))
    assert stalls.pass_time(NOW + 1_000 + after - 1) == []
    (trip,) = stalls.pass_time(NOW + 1_000 + after)
    assert (trip.detector, trip.tenant, trip.lineage, trip.evidence) == ("stall", "acme", "acme/t", ("c1",))
    assert stalls.pass_time(NOW + 10 * after) == [], "told once"


def test_approvals_timers_and_late_messages_are_no_stall() -> None:
    after = DEFAULT.stalls.after_ms
    stalls = StallDetector(DEFAULT.stalls)
    stalls.fold_event(opened("1", kind="approval"))
    assert stalls.pass_time(NOW + 1_000 * after) == []
    stalls.fold_event(WorkClosed("c", "acme/t", "1", NOW + 1_000 * after))
    stalls.fold_event(opened("", NOW, "timer", NOW + 2_000 * after))
    assert stalls.pass_time(NOW + 2_000 * after) == []
    assert len(stalls.pass_time(NOW + 2_001 * after)) == 1
    stalls = StallDetector(DEFAULT.stalls)
    stalls.fold_event(opened("1"))
    stalls.fold_event(WorkClosed("c2", "acme/t", "2", NOW))
    stalls.fold_event(opened("2"))
    assert stalls.outstanding_keys("acme/t") == ("1",), "its reply was read before it"
    stalls.fold_event(LineageEnded("e", "acme/t", NOW))
    assert stalls.pass_time(NOW + 10 * after) == [] and len(stalls) == 0


def test_a_task_whose_ends_are_read_before_its_beginnings_stalls_as_any_other() -> None:
    """The plan is adopted in one inbox, the task submitted in another: the journal may have either first."""
    after = DEFAULT.stalls.after_ms
    stalls = StallDetector(DEFAULT.stalls)
    stalls.fold_event(WorkClosed("p", "acme/t", "planning", NOW + 9_000))
    assert stalls.pass_time(NOW + 10 * after) == [] and len(stalls) == 0, "nobody has seen it begin"
    stalls.fold_event(opened("planning"))
    stalls.fold_event(opened("call"))
    assert stalls.outstanding_keys("acme/t") == ("call",)
    stalls.fold_event(WorkClosed("c", "acme/t", "call", NOW + 1))
    assert stalls.pass_time(NOW + 9_000 + after - 1) == [], "it was the last that moved"
    assert [one.lineage for one in stalls.pass_time(NOW + 9_000 + after)] == ["acme/t"]
    stalls.fold_event(WorkClosed("p", "acme/u", "planning", NOW))
    stalls.fold_event(LineageEnded("e", "acme/u", NOW))
    assert not stalls._early


def test_what_comes_after_the_end_leaves_nothing() -> None:
    watch = Watch()
    watch.fold_event(opened("1"))
    watch.fold_event(LineageEnded("e", "acme/t", NOW))
    for number in range(10):
        watch.fold_event(opened(str(number)))
        watch.fold_event(Act(f"a{number}", "acme/t", "a", "x", {}, "same", time_unix_ms=NOW))
        watch.fold_event(WaitOpened(f"w{number}", "acme/t", "acme/t/a", ("acme/t/a",)))
    assert len(watch.stalls) == len(watch.loops) == len(watch.chatter) == watch.graph.count_edges() == 0
    assert watch.pass_time(NOW + 10**9) == []


def test_the_same_demand_and_ever_other_excuses_are_chatter_and_answers_are_none() -> None:
    words = ("harbour", "tariff", "crane", "ledger", "pilot", "storm", "anchor", "cargo", "winch", "berth", "tide")
    for excuse, level in (("I cannot do that", "stop"), ("here it is", "warn")):
        chatter, found = ChatterDetector(DEFAULT.chatter), []
        for number in range(18):
            told = " ".join(words[(number * 5 + at * at) % 11] + "abcdefghijklmnopqr"[number] for at in range(9))
            texts = ("h", "a", "The calls are not valid, try again."), ("a", "h", f"{excuse}: {told}")
            for at, (by, to, text) in enumerate(texts):
                found += chatter.fold_act(Act(f"m{number}.{at}", "t", by, "say", text, says=True, to=to))
            if number == 10:
                assert {trip.detector: trip.level for trip in found}["chatter.pair"] == level
