"""The sets of runs, each a register that generators fill.

DAILY: what agents do alone and in squads, and loops in it; its author knew the requirements and not the detectors.
TWINS: honest runs paired with loops that look like them. Loops of families that no detector is made for (counters,
fresh tokens, empty pages, fresh agents) are not part of them.
"""

from tests.health_set.runs.coined_words import Parallel
from tests.health_set.runs.traces import Register

DAILY = Register("daily")
TWINS = Register("twins", Parallel)
