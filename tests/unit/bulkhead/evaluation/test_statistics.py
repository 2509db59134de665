"""Intervals: against published figures, at their ends, and by how often they hold what is true."""

import math
import random
from collections.abc import Callable

import pytest

from bulkhead.evaluation import statistics
from bulkhead.evaluation.statistics import Estimate


def once(*values: float) -> dict[str, list[float]]:
    return {str(number): [value] for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("passed", "of", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_as_published(passed: int, of: int, low: float, high: float) -> None:
    found = statistics.share_estimate(once(*([1.0] * passed + [0.0] * (of - passed))))
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (low, high)


def test_repetitions_of_few_cases_count_as_few_cases() -> None:
    alike = {"a": [1.0] * 50, "b": [0.0] * 50}
    assert statistics.effective_runs(alike) == 2
    mixed = {str(case): [float((case + run) % 2) for run in range(4)] for case in range(10)}
    assert statistics.effective_runs(mixed) == 40, "cases that do not differ: every run tells something"
    assert (
        statistics.effective_runs({"a": [1.0] * 9}) == 1
        and statistics.effective_runs({"a": [1.0] * 5, "b": [1.0] * 5}) == 2
    )


def test_a_quantile_without_enough_runs_has_no_end_there() -> None:
    assert statistics.quantile_estimate(range(1, 7), 0.5) == Estimate(3, 1, 6)
    assert statistics.quantile_estimate(range(1, 6), 0.5) == Estimate(3, None, None)
    assert statistics.quantile_estimate(range(1, 72), 0.95).high is None  # type: ignore[union-attr]
    assert statistics.quantile_estimate(range(1, 73), 0.95).high == 72  # type: ignore[union-attr]
    assert statistics.quantile_estimate(range(1, 80), 0.95) == Estimate(76, 71, 79)
    assert statistics.quantile_estimate([], 0.5) is None


def test_means_and_differences_are_students() -> None:
    found = statistics.mean_estimate({"a": [1.0, 3.0], "b": [4.0]})
    assert found is not None and found.value == 3.0 and found.high == pytest.approx(3 + 12.7062)
    assert statistics.mean_estimate({"a": [2.0]}) == Estimate(2.0, None, None) and statistics.mean_estimate({}) is None
    assert statistics.mean_difference({"a": [1.0]}, {"b": [1.0]}) is None
    for freedom, published in ((3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423)):
        assert statistics._student_t(freedom) == pytest.approx(published, rel=2e-3)


def test_no_difference_in_two_cases_proves_nothing() -> None:
    found = statistics.share_difference(once(1.0, 0.0), once(1.0, 0.0))
    assert found is not None and found.value == 0 and (found.low or 0) < -0.5 and (found.high or 0) > 0.5
    clear = statistics.share_difference(once(*[1.0] * 30), once(*[0.0] * 30))
    assert clear is not None and clear.value == -1 and (clear.high or 0) < -0.7
    assert statistics.share_difference(once(1.0), {"x": [1.0]}) is None


CHANCE = random.Random(7)


def _share() -> bool:
    """Cases differ, and each is run three times."""
    runs = {}
    for case in range(30):
        p = CHANCE.betavariate(1.4, 0.6)
        runs[str(case)] = [float(CHANCE.random() < p) for _ in range(3)]
    found = statistics.share_estimate(runs)
    return (found.low or 0) <= 0.7 <= (found.high or 0)


def _difference() -> bool:
    before, after = {}, {}
    for case in range(30):
        luck = CHANCE.random()
        before[str(case)], after[str(case)] = [float(luck < 0.6)], [float((luck + CHANCE.random() / 3) % 1 < 0.75)]
    found = statistics.share_difference(before, after)
    assert found is not None
    return (found.low or 0) <= 0.15 <= (found.high or 0)


def _quantile() -> bool:
    found = statistics.quantile_estimate([CHANCE.expovariate(1.0) for _ in range(40)], 0.9)
    assert found is not None
    return (found.low or 0) <= -math.log(0.1) <= (math.inf if found.high is None else found.high)


@pytest.mark.parametrize("holds", [_share, _difference, _quantile])
def test_an_interval_of_95_percent_holds_the_truth_so_often(holds: Callable[[], bool]) -> None:
    assert sum(holds() for _ in range(1_500)) / 1_500 >= 0.92
