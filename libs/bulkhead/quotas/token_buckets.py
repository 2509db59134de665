"""Token buckets, pure (the generic cell rate algorithm, ITU-T I.371).

In: a key, its rate, the time. Out: milliseconds to wait, 0 for none. Each key needs one number, the time at which its
bucket is full again: cheap, exact, and without a timer. Each replica has its own buckets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict

MAX_KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per minute in the long run, and at once."""

    per_minute: float
    burst: float


class TokenBuckets:
    """The buckets of one replica, bounded: the longest unused are forgotten, which equals full ones."""

    def __init__(self) -> None:
        self._full_at = BoundedDict[tuple[str, ...], float](MAX_KEYS)

    def take_tokens(
        self, wants: Sequence[tuple[tuple[str, ...], Rate]], now_ms: float, tokens: int = 1
    ) -> tuple[float, int]:
        """Take so many tokens out of every bucket, or out of none.

        Returns the wait in ms (0: taken) and the index of the bucket that causes it. An earlier `now_ms` than before
        never makes a bucket fuller.
        """
        full_at = []
        for index, (key, rate) in enumerate(wants):
            every_ms = 60_000 / rate.per_minute
            takes_ms = every_ms * tokens
            full = max(self._full_at.get(key, now_ms), now_ms)
            wait_ms = full + takes_ms - max(1.0, rate.burst) * every_ms - now_ms
            # Sums of many fractions: a bucket that is empty by a rounding error is not empty.
            if wait_ms > every_ms * 1e-6:
                return wait_ms, index
            full_at.append((key, full + takes_ms))
        for key, full in full_at:
            self._full_at[key] = full
        return 0.0, -1
