"""Runs a suite on a tree and says whether it saw that something is wrong.

In: a tree that is run, a suite, what of it to run. Out: a Finding. A suite that cannot even begin (an import fails, no
test is found) has caught nothing: the bug is badly planted. Nor has one whose time was up: that is known only beside
the same tests without the bug (see trials.py).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .bugs import Bug
from .running import Ran, Runner

FULL = {
    "playbooks": ("-m", "not slow", "tests/unit", "tests/replay"),
    "contract": ("tests/contract",),
    "integration": ("tests/integration",),
    "e2e": ("tests/e2e",),
}
"""pytest's arguments for the whole of a suite."""
FULL_SEEDS = "1-2000"
_COUNTS = re.compile(r"(\d+) (failed|passed|errors?)\b")
_FAILED = re.compile(r"^FAILED (\S+)", re.M)
_LATE = re.compile(r"Timeout \(?>[\d.]+s|\+ Timeout \+")
"""What pytest-timeout says of a test that it ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for one test and for a command: against hangs alone, the verdict is no time. Ten times what the longest
    takes on two free cores; where the machine is slower than that, trials.py asks with more."""

    test_s: int = 240
    command_s: int = 600

    def longer(self) -> "Limits":
        """For a machine that is slower still."""
        return Limits(self.test_s * 4, self.command_s * 4)


WHOLE = Limits(240, 3_600)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a suite made of a tree. caught: True, False, or None when it could not run. tried: seeds or tests until
    then. by: the test or the law that saw it. late: a limit ended it, so that nothing is known."""

    suite: str
    caught: bool | None
    tried: int
    seconds: float
    by: str = ""
    late: bool = False

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"seconds": round(self.seconds, 2)}


def narrow(runner: Runner, bug: Bug, limits: Limits) -> Finding:
    """The command that the bug's file names."""
    if bug.suite == "simulation":
        return simulation(runner, bug.seeds, limits)
    return tests(runner, bug.suite, bug.tests, limits)


def whole(runner: Runner, suite: str, seeds: str = FULL_SEEDS) -> Finding:
    """All of a suite; of the simulation these seeds."""
    if suite == "simulation":
        return simulation(runner, seeds, WHOLE)
    return tests(runner, suite, FULL[suite], WHOLE)


def tests(runner: Runner, suite: str, arguments: Sequence[str], limits: Limits) -> Finding:
    """pytest until the first failure."""
    lean = [] if suite == "contract" else ["-p", "no:schemathesis", "-p", "no:xdist"]  # A second of every start.
    # That a test fails is asked, not how: rewriting its asserts costs as much as many tests do.
    # The first of the arguments may lie within the others: it is to be the first that runs.
    command = [
        "-x",
        "-q",
        "--keep-duplicates",
        "-p",
        "no:cacheprovider",
        "--timeout",
        str(limits.test_s),
        "--assert",
        "plain",
        "--tb",
        "line",
        "-p",
        "tests.planted.hurry",
        # What catches a bug does so by day, on each change.
        *(["-m", "not nightly"] if "-m" not in arguments else []),
        *lean,
        *arguments,
    ]
    ran = runner.run("pytest", command, limits.command_s)
    told = ran.out.strip().splitlines()[-1:] or [""]
    counts: dict[str, int] = {}
    for number, what in _COUNTS.findall(told[0]):
        counts[what.rstrip("s") if what.startswith("error") else what] = int(number)
    tried = sum(counts.values())
    failed = _FAILED.search(ran.out)
    if not ran.in_time or _LATE.search(ran.out):
        where = f" in {failed[1]}" if failed else ""
        return Finding(suite, None, tried, ran.seconds, f"was not done in time{where}", late=True)
    if ran.code == 0 and tried:
        return Finding(suite, False, tried, ran.seconds)
    if ran.code == 1 and failed and "error" not in counts:
        return Finding(suite, True, tried, ran.seconds, failed[1])
    return Finding(suite, None, tried, ran.seconds, _broken(ran))


def simulation(runner: Runner, seeds: str, limits: Limits) -> Finding:
    """Seeds in order until the first that breaks a law."""
    command = ["--seeds", seeds, "--json", "--no-shrink", "--jobs", "1"]
    ran = runner.run("tests.simulation", command, limits.command_s)
    rows = list(_rows(ran.out))
    for number, row in enumerate(rows, 1):
        if row["complaints"]:
            by = f"seed {row['seed']}: {row['complaints'][0]}"[:160]
            return Finding("simulation", True, number, ran.seconds, by)
    if not ran.in_time:
        return Finding(
            "simulation", None, len(rows), ran.seconds, f"was not done in time, after {len(rows)} seeds", late=True
        )
    if ran.code == 0 and rows:
        return Finding("simulation", False, len(rows), ran.seconds)
    return Finding("simulation", None, len(rows), ran.seconds, _broken(ran))


def _rows(out: str) -> Any:
    for line in out.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                return  # It was ended as it wrote.


def _broken(ran: Ran) -> str:
    lines = [line for line in ran.out.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E  "))]
    return f"could not run (exit {ran.code}): {([*errors, *lines[-1:]] or ['it said nothing'])[0][:300]}"
