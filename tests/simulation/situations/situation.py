"""What a situation is: something that comes up in a part of the runs, beside the tasks that every run has.

In: a seed's draw and its scenario. Out: the scenario with more in it; what is done while it runs; laws of its own.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..scenario import Act, Scenario

Add = Callable[[random.Random, Scenario], Scenario]
Do = Callable[[Any, Act], Awaitable[None]]
"""With the run (world.World) and the act; called at the act's time."""
Complain = Callable[[Any], Iterator[str]]
"""With the record (world.Record); complaints, one line each. Checked after every run, whether it had this situation."""


@dataclass(frozen=True, slots=True)
class Situation:
    """share: of the runs that have it. Faults of a new kind go to chaos.RATES, at its end."""

    name: str
    share: float
    add: Add
    do: Do | None = None
    complain: Complain | None = None
