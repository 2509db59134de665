"""The restated arithmetic against the worked examples of Kubernetes's documentation and KEDA's own tests."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.e2e.autoscaling import hpa, keda
from tests.e2e.autoscaling.hpa import Autoscaler, Policy, Rules
from tests.e2e.autoscaling.keda import ScaledObject
from tests.unit.infra.kubernetes.rendered import installation, named

AT_ONCE = Rules(0, (Policy("Percent", 100, 15),))
FREE = Rules(0, (Policy("Percent", 10_000, 15),))


class Fixed:
    """Readings that a test sets; None fails."""

    def __init__(self, lag: float | None = 0, load: float | None = 0, cpu: Sequence[float] = ()) -> None:
        self.lags: dict[str, float | None] = {}
        self._lag, self._load, self._cpu = lag, load, cpu

    def lag(self, metadata: Mapping[str, str]) -> float:
        return _there(self.lags.get(metadata["consumer"], self._lag))

    def load(self, metadata: Mapping[str, str]) -> float:
        return _there(self._load)

    def cpu(self, target: str) -> Sequence[float]:
        return self._cpu


def _there(value: float | None) -> float:
    if value is None:
        raise ConnectionRefusedError
    return value


def rendered(name: str, **spec: Any) -> ScaledObject:
    """One of ours, with other fields."""
    found = named(installation("production", autoscaling="keda"), "ScaledObject", name)
    return ScaledObject.of({**found, "spec": found["spec"] | spec})


# Kubernetes: "Algorithm details"


def test_twice_the_target_doubles_and_half_of_it_halves() -> None:
    assert hpa.by_pods([0.2] * 4, 0.1, 4) == 8
    assert hpa.by_pods([0.05] * 4, 0.1, 4) == 2


@pytest.mark.parametrize(("total", "wanted"), [(90, 10), (109, 10), (112, 12), (89, 9), (1, 1), (0, 0)])
def test_a_ratio_within_a_tenth_changes_nothing_and_others_are_rounded_up(total: float, wanted: int) -> None:
    assert hpa.by_total(total, 10, 10) == wanted


def test_a_pod_that_is_not_ready_damps_growth() -> None:
    assert hpa.by_pods([0.2, 0.2], 0.1, 2) == 4
    assert hpa.by_pods([0.2, 0.2], 0.1, 4) == 4, "two that start count as idle: 0.4 over 4 is the target"
    assert hpa.by_pods([0.3, 0.3], 0.1, 4) == 6


def test_the_largest_proposal_counts() -> None:
    assert Autoscaler(1, 100, FREE, AT_ONCE).decide(0, 4, [2, 7, 5]) == 7


def test_without_one_metric_there_may_be_more_and_never_fewer() -> None:
    scaler = Autoscaler(1, 100, FREE, AT_ONCE)
    assert scaler.decide(0, 4, [2, None]) == 4
    assert scaler.decide(0, 4, [None, None]) == 4
    assert scaler.decide(0, 4, [6, None]) == 6


# Kubernetes: "Scaling policies", "Stabilization window", "Default behavior"


def test_a_tenth_or_four_pods_a_minute() -> None:
    """80 to 10: 8 in the first step, 7.2 rounded up to 8 in the second; from 40 on 4 each."""
    scaler = Autoscaler(1, 100, FREE, Rules(0, (Policy("Pods", 4, 60), Policy("Percent", 10, 60))))
    counts = [80]
    for minute in range(12):
        counts.append(scaler.decide(minute * 61, counts[-1], [10]))
    assert counts[:3] == [80, 72, 64]
    below = [count for count in counts if count <= 40]
    assert [a - b for a, b in itertools.pairwise(below)] == [4] * (len(below) - 1)


def test_within_a_period_what_went_before_counts() -> None:
    scaler = Autoscaler(1, 100, FREE, Rules(0, (Policy("Pods", 4, 60),)))
    assert [scaler.decide(at_s, 80 - min(at_s, 4), [10]) for at_s in (0, 15, 45)] == [76, 76, 76]
    assert scaler.decide(61, 76, [10]) == 72


def test_the_smaller_change_and_none_where_the_rule_says_so() -> None:
    policies = (Policy("Pods", 4, 60), Policy("Percent", 10, 60))
    assert Autoscaler(1, 100, FREE, Rules(0, policies, "Min")).decide(0, 80, [10]) == 76
    assert Autoscaler(1, 100, FREE, Rules(0, policies, "Disabled")).decide(0, 80, [10]) == 80


def test_fewer_only_when_the_whole_window_asked_for_fewer() -> None:
    scaler = Autoscaler(1, 100, FREE, Rules(300, AT_ONCE.policies))
    assert [scaler.decide(at_s, 10, [wanted]) for at_s, wanted in ((0, 10), (15, 3), (30, 6), (299, 3))] == [10] * 4
    assert scaler.decide(301, 10, [3]) == 6, "ten was asked for longer ago; six was within the window"
    assert scaler.decide(331, 6, [3]) == 3


def test_more_only_when_the_whole_window_asked_for_more() -> None:
    scaler = Autoscaler(1, 100, Rules(60, FREE.policies), AT_ONCE)
    assert [scaler.decide(at_s, 2, [wanted]) for at_s, wanted in ((0, 2), (15, 9), (59, 5))] == [2, 2, 2]
    assert scaler.decide(61, 2, [7]) == 5


def test_what_is_not_said_is_the_default() -> None:
    up, down = hpa.rules({}, "scaleUp"), hpa.rules({}, "scaleDown")
    assert Autoscaler(1, 100, up, down).decide(0, 1, [50]) == 5, "four pods beat a doubling"
    assert Autoscaler(1, 100, up, down).decide(0, 10, [50]) == 20
    assert (up.window_s, down.window_s) == (0, 300)


def test_bounds_hold_at_once() -> None:
    scaler = Autoscaler(2, 8, AT_ONCE, AT_ONCE)
    assert [scaler.decide(0, replicas, [4]) for replicas in (1, 20)] == [2, 8]
    assert scaler.decide(0, 0, []) == 0, "nothing but KEDA starts the first one"


# KEDA: scaling_modifiers_test.go, fallback_test.go, scale_scaledobjects_test.go


def test_a_formula_adds_triggers_up() -> None:
    assert hpa.by_total(keda.evaluated("metrics_api + kw_trig", {"metrics_api": 3, "kw_trig": 2}), 2, 1) == 3
    with pytest.raises(ValueError, match="no sum"):
        keda.evaluated("a * 2", {"a": 1})


def test_the_shards_of_a_decider_count_together() -> None:
    sources = Fixed(cpu=[0.0, 0.0])
    sources.lags = {f"worker-{shard}": 10 for shard in range(8)}
    assert rendered("worker").sync(0, 2, sources) == 4, "8 x 10 over 20; the fullest alone would ask for one"


def test_load_counts_where_lag_is_small() -> None:
    assert rendered("tool-executor").sync(0, 2, Fixed(lag=8, load=3.0, cpu=[0, 0])) == 4


def test_cpu_keeps_replicas_when_the_lag_is_gone() -> None:
    worker = rendered("worker")
    assert worker.sync(0, 4, Fixed(cpu=[0.6] * 4)) == 4
    assert [worker.sync(at_s, 4, Fixed(cpu=[0.62] * 4)) for at_s in (600, 1200)] == [4, 4]
    assert worker.sync(1800, 4, Fixed(cpu=[0.1] * 4)) == 2


def test_a_metric_that_is_gone_keeps_what_runs() -> None:
    worker, gone = rendered("worker"), Fixed(lag=None, cpu=[0.0] * 5)
    assert {worker.sync(at_s, 5, gone) for at_s in range(0, 3_000, 15)} == {5}
    assert worker.sync(3_000, 5, Fixed(cpu=[0.0] * 5)) == 5, "what the fallback asked for is in the window"
    assert worker.sync(3_400, 5, Fixed(cpu=[0.0] * 5)) == 2


def test_from_zero_and_back() -> None:
    checker = rendered("checker", minReplicaCount=0)
    assert checker.poll(0, 0, Fixed()) == 0
    assert checker.poll(15, 0, Fixed(lag=1)) == 1
    assert checker.sync(15, 0, Fixed(lag=1)) == 0, "the autoscaler is off while there is none"
    assert [checker.poll(at_s, 1, Fixed()) for at_s in (30, 315)] == [1, 1]
    assert checker.poll(316, 1, Fixed()) == 0


def test_a_service_at_zero_is_started_when_its_metric_is_gone() -> None:
    checker, gone = rendered("checker", minReplicaCount=0), Fixed(lag=None)
    assert [checker.poll(at_s, 0, gone) for at_s in (0, 15, 30)] == [0, 0, 0]
    assert checker.poll(45, 0, gone) == 1
