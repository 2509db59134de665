"""The suite by day. `python -m tests` is `make test`; `python -m tests --rest` is what `make test-all` adds to it.

In: pytest arguments for all lanes (with a path among them, one plain run of that). Out: the reports of the lanes, tests
that took long or were left out, and the worst exit code. What is marked `nightly` runs with `--nightly`, and with that
alone.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
ALONE = {"bench"}
SMOKE = {"smoke"}
WHOLE_MESHES = {"e2e", "faults"}
SINGLE_SERVICES = {"integration"}
NICENESS = 10
"""Of what only computes: it fills the pauses of what waits for real processes."""
ON_EVERY_CORE = ("-n", "logical", "--dist", "loadfile")
"""For what only computes: nothing there is on a port or a file of another's."""
STATIC_CHECKS = ["make", "-s", "check"]
FAILED, NOTHING_COLLECTED = 1, 5


def computing_folders() -> list[str]:
    """Every folder of tests that starts no mesh and no service of its own."""
    others = ALONE | SMOKE | WHOLE_MESHES | SINGLE_SERVICES
    return [name for name in _folders() if name not in others]


def _folders(of: set[str] | None = None) -> list[str]:
    names = sorted(path.name for path in HERE.iterdir() if path.is_dir() and any(path.rglob("test_*.py")))
    return [name for name in names if of is None or name in of]


@dataclass
class Lane:
    """Folders that one pytest runs; None: the static checks. niceness: the higher, the lower its priority."""

    name: str
    folders: list[str] | None
    arguments: Sequence[str] = ()
    niceness: int = 0
    notes: dict[str, dict[str, float]] = field(default_factory=dict)
    """What its tests left for us (tests/conftest.py): `failed`, `long` and `left_out`, each by name."""

    def command(self) -> list[str]:
        """What it runs, as one process."""
        if self.folders is None:
            return STATIC_CHECKS
        paths = [f"tests/{name}" for name in self.folders]
        return [sys.executable, "-m", "pytest", "-q", "--durations=12", "--durations-min=5", *self.arguments, *paths]


def fast_lanes(arguments: Sequence[str]) -> list[Lane]:
    """Of `make test`. The first is shown as it runs."""
    quick = ["-m", "not slow and not nightly", *arguments]
    return [
        Lane("what computes in under a second", computing_folders(), [*ON_EVERY_CORE, *quick]),
        Lane("a mesh of processes", _folders(SMOKE), ["-m", "not nightly", *arguments]),
        Lane("style, types, import rules, rendered files", None, niceness=NICENESS),
    ]


def other_lanes(arguments: Sequence[str], marks: str, computing_marks: str) -> list[Lane]:
    """Of the rest, but for the bench."""
    by_mark = ["-m", marks, *arguments]
    return [
        Lane("whole meshes", _folders(WHOLE_MESHES), by_mark),
        Lane("single services", _folders(SINGLE_SERVICES), by_mark),
        Lane(
            "what computes for longer",
            computing_folders(),
            [*ON_EVERY_CORE, "-m", computing_marks, *arguments],
            niceness=NICENESS,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__.splitlines()[0])
    parser.add_argument("--rest", action="store_true", help="what `make test` leaves to the rest of the day")
    parser.add_argument("--nightly", action="store_true", help="what is marked `nightly`, alone")
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
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    if options.nightly:
        groups = [other_lanes(arguments, "nightly", "nightly")]
    elif options.rest:
        bench = Lane("the bench gate", _folders(ALONE), ["-m", "not nightly", *arguments])
        groups = [[bench], other_lanes(arguments, "not nightly", "slow and not nightly")]
    else:
        groups = [fast_lanes(arguments)]
    groups = [[lane for lane in group if lane.folders != []] for group in groups]
    started = time.monotonic()
    codes = [code for group in groups if group for code in run(group)]
    lanes = [lane for group in groups for lane in group]
    worst = verdict(codes)
    failed = [test for lane in lanes for test in lane.notes.get("failed", ())]
    if worst == FAILED and 0 < len(failed) <= options.again:
        worst = once_more(failed, arguments)
    tell(lanes)
    print(f"{'passed' if worst == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    return worst


def run(lanes: Sequence[Lane]) -> Iterator[int]:
    """Exit codes of lanes that run side by side: the report of the first as it comes, others as they end."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-tests-") as folder, contextlib.ExitStack() as stack:
        began = time.monotonic()
        reports = [None, *(stack.enter_context(tempfile.TemporaryFile("w+")) for _ in lanes[1:])]
        processes = [_begin(lane, Path(folder), report) for lane, report in zip(lanes, reports, strict=True)]
        stack.callback(_stop, processes)
        waiting = list(zip(lanes, reports, processes, strict=True))
        # The one that is shown ends first in the report, so that no other's is printed into it.
        for lane, report, process in waiting:
            code = process.wait()
            if report is not None:
                report.seek(0)
                print(report.read(), end="", flush=True)
            yield _ended(lane, Path(folder), code, began)


def _begin(lane: Lane, folder: Path, report: IO[str] | None) -> "subprocess.Popen[bytes]":
    print(f"began: {lane.name}", flush=True)
    notes = folder / lane.name.replace(" ", "-")
    return subprocess.Popen(
        lane.command(),
        stdout=report,
        stderr=None if report is None else subprocess.STDOUT,
        env=os.environ | {"BULKHEAD_TEST_NOTES": str(notes)},
        preexec_fn=lambda: os.nice(lane.niceness),
    )


def _ended(lane: Lane, folder: Path, code: int, began: float) -> int:
    notes = folder / lane.name.replace(" ", "-")
    if notes.exists():
        lane.notes = json.loads(notes.read_text())
    outcome = "passed" if code in (0, NOTHING_COLLECTED) else f"FAILED (exit {code})"
    print(f"{outcome} after {time.monotonic() - began:.0f} s: {lane.name}", flush=True)
    return code


def _stop(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End what still runs, when the run is cut off."""
    for process in processes:
        if process.poll() is None:
            process.terminate()


def tell(lanes: Sequence[Lane]) -> None:
    """Tests that took long without the mark `slow`, and in one line what was left out."""
    long: dict[str, float] = {}
    left_out: Counter[str] = Counter()
    for lane in lanes:
        if lane.folders != _folders(SMOKE):  # Its mesh is what takes its time.
            long |= lane.notes.get("long", {})
        left_out.update({name: int(count) for name, count in lane.notes.get("left_out", {}).items()})
    for test, seconds in sorted(long.items(), key=lambda item: -item[1]):
        print(f"took {seconds:.1f} s without the mark `slow`: {test}")
    if left_out:
        from tests.needs import explain

        print(explain(left_out))


def once_more(failed: Sequence[str], arguments: Sequence[str]) -> int:
    """Alone, a few that failed: on two cores that all share, a deadline is missed now and then; a bug comes again."""
    print(f"failed, and run again alone: {' '.join(failed)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments, *failed], check=False).returncode
    for test in failed if code == 0 else ():
        print(f"UNSTABLE {test}: failed beside the others (above), passed alone; find out why", flush=True)
    return code


def verdict(codes: Sequence[int]) -> int:
    """The worst of what lanes ended with; one that a signal ended (no memory, say) has proven nothing."""
    return max((0 if code == NOTHING_COLLECTED else code if code >= 0 else 128 - code for code in codes), default=0)


if __name__ == "__main__":
    sys.exit(main())
