"""All generators, so that the sets are complete. In: nothing. Out: `SETS`, filled, and the checksum of one."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from tests.health_set import (  # noqa: F401  (imported for what they register)
    fifth_loops,
    fifth_machines,
    fifth_offices,
    fourth_honest,
    fourth_loops,
    honest_batches,
    honest_code,
    honest_squads,
    honest_waiting,
    loops_alone,
    loops_squads,
    second_odds,
    second_squads,
    second_worlds,
    seventh_coding,
    seventh_loops,
    seventh_offices,
    seventh_ops,
    seventh_rings,
    seventh_stuck,
    sixth_loops,
    sixth_machines,
    sixth_offices,
    sixth_rings,
    third_code,
    third_ops,
    third_squads,
)
from tests.health_set.sets import FIFTH, FIRST, FOURTH, SECOND, SEVENTH, SIXTH, THIRD

SETS = (FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH)


def checksum(runs: Iterable[Mapping[str, object]]) -> str:
    """SHA-256 over all runs as canonical JSON: the set itself is too large to be kept."""
    whole = hashlib.sha256()
    for run in runs:
        whole.update(json.dumps(run, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    return whole.hexdigest()
