"""Intervals of 95 % for shares, quantiles, means and paired differences, and paired tests. Pure.

Runs of one case resemble each other, so cases are what counts: many repetitions of few cases make no interval narrow.
"""

import math
import operator
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist, fmean, stdev

Z = NormalDist().inv_cdf(0.975)

ALPHA = 0.05
EXACT_CASES, SAMPLES, SEED = 14, 20_000, 20_261
"""Cases that differ up to which all their signs are tried; beyond, so many random ones, the same at every call."""

FiguresByCase = Mapping[str, Sequence[float]]
"""By case: one figure per run."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval of 95 %; None where the runs are too few to tell that end."""

    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """For programs."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if figure is None else round(figure, 6) for name, figure in ends.items()}


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A two-sided test that the second of two groups differs from the first over the same cases. higher, lower: cases
    in which the second has more, or less; equal: the others."""

    name: str
    p_value: float
    higher: int
    lower: int
    equal: int

    @property
    def is_significant(self) -> bool:
        """True where chance alone would seldom show as much."""
        return self.p_value <= ALPHA

    def as_json(self) -> dict[str, float | int | str]:
        """For programs."""
        counts = {"higher": self.higher, "lower": self.lower, "equal": self.equal}
        return {"name": self.name, "p_value": round(self.p_value, 6), **counts}


def share_estimate(runs: FiguresByCase) -> Estimate:
    """Share of runs that passed (1.0; else 0.0), with Wilson's interval (Wilson 1927) for as many independent runs as
    these are worth. Needs one run."""
    values = [value for rows in runs.values() for value in rows]
    low, high = wilson_interval(fmean(values), effective_runs(runs))
    return Estimate(fmean(values), low, high)


def wilson_interval(p: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a share `p` among `n`."""
    centre, spread = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    ends = ((centre - spread) / (1 + Z * Z / n), (centre + spread) / (1 + Z * Z / n))
    return max(0.0, ends[0]), min(1.0, ends[1])


def effective_runs(runs: FiguresByCase) -> float:
    """The number of independent runs that these are worth: between that of cases and that of runs, by the variance
    between cases (design effect, Kish 1965); where nothing varies, the number of cases.
    """
    sizes, count = [len(rows) for rows in runs.values() if rows], sum(map(len, runs.values()))
    cases, p = len(sizes), fmean(value for rows in runs.values() for value in rows)
    if cases == count or cases < 2 or p in (0.0, 1.0):
        return float(cases)
    between = sum(((fmean(rows) - p) * len(rows) / count) ** 2 for rows in runs.values() if rows) * cases / (cases - 1)
    return float(count) if between == 0 else min(max(p * (1 - p) / between, cases), count)


def quantile_estimate(values: Sequence[float], q: float) -> Estimate | None:
    """The q-quantile, with the interval between two order statistics (Conover 1999, 3.2), which supposes no
    distribution; an end that lies beyond the runs is None. None of no values."""
    ordered, n = sorted(values), len(values)
    if not n:
        return None
    value = ordered[min(n - 1, max(0, math.ceil(q * n) - 1))]
    below = binomial_cdf(n, q)
    # Largest r with P(X < r) <= 2.5 %, smallest s with P(X < s) >= 97.5 %; X of n lie at or below the true quantile.
    low = max((r for r in range(1, n + 1) if below[r - 1] <= 0.025), default=0)
    high = min((s for s in range(1, n + 1) if below[s - 1] >= 0.975), default=0)
    return Estimate(value, ordered[low - 1] if low else None, ordered[high - 1] if high else None)


def binomial_cdf(n: int, q: float) -> list[float]:
    """P(X <= k) of Binomial(n, q), for k from 0 to n."""
    total, cumulative = 0.0, []
    for k in range(n + 1):
        log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(q)
        total += math.exp(log + (n - k) * math.log1p(-q))
        cumulative.append(min(1.0, total))
    return cumulative


def mean_estimate(runs: FiguresByCase) -> Estimate | None:
    """The mean over cases, each counted by the mean of its runs, with Student's interval. None of no runs."""
    return _student_estimate([fmean(rows) for rows in runs.values() if rows])


def mean_difference(first: FiguresByCase, second: FiguresByCase) -> Estimate | None:
    """The mean over cases of second minus first, with Student's interval. None where no case has both."""
    return _student_estimate(
        [fmean(second[name]) - fmean(first[name]) for name in first if first[name] and second.get(name)]
    )


def share_difference(first: FiguresByCase, second: FiguresByCase) -> Estimate | None:
    """The difference of two shares over the same cases: Newcombe's paired interval (1998, method 10), which is honest
    also where no case differs. None where no case has both."""
    names = [name for name in first if first[name] and second.get(name)]
    if not names:
        return None
    before, after = ({name: runs[name] for name in names} for runs in (first, second))
    a, b, phi = (
        share_estimate(after),
        share_estimate(before),
        _share_correlation([fmean(after[n]) for n in names], [fmean(before[n]) for n in names]),
    )
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    below, above = (a.value - a.low, b.high - b.value), (a.high - a.value, b.value - b.low)
    down, up = (math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)) for x, y in (below, above))
    value = a.value - b.value
    return Estimate(value, max(-1.0, value - down), min(1.0, value + up))


def paired_test(first: FiguresByCase, second: FiguresByCase) -> PairedTest | None:
    """The test over the cases that both have; None where there are none.

    One run a case that passes or not: McNemar's exact test (McNemar 1947; binomial, of the cases that differ). Anything
    else: a permutation of the signs of the cases' differences of means (Fisher 1935), over all signs where few cases
    differ, else over random ones.
    """
    names = [name for name in first if first[name] and second.get(name)]
    if not names:
        return None
    differences = [fmean(second[name]) - fmean(first[name]) for name in names]
    higher, lower = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    counts = (higher, lower, len(names) - higher - lower)
    if all(len(runs[name]) == 1 and runs[name][0] in (0.0, 1.0) for runs in (first, second) for name in names):
        tail = sum(math.comb(higher + lower, k) for k in range(min(higher, lower) + 1)) / 2 ** (higher + lower)
        return PairedTest("McNemar's exact test", min(1.0, 2 * tail), *counts)
    moved = [value for value in differences if value]
    total = abs(sum(moved)) * (1 - 1e-9)
    if len(moved) <= EXACT_CASES:
        signs = product((-1.0, 1.0), repeat=len(moved))
        extreme = sum(abs(sum(map(operator.mul, moved, row))) >= total for row in signs)
        return PairedTest("permutation test, all signs", extreme / 2 ** len(moved), *counts)
    chance = random.Random(SEED)  # noqa: S311  # No secret: the same figures at every call.
    extreme = sum(
        abs(sum(value if chance.getrandbits(1) else -value for value in moved)) >= total for _ in range(SAMPLES)
    )
    return PairedTest(f"permutation test, {SAMPLES:,} random signs", (extreme + 1) / (SAMPLES + 1), *counts)


def _share_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation of the cases' shares; what chance alone may show of it is taken off (Newcombe's correction)."""
    n, a, b = len(first), fmean(first), fmean(second)
    both = math.sqrt(sum((x - a) ** 2 for x in first) * sum((y - b) ** 2 for y in second))
    together = sum((x - a) * (y - b) for x, y in zip(first, second, strict=True))
    return (max(together - 0.5, 0.0) if together > 0 else together) / both if both and n > 1 else 0.0


def _student_estimate(values: Sequence[float]) -> Estimate | None:
    """The mean and Student's interval; of a single value no interval can be told."""
    if not values:
        return None
    n, value = len(values), fmean(values)
    if n < 2:
        return Estimate(value, None, None)
    half = _student_t(n - 1) * stdev(values) / math.sqrt(n)
    return Estimate(value, value - half, value + half)


def _student_t(freedom: int) -> float:
    """The 97.5 % point of Student's distribution (Abramowitz and Stegun 26.7.5; exact for 1 and 2)."""
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]
    z, n = Z, freedom
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Cohen's kappa (1960) of two readers' words about the same cases; nan where chance alone would agree on all."""
    count = len(pairs)
    observed = sum(first == second for first, second in pairs) / count
    first_share, second_share = (fmean(pair[side] for pair in pairs) for side in (0, 1))
    expected = first_share * second_share + (1 - first_share) * (1 - second_share)
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan
