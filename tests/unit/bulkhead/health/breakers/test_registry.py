"""Which calls open which breaker, and how trials close it: playbooks over one stream of calls."""

import itertools
from dataclasses import replace

import pytest

from bulkhead.health.breakers.registry import AGENT_MIN_CALLS, BreakerRegistry
from bulkhead.health.events import Act, CallEnded, LineageEnded, WorkOpened
from bulkhead.health.sources.journal import DEFERRED_TIMES, JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

NAMED = DEFAULT.breakers
TOOL = ("tool", "acme", "look")
NOW = 1_000_000


def call(number: int, **changes: object) -> CallEnded:
    plain = CallEnded(
        f"m{number}",
        "acme/t1",
        "s1/1",
        "acme",
        "tool",
        "look",
        failed=False,
        latency_ms=5,
        time_unix_ms=NOW + number,
        role="worker.step",
    )
    return replace(plain, **changes)


def test_calls_that_fail_open_the_breaker_of_their_tenant_alone_and_are_its_evidence() -> None:
    breakers, trips = BreakerRegistry(NAMED), []
    for number in range(NAMED.min_calls):
        trips += breakers.fold_call(call(number, failed=number % 2 == 0, tenant="acme"))
        trips += breakers.fold_call(call(100 + number, tenant="other"))
    (trip,) = trips
    assert (trip.detector, trip.tenant, trip.lineage) == ("breaker.tool", "acme", "acme/t1")
    assert trip.evidence == ("m0", "m2", "m4", "m6", "m8") and "5 of 10 calls failed" in trip.what
    assert {key: one.phase for key, one in breakers.changed.items()} == {TOOL: "open"}
    assert breakers.states["tool", "other", "look"].phase == "closed"
    assert breakers.states["tenant", "", "acme"].phase == "closed", "an outage is not its tenant's fault"


def opened() -> BreakerRegistry:
    breakers = BreakerRegistry(NAMED)
    for number in range(NAMED.min_calls):
        breakers.fold_call(call(number, failed=True))
    assert breakers.states[TOOL].phase == "open"
    return breakers


def test_calls_begun_before_it_opened_change_nothing() -> None:
    breakers = opened()
    before = breakers.states[TOOL]
    breakers.fold_call(call(NAMED.open_ms + 20, latency_ms=NAMED.open_ms + 15))
    assert breakers.states[TOOL] == before


def test_three_good_trials_close_it_and_one_bad_one_opens_it_for_twice_as_long() -> None:
    breakers = opened()
    due = breakers.states[TOOL].until_unix_ms - NOW
    breakers.fold_call(call(due + 10))
    assert breakers.states[TOOL].phase == "half_open" and breakers.changed[TOOL].phase == "half_open"
    trips = breakers.fold_call(call(due + 20, failed=True))
    again = breakers.states[TOOL]
    assert [one.detector for one in trips] == ["breaker.tool"] and again.phase == "open"
    assert again.until_unix_ms - again.since_unix_ms == 2 * NAMED.open_ms
    due = again.until_unix_ms - NOW
    for number in range(NAMED.trials):
        assert breakers.states[TOOL].phase != "closed"
        breakers.fold_call(call(due + 10 + number))
    assert breakers.states[TOOL].phase == breakers.changed[TOOL].phase == "closed"


def test_a_trip_is_named_alike_by_whoever_folds_the_same() -> None:
    def trips() -> list[str]:
        breakers = BreakerRegistry(NAMED)
        return [trip.id for number in range(20) for trip in breakers.fold_call(call(number, failed=True))]

    assert trips() == trips() and len(trips()) == 1


def test_an_agent_has_patience_and_a_tenant_is_held_back_for_a_flood() -> None:
    breakers = BreakerRegistry(NAMED)
    trips = [
        trip.detector
        for number in range(AGENT_MIN_CALLS)
        for trip in breakers.fold_call(call(number, name="", error=True))
    ]
    assert trips == ["breaker.agent"] and breakers.states["agent", "acme", "worker.step"].phase == "open"
    breakers, trips = BreakerRegistry(NAMED), []
    for minute in range(20):
        for number in range(10):
            trips += breakers.fold_call(call(minute * 60_000 + number * 5_000))
    assert trips == []
    for number in range(300):
        trips += breakers.fold_call(call(20 * 60_000 + number))
    assert "breaker.tenant" in [one.detector for one in trips]


def test_the_watch_frees_nothing_of_a_breaker_with_a_task() -> None:
    watch = Watch(DEFAULT)
    for number in range(5):
        watch.fold_event(call(number, failed=True))
    watch.fold_event(LineageEnded("e", "acme/t1", NOW))
    found = [trip for number in range(5, 10) for trip in watch.fold_event(call(number, failed=True, lineage="acme/t2"))]
    assert [one.detector for one in found] == ["breaker.tool"]  # type: ignore[union-attr]


# From the journal


def said(journal: JournalReader, body: object, sender: str, to: str) -> list[object]:
    headers = {"ce-type": body.ce_type(), "ce-id": f"{len(body.encode())}"}  # type: ignore[attr-defined]
    return list(journal.read(f"mesh.{sender}.{to}.1.acme.t1.-", headers, body.encode(), NOW))  # type: ignore[attr-defined]


REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)


@pytest.mark.parametrize(
    ("outcome", "code", "name", "failed", "error"),
    [
        ("succeeded", "", "look", False, False),
        ("failed", "timeout", "look", True, True),
        ("failed", "division_by_zero", "look", False, True),
        ("refused", "bad_arguments", "", False, True),
        ("refused", "breaker_open", None, False, False),
        ("refused", "halted", None, False, False),
        ("refused", "deadline_exceeded", None, False, False),
        ("failed", "deadline_exceeded", None, False, False),
    ],
)
def test_who_is_to_blame_for_a_tool_call(outcome: str, code: str, name: str | None, failed: bool, error: bool) -> None:
    journal = JournalReader()
    step = PlanStep(id="s1", title="t", instruction="i", role="clerk")
    said(
        journal,
        StepAssigned(step=step, attempt=1, plan_version=1, objective=REF, deadline_unix_ms=1),
        "planner",
        "worker",
    )
    said(
        journal,
        ToolCallRequested(call_id="c", step_id="s1", attempt=1, tool="look", arguments_json="{}", deadline_unix_ms=1),
        "worker",
        "tool_executor",
    )
    failure = Failure(code=code, message="m") if code else None
    events = said(
        journal,
        ToolCallReplied(call_id="c", step_id="s1", outcome=outcome, failure=failure),  # type: ignore[arg-type]
        "tool_executor",
        "worker",
    )
    served = [one for one in events if isinstance(one, CallEnded)]
    assert len([one for one in events if isinstance(one, Act)]) == 1
    if name is None:
        assert served == []
    else:
        (one,) = served
        assert (one.name, one.failed, one.error, one.role) == (name, failed, error, "worker.clerk")


def test_a_model_that_was_not_called_says_nothing_about_it() -> None:
    def reply(outcome: str, code: str) -> list[CallEnded]:
        body = ModelCallReplied(
            call_id=code,
            outcome=outcome,
            failure=Failure(code=code, message="m"),
            model="big",  # type: ignore[arg-type]
            prompt_id="worker.step",
        )
        return [one for one in said(JournalReader(), body, "model_gateway", "worker") if isinstance(one, CallEnded)]

    assert [one.failed for one in reply("failed", "provider_error")] == [True]
    assert [one.failed for one in reply("failed", "context_overflow")] == [False]
    assert [one.failed for one in reply("failed", "request_refused")] == [False]
    assert reply("refused", "refused_by_budget") == []
    assert reply("refused", "deadline_exceeded") == reply("failed", "deadline_exceeded") == []


def test_a_call_that_is_put_off_is_outstanding_as_long_as_its_asker_may_wait() -> None:
    body = CallDeferred(call_id="c", after_ms=15_000, paused=True)
    (opened_, _) = said(JournalReader(), body, "model_gateway", "worker")
    assert isinstance(opened_, WorkOpened) and opened_.until_unix_ms == NOW + 15_000 * DEFERRED_TIMES


def breaker_of(watch: Watch) -> str:
    return watch.breakers.states[TOOL].phase if TOOL in watch.breakers.states else "unseen"


def asked(name: str) -> ToolCallRequested:
    return ToolCallRequested(
        call_id=name, step_id="s1", attempt=1, tool="look", arguments_json='{"text":"long"}', deadline_unix_ms=1
    )


def failed(name: str) -> ToolCallReplied:
    return ToolCallReplied(
        call_id=name, step_id="s1", outcome="failed", duration_ms=7, failure=Failure(code="timeout", message="m")
    )


def test_calls_that_fail_after_their_task_has_ended_count_all_the_same_and_once() -> None:
    """A step fails for good with its first failing call, its task with it: the other calls are answered after that."""
    journal, watch, numbers = JournalReader(), Watch(DEFAULT), itertools.count(1)

    def tell(task: str, body: object, sender: str, to: str, name: str = "") -> list[object]:
        headers = {"ce-type": body.ce_type(), "ce-id": name or f"m{next(numbers)}"}  # type: ignore[attr-defined]
        events = journal.read(f"mesh.{sender}.{to}.1.acme.{task}.-", headers, body.encode(), NOW)  # type: ignore[attr-defined]
        return [found for event in events for found in watch.fold_event(event)]

    found, calls = [], [f"c{number}" for number in range(4)]
    for task in ("t1", "t2", "t3"):
        step = PlanStep(id="s1", title="t", instruction="i", role="clerk")
        tell(
            task,
            StepAssigned(step=step, attempt=1, plan_version=1, objective=REF, deadline_unix_ms=1),
            "planner",
            "worker",
        )
        for name in calls[:3]:
            tell(task, asked(name), "worker", "tool_executor")
        tell(task, failed("c3"), "tool_executor", "worker")  # Read before its request, which the end overtakes.
        found += tell(task, failed("c0"), "tool_executor", "worker")
        tell(task, TaskEnded(status="failed"), "planner", "gateway")
        for name in calls[1:3]:
            found += tell(task, failed(name), "tool_executor", "worker", f"{task}/{name}")
            found += tell(task, failed(name), "tool_executor", "worker", f"{task}/{name}")
        found += tell(task, asked("c3"), "worker", "tool_executor")
    assert [one.detector for one in found] == ["breaker.tool"]  # type: ignore[attr-defined]
    assert "10 of 10 calls failed" in found[0].what and breaker_of(watch) == "open"  # type: ignore[attr-defined]
    counted = sum(one.calls for one in watch.breakers.states["agent", "acme", "worker.clerk"].buckets)
    assert counted == 12, "and for whoever asked, under its role"
    assert not journal.unreadable and not journal._late, "nothing is kept of calls that were told"


def test_a_call_that_is_told_again_counts_once() -> None:
    watch = Watch(DEFAULT)
    for number in range(NAMED.min_calls - 1):
        for _ in range(3):
            assert watch.fold_event(call(number, failed=True)) == []
    assert len(watch.fold_event(call(NAMED.min_calls, failed=True))) == 1
