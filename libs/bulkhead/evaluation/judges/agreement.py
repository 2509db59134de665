"""Agreement of a judge with people: bounds of its rates, kappa, alpha, its bias, and shares corrected for its errors.

In: verdicts and labels. Out: figures with intervals of 95 %. Pure; resamples are the same at every call. Krippendorff's
alpha is computed by the package `krippendorff`, which the extra `evaluation` brings.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import fmean
from typing import Any, TypeVar

from bulkhead.evaluation.cases import CaseError
from bulkhead.evaluation.statistics import Estimate, Z, binomial_cdf

CONFIDENCE = 0.95
RESAMPLES, SHUFFLES, SEED = 1_000, 2_000, 20_261
HALVINGS = 60
"""Steps of a bisection: the bound is exact to 1e-18."""
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RateBound:
    """A share of `count` cases, and its lower bound of 95 %, one-sided (Clopper and Pearson 1934)."""

    value: float
    low: float
    count: int

    @classmethod
    def of_counts(cls, hits: int, count: int) -> "RateBound":
        """The share of hits; 0 of none, which shows nothing."""
        return cls(hits / count, clopper_pearson_low(hits, count, CONFIDENCE), count) if count else cls(0.0, 0.0, 0)


def clopper_pearson_low(hits: int, count: int, confidence: float) -> float:
    """The one-sided lower bound of a share: the share at which so many hits, or more, are 1 - `confidence` likely."""
    if hits == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if binomial_cdf(count, middle)[hits - 1] < confidence:
            high = middle
        else:
            low = middle
    return low


def krippendorff_alpha(rows: Sequence[tuple[int, int]]) -> float:
    """Krippendorff's alpha for nominal data. rows: of each case how many readers called it good, and how many bad;
    a reader who said nothing counts for nothing. nan where all say the same. Raises CaseError without the package."""
    try:
        numpy: Any = import_module("numpy")
        package: Any = import_module("krippendorff")
    except ImportError as error:
        problem = f"Krippendorff's alpha needs a package that is not installed: {error.name}"
        raise CaseError(problem, "install it: pip install 'bulkhead[evaluation]'") from error
    counts = [row for row in rows if sum(row) > 1]
    if len({side for row in counts for side in (0, 1) if row[side]}) < 2:
        return math.nan
    return float(package.alpha(value_counts=numpy.array(counts), level_of_measurement="nominal"))


def bootstrap_estimate(rows: Sequence[Row], figure: Callable[[Sequence[Row]], float]) -> Estimate | None:
    """A figure of the rows, with the percentile interval of as many rows drawn anew (Efron 1979). None without rows,
    and where the figure is not defined; draws of which it is not are left out."""
    value = figure(rows) if rows else math.nan
    if math.isnan(value):
        return None
    chance = random.Random(SEED)  # noqa: S311  # No secret: the same figures at every call.
    draws = (figure(chance.choices(rows, k=len(rows))) for _ in range(RESAMPLES))
    ordered = sorted(draw for draw in draws if not math.isnan(draw))
    last = len(ordered) - 1
    return Estimate(value, ordered[round(0.025 * last)], ordered[round(0.975 * last)])


def corrected_share(passed: float, count: float, true_positive: RateBound, true_negative: RateBound) -> Estimate | None:
    """The share of good answers behind the share `passed` of `count` verdicts, corrected for the judge's errors (Rogan
    and Gladen 1978), with the interval of Lang and Reiczigel (2014), which holds the errors of all three counts. None
    where the judge is no better than chance."""
    youden = true_positive.value + true_negative.value - 1
    if not count or youden <= 0:
        return None
    z2 = Z * Z
    value = (passed + true_negative.value - 1) / youden
    n, n_se, n_sp = count + z2, true_positive.count + 2, true_negative.count + 2
    p = (count * passed + z2 / 2) / n
    se = (true_positive.count * true_positive.value + 1) / n_se
    sp = (true_negative.count * true_negative.value + 1) / n_sp
    slope = se + sp - 1
    if slope <= 0:
        return None
    share = (p + sp - 1) / slope
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    centre = share + 2 * z2 * (share * of_se - (1 - share) * of_sp)
    spread = Z * math.sqrt(p * (1 - p) / n + share**2 * of_se + (1 - share) ** 2 * of_sp) / slope
    return Estimate(*(min(1.0, max(0.0, end)) for end in (value, centre - spread, centre + spread)))


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Difference of the shares that pass, longer answers minus shorter ones of the same label (Mantel and Haenszel's
    weights), and how often chance alone shows as much."""

    difference: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        """True where chance alone would seldom show as much."""
        return self.p_value <= 1 - CONFIDENCE


def length_bias(rows: Sequence[tuple[bool, int, bool]]) -> LengthBias | None:
    """The bias of verdicts (label, length, passed) by a permutation of the verdicts within each label. Longer is what
    is longer than the label's median. None where no label has both."""
    strata = []
    for label in (True, False):
        of_label = [(length, passed) for row_label, length, passed in rows if row_label == label]
        median = sorted(length for length, _ in of_label)[(len(of_label) - 1) // 2] if of_label else 0
        is_longer = [length > median for length, _ in of_label]
        if any(is_longer) and not all(is_longer):
            strata.append((is_longer, [passed for _, passed in of_label]))
    if not strata:
        return None
    difference = _stratified_difference(strata)
    chance = random.Random(SEED)  # noqa: S311
    extreme = 0
    for _ in range(SHUFFLES):
        shuffled = [(is_longer, chance.sample(passed, k=len(passed))) for is_longer, passed in strata]
        extreme += abs(_stratified_difference(shuffled)) >= abs(difference) - 1e-12
    return LengthBias(difference, (extreme + 1) / (SHUFFLES + 1))


def _stratified_difference(strata: Sequence[tuple[list[bool], list[bool]]]) -> float:
    total, weights = 0.0, 0.0
    for is_longer, passed in strata:
        longer = [verdict for verdict, is_long in zip(passed, is_longer, strict=True) if is_long]
        shorter = [verdict for verdict, is_long in zip(passed, is_longer, strict=True) if not is_long]
        weight = len(longer) * len(shorter) / len(passed)
        total, weights = total + weight * (fmean(longer) - fmean(shorter)), weights + weight
    return total / weights
