"""The sets of runs, each a register that generators fill. Nobody who made a set had read the detectors.

FIRST was made after the thresholds were fixed; detectors were repaired for what it showed. SECOND is of other
generators, and was scored once, after those repairs. THIRD was written before it was scored, after sessions of other
systems and what is reported of them; its author knew what docs/analyze.md tells of the rules, and no more. FOURTH pairs
honest runs with loops that look like them; its author knew besides which families of THIRD the detectors had failed on.
FIFTH is of what squads do at work and of loops as trackers tell of them; its author knew docs/analyze.md, and had seen
in docs/detectors.md what was repaired for the others. SIXTH is of other deployments again and of reports in public
trackers; its author knew docs/analyze.md, neither the detectors nor the other sets, and sealed it before it was scored.
SEVENTH is of what most squads do, in the proportions in which they do it, drawn from public trackers; its author knew
docs/analyze.md and the head of docs/detectors.md, not the detectors, and sealed it before it was scored.
"""

from tests.health_set.traces import Register

FIRST = Register("first")
SECOND = Register("second")
THIRD = Register("third")
FOURTH = Register("fourth")
FIFTH = Register("fifth")
SIXTH = Register("sixth")
SEVENTH = Register("seventh")
