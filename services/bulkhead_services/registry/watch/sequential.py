"""A sequential test of a canary against the rest that may be looked at after each task, pure.

In: for one task after the other whether a fact holds of it (its answer is bad, it cost more than most), and on which
side it was. Out: two e-values, for "more often in the canary" and for "less often".

A task is drawn into the canary with a share p that is known. Where the canary makes no difference, the side of a task
has nothing to do with the fact. Whoever bets on the side, knowing the fact and all earlier tasks, at odds q instead of
p, multiplies his stake by q/p or (1-q)/(1-p): fair for any q. So the chance that a stake ever reaches 1/alpha is alpha
at most, at any number of tasks, without an approximation (Ville 1939; Robbins 1970; Ramdas, Gruenwald, Vovk and Shafer,
"Game-theoretic statistics and safe anytime-valid inference", 2023; for shares of traffic Lindon and Malek, "Anytime-
valid inference for multinomial count data", 2022).
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

ODDS_RATIOS = (1.5, 2.5, 5.0, 10.0, 30.0)
"""Sizes of a difference that the stake is spread over, evenly."""
QUANTILE_WINDOW = 1_000
"""So many of the last values say what much is."""
QUANTILE_LEAST = 8
"""Values before nothing counts as much."""


@dataclass(slots=True)
class SequentialTest:
    """One fact. bad, tasks: counts of both sides, canary first."""

    bad: list[int] = field(default_factory=lambda: [0, 0])
    tasks: list[int] = field(default_factory=lambda: [0, 0])
    _worse: list[float] = field(default_factory=lambda: [0.0] * len(ODDS_RATIOS))
    _better: list[float] = field(default_factory=lambda: [0.0] * len(ODDS_RATIOS))

    def bet_worse(self, is_bad: bool, in_canary: bool, share: float) -> None:
        """Bet that the fact is more frequent in the canary. Also fair where it is less frequent. share: of the canary,
        when the task began."""
        for place, ratio in enumerate(ODDS_RATIOS):
            self._worse[place] += _log_gain(is_bad, in_canary, share, self._rate, ratio)

    def bet_better(self, is_bad: bool, in_canary: bool, share: float) -> None:
        """Bet that it is less frequent."""
        for place, ratio in enumerate(ODDS_RATIOS):
            self._better[place] += _log_gain(is_bad, in_canary, share, self._rate, 1 / ratio)

    def count_task(self, is_bad: bool, in_canary: bool) -> None:
        """Count it, after the bets on it."""
        side = 0 if in_canary else 1
        self.tasks[side] += 1
        self.bad[side] += is_bad

    @property
    def _rate(self) -> float:
        # Of both sides together, so that no bet depends on the side of an earlier task.
        return (sum(self.bad) + 1) / (sum(self.tasks) + 4)

    @property
    def worse_stake(self) -> float:
        """Stake of who bets that the fact is more frequent in the canary; 1 at the beginning."""
        return _mean_stake(self._worse)

    @property
    def better_stake(self) -> float:
        """Stake of who bets on the contrary."""
        return _mean_stake(self._better)


def _log_gain(is_bad: bool, in_canary: bool, share: float, rate: float, ratio: float) -> float:
    """Logarithm of what a bet multiplies the stake by. ratio: of the odds of the fact in the canary to those in the
    rest, where it has this rate."""
    odds = ratio * rate / (1 - rate)
    rate_canary = odds / (1 + odds)
    in_one, in_other = (rate_canary, rate) if is_bad else (1 - rate_canary, 1 - rate)
    mixed = share * in_one + (1 - share) * in_other
    return math.log((in_one if in_canary else in_other) / mixed)


def _mean_stake(logs: list[float]) -> float:
    largest = max(logs)
    return min(1e12, math.exp(min(largest, 700)) * sum(math.exp(log - largest) for log in logs) / len(logs))


class RunningQuantile:
    """A quantile of the last values of both sides: above it something counts as much."""

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._recent: deque[float] = deque()

    def threshold_for(self, share: float) -> float | None:
        """The value above which something is much; None while too few are known. share: of the canary: with a larger
        one there are more values of its own, which must not hide it."""
        count = len(self._sorted)
        return self._sorted[int(0.9 * (1 - share) * count)] if count >= QUANTILE_LEAST else None

    def find_median(self) -> float | None:
        """The value that half of the last ones do not exceed; None while there is none."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else None

    def add_value(self, value: float) -> None:
        """Remember it, after the threshold for it was read."""
        insort(self._sorted, value)
        self._recent.append(value)
        if len(self._recent) > QUANTILE_WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
