"""Runs a suite on a tree and says whether it saw that something is wrong.

In: a tree, a suite, what of it to run. Out: a Finding. A suite that cannot even begin (an import fails, no test is
found) has caught nothing: the bug is badly planted.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import trees
from .bugs import Bug

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
_RUNNING: "set[subprocess.Popen[str]]" = set()
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


def narrow(tree: Path, bug: Bug) -> Finding:
    """The command that the bug's file names."""
    if bug.suite == "simulation":
        return simulation(tree, bug.seeds, NARROW_S)
    return tests(tree, bug.suite, bug.tests, NARROW_S)


def whole(tree: Path, suite: str, seeds: str = FULL_SEEDS) -> Finding:
    """All of a suite; of the simulation these seeds."""
    if suite == "simulation":
        return simulation(tree, seeds, MOST_S[suite])
    return tests(tree, suite, FULL[suite], MOST_S[suite])


def tests(tree: Path, suite: str, arguments: Sequence[str], most_s: float) -> Finding:
    """pytest until the first failure."""
    lean = [] if suite == "contract" else ["-p", "no:schemathesis", "-p", "no:xdist"]  # A second of every start.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", "60",
               "-p", "tests.planted.hurry", *lean, *arguments]  # fmt: skip
    code, out, seconds = _run(tree, command, most_s)
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


def simulation(tree: Path, seeds: str, most_s: float) -> Finding:
    """Seeds in order until the first that breaks a law."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", seeds, "--json", "--no-shrink", "--jobs", "1"]
    code, out, seconds = _run(tree, command, most_s)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for number, row in enumerate(rows, 1):
        if row["complaints"]:
            return Finding("simulation", True, number, seconds, f"seed {row['seed']}: {row['complaints'][0]}"[:160])
    if code == 0 and rows:
        return Finding("simulation", False, len(rows), seconds)
    return Finding("simulation", None, len(rows), seconds, f"could not run (exit {code}): {_last(out)}")


def _run(tree: Path, command: Sequence[str], most_s: float) -> tuple[int, str, float]:
    """In a session of its own, so that nothing of it is left when its time is up or this program is stopped."""
    began = time.monotonic()
    with subprocess.Popen(command, cwd=tree, env=trees.environment(tree), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as process:  # fmt: skip
        _RUNNING.add(process)
        try:
            out, _ = process.communicate(timeout=most_s)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code, out = -1, f"not done after {most_s:.0f} s"
            _end(process)
        finally:
            _RUNNING.discard(process)
    return code, out, time.monotonic() - began


def stop() -> None:
    """End everything that still runs: what this program starts outlives it otherwise."""
    for process in list(_RUNNING):
        _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    # Ask first: pytest ends the processes that it started, which have sessions of their own.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _last(out: str) -> str:
    lines = [line for line in out.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing")[:200]
