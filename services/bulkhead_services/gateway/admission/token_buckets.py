"""Token buckets, pure: how soon somebody may begin one more task.

In: who asks, the time, what he may. Out: milliseconds to wait, 0 for now. Kept as one number per key, the time at which
the bucket is full again (the generic cell rate algorithm, ITU-T I.371): cheap, exact, and without a timer.

Each replica has its own: what a tenant may is divided by the number of replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict

MAX_KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per minute in the long run, so many at once."""

    per_minute: float
    burst: float


class Buckets:
    """The buckets of one replica, bounded: the longest unused are forgotten, which is as if they were full."""

    def __init__(self) -> None:
        self._full_at = BoundedDict[tuple[str, ...], float](MAX_KEYS)

    def take(self, wants: Sequence[tuple[tuple[str, ...], Rate]], now_ms: float) -> tuple[float, int]:
        """One token out of every bucket, or out of none.

        Returns how long to wait in ms (0: taken) and the index of the bucket for which. Time may stand still or come in
        another order than it went: an earlier `now_ms` never makes a bucket fuller.
        """
        full_at = []
        for index, (key, rate) in enumerate(wants):
            every_ms = 60_000 / rate.per_minute
            full = max(self._full_at.get(key, now_ms), now_ms)
            wait_ms = full + every_ms - max(1.0, rate.burst) * every_ms - now_ms
            # Sums of many fractions: a bucket that is empty by a rounding error is not empty.
            if wait_ms > every_ms * 1e-6:
                return wait_ms, index
            full_at.append((key, full + every_ms))
        for key, full in full_at:
            self._full_at[key] = full
        return 0.0, -1
