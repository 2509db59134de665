"""The sets of runs. FIRST was made after the thresholds were fixed, by somebody who had not read the detectors."""

from tests.health_set.traces import Register

FIRST = Register("first")
