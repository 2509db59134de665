"""A feature that misses its target of latency is told once a day and tenant, and never out of a few tasks."""

import pytest
from pydantic import ValidationError

from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.trends.latency import FEWEST

NOW, DAY_MS = 1_795_000_000_000, 24 * 3_600_000


class Fold:
    def __init__(self) -> None:
        self.watching, self._numbers = WatchFold(DEFAULT, targets_ms={"search": 10_000}), 0

    def say(self, sender: str, task: str, body: Body, at: int, tenant: str) -> None:
        self._numbers += 1
        headers = {"ce-type": body.ce_type(), "ce-id": f"m{self._numbers}"}
        subject = subjects.mesh_subject(sender, "gateway", tenant, task)
        self.watching.fold_message(StoredMessage(subject, headers, body.encode(), self._numbers, at))

    def task(
        self, took_ms: int, feature: str = "search", at: int = NOW, tenant: str = "acme", status: str = "succeeded"
    ) -> None:
        name = f"t{self._numbers}"
        self.say("gateway", name, TaskRequested(objective="o", limits=TaskLimits(), feature=feature), at, tenant)
        self.say("planner", name, TaskEnded(status=status), at + took_ms, tenant)  # type: ignore[arg-type]

    def told(self) -> list[tuple[str, str]]:
        return [(one.tenant, one.what) for one in self.watching.due.values() if one.detector == "latency"]


def test_a_missed_target_is_told_once_a_day_and_tenant() -> None:
    fold = Fold()
    for number in range(FEWEST):
        assert fold.told() == [], "of a few tasks nothing is said"
        fold.task(12_000 if number < 2 else 1_000)
    ((tenant, what),) = fold.told()
    assert tenant == "acme" and "the 95th percentile of its latest 20 tasks is 12.0 s, the target 10 s" in what
    fold.task(60_000)
    assert len(fold.told()) == 1
    fold.task(60_000, at=NOW + DAY_MS)
    for _ in range(FEWEST):
        fold.task(60_000, tenant="else")
    assert [tenant for tenant, _ in fold.told()] == ["acme", "acme", "else"]


def test_a_kept_target_and_what_has_none_are_not_told() -> None:
    fold = Fold()
    for _ in range(2 * FEWEST):
        fold.task(10_000)
        fold.task(60_000, feature="other")
        fold.task(60_000, feature="")
        fold.task(60_000, status="cancelled")
    assert fold.told() == []


def test_targets_are_read_as_json_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_LATENCY_TARGETS", '{"search": 1.5}')
    assert Settings().latency_targets_ms == {"search": 1_500}
    with pytest.raises(ValidationError):
        Settings(latency_targets={"a b": 1})
    with pytest.raises(ValidationError):
        Settings(latency_targets={"search": 0})
