"""The whole suite, as CI runs it: the bench gate alone, then two lanes side by side.

In: pytest arguments for both lanes (with a path among them, one plain run of that). Out: pytest's reports one after the
other, and the worst exit code. Tests on real processes mostly wait; what only computes fills the pauses, with the lower
priority.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ALONE = {"bench"}
REAL_PROCESSES = {"e2e", "faults", "integration"}
NICENESS = 10
ON_EVERY_CORE = ["-n", "logical", "--dist", "loadfile"]
"""For what only computes: nothing there is on a port or a file of another's."""
NOTHING_COLLECTED = 5


def folders() -> tuple[list[str], list[str], list[str]]:
    """Every folder of tests in exactly one lane; one that nobody named only computes."""
    found = {path.name for path in HERE.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    lanes = found & ALONE, found & REAL_PROCESSES, found - ALONE - REAL_PROCESSES
    return tuple([f"tests/{name}" for name in sorted(lane)] for lane in lanes)


def command(paths: list[str], arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "--durations=12", "--durations-min=5", *arguments, *paths]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__.splitlines()[0])
    parser.add_argument("--serial", action="store_true", help="one lane after the other")
    options, arguments = parser.parse_known_args()
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return subprocess.run(command([], arguments), check=False).returncode
    started = time.monotonic()
    alone, real, computing = folders()
    worst = [subprocess.run(command(alone, arguments), check=False).returncode]
    with tempfile.TemporaryFile("w+") as report:
        beside = None
        if not options.serial:
            beside = subprocess.Popen(
                command(computing, [*ON_EVERY_CORE, *arguments]), stdout=report, stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.nice(NICENESS),
            )  # fmt: skip
        try:
            worst.append(subprocess.run(command(real, arguments), check=False).returncode)
            if beside is None:
                worst.append(subprocess.run(command(computing, [*ON_EVERY_CORE, *arguments]), check=False).returncode)
            else:
                print(f"waiting for the other lane: {' '.join(computing)}", flush=True)
                worst.append(beside.wait())
                report.seek(0)
                print(report.read(), flush=True)
        finally:
            if beside is not None and beside.poll() is None:
                beside.terminate()
    print(f"the whole suite took {time.monotonic() - started:.0f} s", file=sys.stderr)
    return verdict(worst)


def verdict(codes: list[int]) -> int:
    """The worst of what lanes ended with; one that a signal ended (no memory, say) has proven nothing."""
    return max(0 if code == NOTHING_COLLECTED else code if code >= 0 else 128 - code for code in codes)


if __name__ == "__main__":
    sys.exit(main())
