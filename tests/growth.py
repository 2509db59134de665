"""Growth of work with its input, for what one client sends and all clients of a replica wait for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FEW, FACTOR = 1_500, 8
MOST_GROWTH = 30.0
"""Between what is in proportion (8) and what grows with the square (64): neither load nor a slow machine makes one of
the other."""


def growth_of(build: Callable[[int], T], work: Callable[[T], object]) -> float:
    """The processor's time for `FACTOR` times as much, in units of that for `FEW`. build: the input of a size."""

    def least_s(size: int) -> float:
        times = []
        for _ in range(3):
            value = build(size)
            began_s = time.process_time()
            work(value)
            times.append(time.process_time() - began_s)
        return min(times)

    return least_s(FEW * FACTOR) / least_s(FEW)
