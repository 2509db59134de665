"""Which halts, breakers and stalls a tenant's webhook is told, once each; and which warnings agents hear of."""

from collections.abc import Callable
from typing import Any

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.findings import finding_of
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead_contracts.budget import Amount, NoticeRequested, Overran, TaskHalted, Tripped
from bulkhead_contracts.control import Breaker, BreakerReset, Halt, Switched
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.notices import LATE_MS, Notice
from bulkhead_services.budget.watch.watcher import is_told_to_agents
from bulkhead_services.tool_executor.outbound import webhooks

NOW = 1_795_000_000_000


def halt(scope: str = "tool", tenant: str = "acme", name: str = "http_get", **more: Any) -> Switched:
    fields = {
        "code": "halted_by_operator",
        "reason": "the site is under attack",
        "by": "acme/bob",
        "pauses": True,
        "at_unix_ms": NOW,
    }
    return Switched(halt=Halt(scope=scope, tenant=tenant, name=name, **(fields | more)))  # type: ignore[arg-type]


def trip(detector: str, *agents: str) -> Tripped:
    return Tripped(
        trip=f"{detector.replace('.', '-')}-1",
        detector=detector,
        level="stop",
        agents=agents,
        what=f"{detector} found it",
        hint="look at it",
        tripped_unix_ms=NOW,
    )


def reset(scope: str, tenant: str, name: str) -> BreakerReset:
    closed = Breaker(scope=scope, tenant=tenant, name=name, phase="closed", by="operator:ada", since_unix_ms=NOW)  # type: ignore[arg-type]
    return BreakerReset(breaker=closed, was="10 of 10 calls failed", reason="it answers again")


def overrun() -> Overran:
    same = {"reservation_id": "r", "call_id": "c", "service": "model_gateway", "resource": "m"}
    return Overran(**same, reserved=Amount(), used=Amount(tokens=1), what="68 times as much", overran_unix_ms=NOW)


class Fold:
    """A replica's watch, and what it would have posted."""

    def __init__(self) -> None:
        self.watching, self._numbers = WatchFold(DEFAULT), 0

    def say(
        self,
        body: Body,
        sender: str = "budget",
        to: str = "journal",
        tenant: str = "acme",
        task: str = "t1",
        at: int = NOW,
    ) -> None:
        self._numbers += 1
        headers = {"ce-type": body.ce_type(), "ce-id": f"m{self._numbers}"}
        self.watching.fold_message(
            StoredMessage(f"mesh.{sender}.{to}.3.{tenant}.{task}.-", headers, body.encode(), self._numbers, at)
        )

    def due(self, now: int = NOW) -> list[Notice]:
        return self.watching.notices.due_notices(now)


@pytest.mark.parametrize(
    ("body", "kind", "about", "says"),
    [
        (halt(), "halted", "tool:acme:http_get", "tool http_get was halted by acme/bob: the site is under attack"),
        (
            halt("tenant", "", "acme", by="operator:ada"),
            "halted",
            "tenant:acme",
            "tenant acme was halted by operator:ada",
        ),
        (
            halt("task", "acme", "t1", code=CEILING_CODE, by="budget", reason="task t1 waits: it has spent all"),
            "halted",
            "task:acme:t1",
            "task t1 waits: it has spent all",
        ),
        (halt(active=False, reason="it is over"), "resumed", "tool:acme:http_get", "goes on, by acme/bob: it is over"),
        (reset("tool", "acme", "http_get"), "breaker_reset", "tool:acme:http_get", "by operator:ada: it answers again"),
        (reset("tenant", "", "acme"), "breaker_reset", "tenant:acme", "It had opened because 10 of 10 calls failed"),
        (trip("breaker.tool", "http_get"), "breaker_opened", "tool:acme:http_get", "breaker.tool found it"),
        (trip("breaker.tenant", "acme"), "breaker_opened", "tenant:acme", "breaker.tenant found it"),
        (trip("latency", "search"), "latency_missed", "feature:acme:search", "latency found it"),
        (
            trip("prompt_usage", "worker.step@r2"),
            "prompt_uses_more",
            "prompt:acme:worker.step@r2",
            "prompt_usage found",
        ),
        (trip("model.name", "openai/m-1"), "model_changed", "model:acme:openai/m-1", "model.name found it"),
        (overrun(), "overran", "task:acme:t1", "a call of m in task t1 was charged in full: 68 times as much"),
        (trip("stall"), "stalled", "task:acme:t1", "task t1: stall found it"),
    ],
)
def test_it_is_told_as_what_it_is(body: Body, kind: str, about: str, says: str) -> None:
    fold = Fold()
    fold.say(body)
    (found,) = fold.due()
    assert (found.kind, found.about, found.tenant) == (kind, about, "acme") and says in found.what
    asked = found.to_request()
    assert NoticeRequested.model_validate_json(asked.encode()) == asked and asked.notice == found.id
    posted = webhooks.post_of(found.tenant, found.task, asked).body
    assert f'"type":"mesh.{kind}"'.encode() in posted and (b'"task":"t1"' in posted) == about.startswith("task:")


@pytest.mark.parametrize(
    "say",
    [
        lambda fold: fold.say(halt(tenant="")),
        lambda fold: fold.say(halt(), sender="worker"),
        lambda fold: fold.say(reset("model", "", "m")),
        lambda fold: fold.say(reset("tool", "acme", "http_get"), sender="gateway"),
        lambda fold: fold.say(trip("loop.repeat", "s1/1")),
        lambda fold: fold.say(trip("deadlock", "s1", "s2")),
        lambda fold: fold.say(trip("breaker.tool", "http_get"), sender="worker"),
        lambda fold: fold.say(TaskHalted(code=CEILING_CODE, reason="x"), sender="gateway", to="planner"),
        lambda fold: fold.say(overrun(), sender="model_gateway"),
        lambda fold: fold.say(halt(at_unix_ms=NOW - LATE_MS - 1)),
    ],
    ids=[
        "everybody's",
        "forged",
        "everybody's breaker",
        "forged reset",
        "loop",
        "deadlock",
        "forged trip",
        "forged end",
        "forged overrun",
        "late",
    ],
)
def test_nobody_is_told(say: Callable[[Fold], None]) -> None:
    fold = Fold()
    say(fold)
    assert fold.due() == []


def test_a_breaker_that_trials_closed_is_told_once_by_its_entry_and_one_that_a_person_closed_by_its_fact() -> None:
    fold = Fold()
    entry = Breaker(
        scope="tool", tenant="acme", name="http_get", phase="closed", reason="3 trials succeeded", since_unix_ms=NOW
    )
    for one in (
        entry.model_copy(update={"by": "operator:ada"}),
        entry.model_copy(update={"phase": "half_open"}),
        entry.model_copy(update={"tenant": ""}),
        entry,
        entry,
    ):
        fold.watching.notices.apply_breaker_entry(one)
    (found,) = fold.due()
    assert (found.kind, found.about, found.tenant) == ("breaker_closed", "tool:acme:http_get", "acme")
    assert "closed again: 3 trials succeeded" in found.what
    fold.say(found.to_request(), to="tool_executor", task="halts")
    fold.watching.notices.apply_breaker_entry(entry)
    assert fold.due() == []
    fold.watching.notices.apply_breaker_entry(entry.model_copy(update={"since_unix_ms": NOW + 1}))
    assert len(fold.due()) == 1 and fold.due(NOW + LATE_MS + 2) == []


def test_a_task_that_is_ended_at_its_ceiling_is_told_once_however_many_of_its_calls_are_refused() -> None:
    fold = Fold()
    for number in range(200):
        fold.say(TaskHalted(code=CEILING_CODE, reason=f"{number} refused"), to="planner")
    fold.say(TaskHalted(code=CEILING_CODE, reason="x"), to="planner", task="t2")
    assert [(one.kind, one.task) for one in fold.due()] == [("halted", "t1"), ("halted", "t2")]


def test_what_was_asked_for_is_not_asked_for_again_by_whoever_folds_it_in_whatever_order() -> None:
    first, later = Fold(), Fold()
    for fold in (first, later):
        fold.say(halt())
        fold.say(halt(active=False, at_unix_ms=NOW + 1))
    halted, resumed = first.due()
    assert [one.id for one in later.due()] == [halted.id, resumed.id] and halted.id != resumed.id
    later.say(halted.to_request(), to="gateway", task="halts")
    assert later.due() == [halted, resumed], "it is told to subscribers, and not yet posted"
    later.say(halted.to_request(), to="tool_executor", task="halts")
    assert later.due() == [resumed]
    forged = resumed.to_request()
    later.say(forged, sender="worker", to="tool_executor", task="halts")
    assert later.due() == [resumed], "who may not ask has asked for nothing"
    early = Fold()
    early.say(halted.to_request(), to="tool_executor", task="halts")
    early.say(halt())
    assert early.due() == []
    assert later.due(NOW + LATE_MS + 2) == [], "it is no news any more"


@pytest.mark.parametrize(
    ("detector", "level", "told"),
    [
        ("loop.repeat", "warn", True),
        ("chatter.group", "warn", True),
        ("loop.repeat", "stop", False),  # It is halted, and told why.
        ("stall", "warn", False),  # There is nobody at work to tell.
    ],
)
def test_agents_hear_of_what_they_can_stop_doing(detector: str, level, told: bool) -> None:
    trip = finding_of(detector, level, "demo", "demo/t", ("a",), "what", ("m1",), 1, "m1", {})
    assert is_told_to_agents(trip) is told
