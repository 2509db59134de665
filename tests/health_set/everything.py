"""All generators, so that the sets are complete. In: nothing. Out: `SETS`, filled, and the checksum of one."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from tests.health_set.runs import (  # noqa: F401  (imported for what they register)
    honest_batches,
    honest_code,
    honest_squads,
    honest_twins,
    honest_waiting,
    loops_alone,
    loops_squads,
    loops_twins,
)
from tests.health_set.sets import DAILY, TWINS

SETS = (DAILY, TWINS)


def checksum(runs: Iterable[Mapping[str, object]]) -> str:
    """SHA-256 over all runs as canonical JSON: the set itself is too large to be kept."""
    whole = hashlib.sha256()
    for run in runs:
        whole.update(json.dumps(run, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    return whole.hexdigest()
