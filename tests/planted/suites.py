"""Runs a suite on a tree and says whether it saw that something is wrong.

In: a tree that is run, a suite, what of it to run. Out: a Finding. A suite that cannot even begin (an import fails, no
test is found) has caught nothing: the bug is badly planted.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .bugs import Bug
from .running import Runner

FULL = {
    "playbooks": ("-m", "not slow", "tests/unit", "tests/replay"),
    "contract": ("tests/contract",),
    "integration": ("tests/integration",),
    "e2e": ("tests/e2e",),
}
"""pytest's arguments for the whole of a suite."""
FULL_SEEDS = "1-2000"
NARROW_S = 480
"""So long a narrow command may take; ten times what the longest takes on two free cores, for the verdict is no time."""
MOST_S = {"playbooks": 600, "contract": 600, "integration": 900, "simulation": 900, "e2e": 1800}
_COUNTS = re.compile(r"(\d+) (failed|passed|errors?)\b")
_FAILED = re.compile(r"^FAILED (\S+)", re.M)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a suite made of a tree. caught: True, False, or None when it could not run. tried: seeds or tests until
    then. by: the test or the law that saw it."""

    suite: str
    caught: bool | None
    tried: int
    seconds: float
    by: str = ""

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def narrow(runner: Runner, bug: Bug) -> Finding:
    """The command that the bug's file names."""
    if bug.suite == "simulation":
        return simulation(runner, bug.seeds, NARROW_S)
    return tests(runner, bug.suite, bug.tests, NARROW_S)


def whole(runner: Runner, suite: str, seeds: str = FULL_SEEDS) -> Finding:
    """All of a suite; of the simulation these seeds."""
    if suite == "simulation":
        return simulation(runner, seeds, MOST_S[suite])
    return tests(runner, suite, FULL[suite], MOST_S[suite])


def tests(runner: Runner, suite: str, arguments: Sequence[str], most_s: float) -> Finding:
    """pytest until the first failure."""
    lean = [] if suite == "contract" else ["-p", "no:schemathesis", "-p", "no:xdist"]  # A second of every start.
    # That a test fails is asked, not how: rewriting its asserts costs as much as many tests do.
    command = ["-x", "-q", "-p", "no:cacheprovider", "--timeout", "180", "--assert", "plain", "--tb", "line",
               "-p", "tests.planted.hurry", *lean, *arguments]  # fmt: skip
    code, out, seconds = runner.run("pytest", command, most_s)
    told = out.strip().splitlines()[-1:] or [""]
    counts: dict[str, int] = {}
    for number, what in _COUNTS.findall(told[0]):
        counts[what.rstrip("s") if what.startswith("error") else what] = int(number)
    tried = sum(counts.values())
    if code == 0 and tried:
        return Finding(suite, False, tried, seconds)
    failed = _FAILED.search(out)
    if code == 1 and failed and "error" not in counts:
        return Finding(suite, True, tried, seconds, failed[1])
    return Finding(suite, None, tried, seconds, f"could not run (exit {code}): {_last(out)}")


def simulation(runner: Runner, seeds: str, most_s: float) -> Finding:
    """Seeds in order until the first that breaks a law."""
    command = ["--seeds", seeds, "--json", "--no-shrink", "--jobs", "1"]
    code, out, seconds = runner.run("tests.simulation", command, most_s)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for number, row in enumerate(rows, 1):
        if row["complaints"]:
            return Finding("simulation", True, number, seconds, f"seed {row['seed']}: {row['complaints'][0]}"[:160])
    if code == 0 and rows:
        return Finding("simulation", False, len(rows), seconds)
    return Finding("simulation", None, len(rows), seconds, f"could not run (exit {code}): {_last(out)}")


def _last(out: str) -> str:
    lines = [line for line in out.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing")[:200]
