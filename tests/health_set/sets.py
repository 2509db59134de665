"""The sets of runs, each a register that generators fill. Nobody who made a set had read the detectors.

FIRST was made after the thresholds were fixed; detectors were repaired for what it showed. SECOND is of other
generators, and was scored once, after those repairs.
"""

from tests.health_set.traces import Register

FIRST = Register("first")
SECOND = Register("second")
