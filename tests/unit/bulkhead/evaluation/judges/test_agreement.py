"""Figures of agreement, against examples that were published, and what each does at its edges."""

import math
import random

import pytest

from bulkhead.evaluation.judges.agreement import (
    RateBound,
    bootstrap_estimate,
    clopper_pearson_low,
    corrected_share,
    krippendorff_alpha,
    length_bias,
)
from bulkhead.evaluation.statistics import cohen_kappa


@pytest.mark.parametrize(
    ("hits", "count", "low"), [(81, 263, 0.2527), (15, 148, 0.0578), (0, 20, 0.0), (1, 29, 0.0009)]
)
def test_exact_bounds_are_those_of_newcombe_1998(hits: int, count: int, low: float) -> None:
    # Table I of Newcombe 1998, method 5: the lower ends of two-sided intervals of 95 %.
    assert clopper_pearson_low(hits, count, 0.975) == pytest.approx(low, abs=5e-5)


def test_a_bound_of_all_hits_is_the_root_of_chance() -> None:
    assert RateBound.of_counts(20, 20).low == pytest.approx(0.05 ** (1 / 20))
    assert RateBound.of_counts(0, 0) == RateBound(0.0, 0.0, 0)


def test_kappa_is_that_of_the_textbook() -> None:
    # Two readers of 50 proposals (20 both yes, 15 both no, 5 and 10 apart): kappa 0.40.
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa([(True, True)] * 3))


def test_alpha_is_krippendorffs_own() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", A: binary data, two observers, 0.095.
    meg, owen = "0100000010", "1110010000"
    rows = [
        ((first == "1") + (second == "1"), (first == "0") + (second == "0"))
        for first, second in zip(meg, owen, strict=True)
    ]
    assert krippendorff_alpha(rows) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha([*rows, (1, 0), (0, 1)]) == krippendorff_alpha(rows), (
        "one reader alone agrees with nobody"
    )
    assert math.isnan(krippendorff_alpha([(2, 0), (2, 0)]))


def test_rogan_and_gladens_share_is_that_of_the_herd() -> None:
    # Messam et al. 2008: 23 of 150 cows positive, sensitivity 96 %, specificity 89 %: 5.1 % are infected.
    share = corrected_share(23 / 150, 150, RateBound(0.96, 0, 100), RateBound(0.89, 0, 100))
    assert share is not None and share.value == pytest.approx(0.0510, abs=5e-5)
    assert corrected_share(0.5, 9, RateBound(0.5, 0, 9), RateBound(0.5, 0, 9)) is None


def test_the_corrected_interval_holds_the_share_as_often_as_it_says() -> None:
    chance, holds, truth, rates, sizes = random.Random(5), 0, 0.7, (0.9, 0.8), (100, 60, 60)

    def draw(share: float, count: int) -> float:
        return sum(chance.random() < share for _ in range(count)) / count

    for _ in range(1_000):
        passed = draw(truth * rates[0] + (1 - truth) * (1 - rates[1]), sizes[0])
        measured = [RateBound(draw(rate, size), 0, size) for rate, size in zip(rates, sizes[1:], strict=True)]
        share = corrected_share(passed, sizes[0], *measured)
        assert share is not None and share.low is not None and share.high is not None
        holds += share.low <= truth <= share.high
    assert 0.93 <= holds / 1_000 <= 0.98


def test_a_bootstrap_is_the_same_at_every_call_and_narrower_with_more_rows() -> None:
    def width(count: int) -> float:
        estimate = bootstrap_estimate(
            [(True, True), (True, False), (False, False), (False, False)] * count, cohen_kappa
        )
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        return estimate.high - estimate.low

    assert width(5) == width(5) > width(50)
    assert bootstrap_estimate([], cohen_kappa) is None is bootstrap_estimate([(True, True)] * 9, cohen_kappa)


def test_a_judge_that_likes_long_answers_is_told_from_one_that_likes_good_ones() -> None:
    lengths = [(label, length) for label in (True, False) for length in range(40)]
    biased = length_bias([(label, length, length > 19) for label, length in lengths])
    fair = length_bias([(label, length, label) for label, length in lengths])
    assert biased is not None and biased.difference == 1.0 and biased.is_shown
    assert fair is not None and fair.difference == 0.0 and not fair.is_shown
    assert length_bias([(True, 5, True), (False, 5, False)]) is None
