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


def by_case(*rows: tuple[float, ...]) -> dict[str, list[float]]:
    return {f"c{number}": list(row) for number, row in enumerate(rows)}


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (1, 9, 0.021484), (0, 6, 0.03125), (5, 5, 1.0)])
def test_one_run_a_case_is_compared_by_mcnemars_exact_test(better: int, worse: int, p: float) -> None:
    # scipy.stats.binomtest(better, better + worse).pvalue
    before = by_case(*[(0.0,)] * better, *[(1.0,)] * worse, *[(1.0,)] * 7)
    after = by_case(*[(1.0,)] * better, *[(0.0,)] * worse, *[(1.0,)] * 7)
    test = statistics.paired_test(before, after)
    assert test is not None and test.name == "McNemar's exact test"
    assert test.p_value == pytest.approx(p, abs=1e-6)
    assert (test.higher, test.lower, test.equal) == (better, worse, 7)


def test_repetitions_are_compared_by_a_permutation_of_signs_over_cases() -> None:
    # Differences 0.5, 0.5, 1.0 and -0.5: of 16 signs, 6 give a sum as far from zero as 1.5.
    before, after = by_case((0, 1), (0, 1), (0, 0), (1, 1)), by_case((1, 1), (1, 1), (1, 1), (0, 1))
    test = statistics.paired_test(before, after)
    assert test is not None and test.name == "permutation test, all signs"
    sums = [abs(0.5 * a + 0.5 * b + c - 0.5 * d) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)]
    assert test.p_value == sum(value >= 1.5 for value in sums) / 16
    assert (test.higher, test.lower, test.equal) == (3, 1, 0)


def test_many_cases_are_compared_by_random_signs_that_are_the_same_at_every_call() -> None:
    before = by_case(*[(0, 0)] * 20, *[(1, 1)] * 8)
    after = by_case(*[(1, 1)] * 20, *[(0, 0)] * 8)
    first, second = (statistics.paired_test(before, after) for _ in range(2))
    assert first is not None and first == second and "20,000 random signs" in first.name
    assert first.p_value == pytest.approx(0.0357, abs=0.005), "the binomial test's of 8 of 28"


def test_without_a_case_in_common_there_is_no_test() -> None:
    assert statistics.paired_test({"a": [1.0]}, {"b": [1.0]}) is None
