"""Playbooks of chatter, breakers and stalls, and of the whole watch over one stream."""

from itertools import accumulate

from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.breakers.state_machine import BreakerState, CallOutcome, apply_call, half_open_breaker
from bulkhead.health.breakers.state_machine import open_breaker as open_breaker
from bulkhead.health.chatter import ChatterDetector
from bulkhead.health.deadlock.confirmation import ConfirmedDeadlock
from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.events import Act, LineageEnded, WaitClosed, WaitOpened, WorkClosed, WorkOpened
from bulkhead.health.findings import HealthFinding
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


def test_a_triangle_that_only_talks_is_told_and_then_stopped() -> None:
    chatter, found = ChatterDetector(DEFAULT.chatter), []
    for number in range(40):
        found += chatter.fold_act(say(number, "abc"[number % 3], "bca"[number % 3]))
    assert [(trip.detector, trip.level) for trip in found if trip.detector == "chatter.group"] == [
        ("chatter.group", "warn"),
        ("chatter.group", "stop"),
    ]
    stop = next(trip for trip in found if trip.level == "stop")
    assert stop.agents == ("a", "b", "c") and len(stop.evidence) == DEFAULT.chatter.group_stop_messages


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


def drive(breaker: BreakerState, *calls: CallOutcome) -> list[BreakerState]:
    """The breaker after each call."""
    return list(accumulate(calls, lambda state, call: apply_call(state, call, DEFAULT.breakers), initial=breaker))[1:]


def test_errors_open_a_breaker_and_trials_close_it() -> None:
    named = DEFAULT.breakers
    states = drive(BreakerState("tool", "search"), *[CallOutcome(NOW + n, failed=n % 2 == 0) for n in range(10)])
    assert [state.phase for state in states] == ["closed"] * 9 + ["open"]
    assert "5 of 10 calls failed" in states[-1].reason
    later = NOW + 9 + named.open_ms
    assert states[-1].until_unix_ms == later
    states = drive(half_open_breaker(states[-1]), CallOutcome(later), *[CallOutcome(later + 1, trial=True)] * 3)
    assert [state.phase for state in states] == ["half_open"] * 3 + ["closed"]
    assert states[-1].reason == "3 trials succeeded"


def test_a_failed_trial_opens_it_for_twice_as_long() -> None:
    named = DEFAULT.breakers
    breaker = open_breaker(BreakerState("model", "m"), NOW, "chatter", named)
    assert breaker.until_unix_ms == NOW + named.open_ms
    at = breaker.until_unix_ms
    [breaker] = drive(half_open_breaker(breaker), CallOutcome(at + 5, failed=True, trial=True))
    assert breaker.phase == "open" and breaker.until_unix_ms == at + 5 + 2 * named.open_ms


def test_slowness_and_spikes_open_it_and_old_calls_are_forgotten() -> None:
    named = DEFAULT.breakers
    slow = drive(BreakerState("tool", "slow"), *[CallOutcome(NOW, latency_ms=named.slow_ms)] * 10)
    assert slow[-1].phase == "open" and "took 60 s or more" in slow[-1].reason and not slow[-1].flooded
    steady = [CallOutcome(NOW + 1_000 * number) for number in range(600)]
    burst = [CallOutcome(NOW + 600_000 + number) for number in range(2_000)]
    states = drive(BreakerState("tenant", "acme"), *steady)
    assert not any(state.openings for state in states)
    flood = drive(states[-1], *burst)[-1]
    assert flood.openings == 1 and "usual" in flood.reason and flood.flooded
    states = drive(
        BreakerState("tool", "x"), *[CallOutcome(NOW, failed=True)] * 9, CallOutcome(NOW + 70_000, failed=True)
    )
    assert not any(state.openings for state in states)


def test_who_tripped_a_breaker_does_not_reset_it() -> None:
    circuits, key = BreakerRegistry(DEFAULT.breakers), ("agent", "acme", "alice")
    circuits.adopt_breaker(key, open_breaker(BreakerState("agent", "alice"), NOW, "chatter", DEFAULT.breakers))
    circuits.reset_breaker(key, "alice", NOW)
    assert circuits.found[key].phase == "open"
    circuits.reset_breaker(key, "bob", NOW)
    assert circuits.found[key].phase == "closed" and circuits.found[key].reason == "reset by bob"


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


def test_the_watch_confirms_a_deadlock_across_two_tasks_and_names_it_by_its_edges() -> None:
    watch = Watch()
    events = [
        WaitOpened("h1", "acme/a", "lease:x", ("acme/a/1",), time_unix_ms=NOW, tenant="acme", resource=True),
        WaitOpened("h2", "acme/b", "lease:y", ("acme/b/1",), time_unix_ms=NOW, tenant="acme", resource=True),
        WaitOpened("w1", "acme/a", "acme/a/1", ("lease:y",), time_unix_ms=NOW, tenant="acme"),
        WaitOpened("w2", "acme/b", "acme/b/1", ("lease:x",), time_unix_ms=NOW + 1, tenant="acme"),
    ]
    found = [one for event in events for one in watch.fold_event(event)]
    (suspected,) = found
    assert isinstance(suspected, SuspectedDeadlock)
    watch.confirmations.add_suspicion(suspected, {"INBOX_WORKER": 4})
    assert watch.judge_suspicions() == []
    watch.confirmations.mark_read("INBOX_WORKER", 4)
    ((outcome, trip),) = watch.judge_suspicions()
    assert isinstance(outcome, ConfirmedDeadlock) and isinstance(trip, HealthFinding)
    assert trip.id == suspected.trip and trip.facts["victim"] == "acme/b/1" and trip.facts["refuse"] == "w2"
    assert "acme/b/1 waits for lease:x waits for acme/a/1 waits for lease:y waits for acme/b/1" in trip.what
    assert trip.level == "stop" and trip.tenant == "acme" and trip.lineage == "acme/b"
    assert watch.fold_event(WaitClosed("r", "acme/b", "w2")) == [] and not watch.graph.stuck


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
