"""The whole suite, as CI runs it: the bench gate alone, then three lanes side by side.

In: pytest arguments for all lanes (with a path among them, one plain run of that). Without a `-m` of their own, what is
marked `nightly` is left out. Out: their reports one after the other, and the worst exit code. Tests on real processes
mostly wait: whole meshes are one lane, single services another. What only computes fills the pauses, with the lower
priority.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
ALONE = {"bench"}
WHOLE_MESHES = {"e2e", "faults"}
SINGLE_SERVICES = {"integration"}
NICENESS = 10
ON_EVERY_CORE = ["-n", "logical", "--dist", "loadfile"]
"""For what only computes: nothing there is on a port or a file of another's."""
BY_DAY = ["-m", "not nightly"]
FAILED, NOTHING_COLLECTED = 1, 5


def folders() -> tuple[list[str], ...]:
    """Every folder of tests in exactly one lane: alone, whole meshes, single services; others only compute."""
    found = {path.name for path in HERE.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    named = (found & ALONE, found & WHOLE_MESHES, found & SINGLE_SERVICES)
    return tuple([f"tests/{name}" for name in sorted(lane)] for lane in (*named, found.difference(*named)))


def command(paths: list[str], arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "--durations=12", "--durations-min=5", *arguments, *paths]


class Lane:
    """Folders that are run together, and what failed in them."""

    def __init__(self, paths: list[str], arguments: list[str], notes: Path) -> None:
        self.paths, self._arguments, self._notes = paths, arguments, notes
        self.environ = os.environ | {"BULKHEAD_FAILURES": str(notes)}

    def run(self) -> int:
        """Its exit code."""
        return subprocess.run(command(self.paths, self._arguments), check=False, env=self.environ).returncode

    def beside(self, report: IO[str], niceness: int) -> "Beside":
        """Begin it. niceness: added to this process' own; the higher, the lower its priority."""
        process = subprocess.Popen(
            command(self.paths, self._arguments),
            stdout=report,
            stderr=subprocess.STDOUT,
            env=self.environ,
            preexec_fn=lambda: os.nice(niceness),
        )
        return Beside(self, process, report)

    def failed(self) -> list[str]:
        """The tests that failed; none when the run did not get to its end."""
        return self._notes.read_text().split("\n") if self._notes.exists() and self._notes.stat().st_size else []


@dataclass(frozen=True)
class Beside:
    """A lane that runs beside the one whose report is shown as it comes."""

    lane: Lane
    process: "subprocess.Popen[bytes]"
    report: IO[str]

    def wait(self) -> int:
        """Its exit code, once its report is shown."""
        print(f"waiting for the lane {' '.join(self.lane.paths)}", flush=True)
        code = self.process.wait()
        self.report.seek(0)
        print(self.report.read(), flush=True)
        return code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__.splitlines()[0])
    parser.add_argument("--serial", action="store_true", help="one lane after the other")
    parser.add_argument(
        "--again",
        type=int,
        default=0,
        metavar="N",
        help="when no more than N tests failed, run these alone; those that pass then are told as "
        "UNSTABLE and fail nothing (default 0: what failed has failed)",
    )
    options, arguments = parser.parse_known_args()
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return subprocess.run(command([], arguments), check=False).returncode
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-tests-"))
        more: tuple[list[str], ...] = ([], [], [], ON_EVERY_CORE)
        chosen = arguments if any(one.startswith("-m") for one in arguments) else [*BY_DAY, *arguments]
        lanes = [
            Lane(paths, [*extra, *chosen], Path(folder) / str(number))
            for number, (paths, extra) in enumerate(zip(folders(), more, strict=True))
        ]
        alone, meshes, *others = lanes
        codes = [alone.run()]
        if options.serial:
            codes += [lane.run() for lane in (meshes, *others)]
        else:
            reports = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in others]
            began = zip(others, reports, (0, NICENESS), strict=True)
            beside = [lane.beside(report, niceness) for lane, report, niceness in began]
            stack.callback(stop, beside)
            codes += [meshes.run(), *(one.wait() for one in beside)]
        worst = verdict(codes)
        failed = [test for lane in lanes for test in lane.failed()]
        if worst == FAILED and 0 < len(failed) <= options.again:
            worst = once_more(failed, arguments)
    print(f"the whole suite took {time.monotonic() - started:.0f} s", file=sys.stderr)
    return worst


def stop(beside: "list[Beside]") -> None:
    """End what still runs, when the run is cut off."""
    for one in beside:
        if one.process.poll() is None:
            one.process.terminate()


def once_more(failed: list[str], arguments: list[str]) -> int:
    """Alone, a few that failed: on two cores that all share, a deadline is missed now and then; a bug comes again."""
    print(f"failed, and run again alone: {' '.join(failed)}", flush=True)
    code = subprocess.run(command(failed, arguments), check=False).returncode
    for test in failed if code == 0 else ():
        print(f"UNSTABLE {test}: failed beside the others (above), passed alone; find out why", flush=True)
    return code


def verdict(codes: list[int]) -> int:
    """The worst of what lanes ended with; one that a signal ended (no memory, say) has proven nothing."""
    return max(0 if code == NOTHING_COLLECTED else code if code >= 0 else 128 - code for code in codes)


if __name__ == "__main__":
    sys.exit(main())
