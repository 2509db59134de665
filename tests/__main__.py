"""The suite by day. `python -m tests` is `make test`; `python -m tests --rest` is what `make test-all` adds to it.

In: pytest arguments for all lanes (with a path among them, one plain run of that). Out: a line for each lane and the
reports, tests that took long or were left out, and the worst exit code. What is marked `nightly` runs with `--nightly`,
and with that alone.
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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ALONE = "bench"
SMOKE = "smoke"
REAL_PROCESSES = ("faults", "e2e", "integration")
SIDE_BY_SIDE = 4
"""Lanes at once. What works with real processes mostly waits; what only computes has a lower priority and fills the
pauses."""
NICENESS = 10
ON_EVERY_CORE = ("-n", "logical", "--dist", "loadfile")
"""For what only computes: nothing there is on a port or a file of another's."""
STATIC_CHECKS = ("make", "-s", "check")
FAILED, NOTHING_COLLECTED = 1, 5


@dataclass
class Lane:
    """Paths that one pytest runs; none: the static checks. niceness: the higher, the lower its priority. is_shown:
    whether its report is printed as it comes."""

    name: str
    paths: Sequence[str] = ()
    arguments: Sequence[str] = ()
    niceness: int = 0
    is_shown: bool = False
    notes: dict[str, dict[str, float]] = field(default_factory=dict)
    """What its tests left for us (tests/conftest.py): `failed`, `long` and `left_out`, each by name."""
    process: "subprocess.Popen[bytes] | None" = None

    def command(self) -> Sequence[str]:
        """What it runs, as one process."""
        if not self.paths:
            return STATIC_CHECKS
        pytest = [sys.executable, "-m", "pytest", "-q", "--durations=12", "--durations-min=5"]
        return [*pytest, *self.arguments, *self.paths]

    def run(self, folder: Path) -> int:
        """Its exit code, once its line and its report are printed. folder: for its notes and its report."""
        began = time.monotonic()
        print(f"began: {self.name}", flush=True)
        notes, report = folder / f"{id(self)}.json", folder / f"{id(self)}.txt"
        with report.open("w") as output:
            self.process = subprocess.Popen(
                self.command(),
                stdout=None if self.is_shown else output,
                stderr=None if self.is_shown else subprocess.STDOUT,
                env=os.environ | {"BULKHEAD_TEST_NOTES": str(notes)},
                preexec_fn=lambda: os.nice(self.niceness),
            )
            code = self.process.wait()
        if notes.exists():
            self.notes = json.loads(notes.read_text())
        outcome = "passed" if code in (0, NOTHING_COLLECTED) else f"FAILED (exit {code})"
        # In one piece: others print beside it.
        print(f"{report.read_text()}{outcome} after {time.monotonic() - began:.0f} s: {self.name}", flush=True)
        return code


def fast_lanes(arguments: Sequence[str]) -> list[Lane]:
    """Of `make test`."""
    quick = ["-m", "not slow and not nightly", *arguments]
    return [
        Lane("what computes in under a second", computing_folders(), [*ON_EVERY_CORE, *quick], is_shown=True),
        Lane("a mesh of processes", _folders(SMOKE), ["-m", "not nightly", *arguments]),
        Lane("style, types, import rules, rendered files", niceness=NICENESS),
    ]


def other_lanes(arguments: Sequence[str], marks: str, computing_marks: str) -> list[Lane]:
    """Of the rest, but for the bench. A folder of real processes is a lane, so that its meshes end with it."""
    by_mark = ["-m", marks, *arguments]
    computing = [*ON_EVERY_CORE, "-m", computing_marks, *arguments]
    return [
        Lane("what computes for longer", computing_folders(), computing, NICENESS),
        *(Lane(name, paths, by_mark) for folder in REAL_PROCESSES for name, paths in _parts(HERE / folder)),
    ]


def computing_folders() -> list[str]:
    """Every folder of tests that starts no mesh and no service of its own."""
    others = (ALONE, SMOKE, *REAL_PROCESSES)
    return _folders(*(path.name for path in HERE.iterdir() if path.name not in others))


def _folders(*names: str) -> list[str]:
    """Those of these names that have tests."""
    return [f"tests/{name}" for name in sorted(names) if any((HERE / name).rglob("test_*.py"))]


def _parts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and paths: each folder in it that has tests; the files that lie loose in it together."""
    if not folder.exists():
        return
    for inner in sorted(path for path in folder.glob("*/") if any(path.rglob("test_*.py")) and path.name != "external"):
        yield f"{folder.name}/{inner.name}", [str(inner.relative_to(HERE.parent))]
    if loose := sorted(folder.glob("test_*.py")):
        yield folder.name, [str(file.relative_to(HERE.parent)) for file in loose]


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
    # A lane without arguments is that of the checks; one whose folder has no tests is none.
    groups = [[lane for lane in group if lane.paths or not lane.arguments] for group in groups]
    started = time.monotonic()
    worst = verdict(code for group in groups for code in run(group))
    lanes = [lane for group in groups for lane in group]
    failed = [test for lane in lanes for test in lane.notes.get("failed", ())]
    if worst == FAILED and 0 < len(failed) <= options.again:
        worst = once_more(failed, arguments)
    tell(lanes)
    print(f"{'passed' if worst == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    return worst


def run(lanes: Sequence[Lane]) -> Iterator[int]:
    """Exit codes of lanes, a few at once, as they end."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-tests-") as folder, contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(SIDE_BY_SIDE))
        stack.callback(_stop, lanes, pool)
        for ended in as_completed([pool.submit(lane.run, Path(folder)) for lane in lanes]):
            yield ended.result()


def _stop(lanes: Sequence[Lane], pool: ThreadPoolExecutor) -> None:
    """End what still runs, when the run is cut off."""
    pool.shutdown(wait=False, cancel_futures=True)
    for lane in lanes:
        if lane.process is not None and lane.process.poll() is None:
            lane.process.terminate()


def tell(lanes: Sequence[Lane]) -> None:
    """Tests that took long without the mark `slow`, and in one line what was left out."""
    left_out: Counter[str] = Counter()
    long: dict[str, float] = {}
    for lane in lanes:
        left_out.update({name: int(count) for name, count in lane.notes.get("left_out", {}).items()})
        if ON_EVERY_CORE[0] in lane.arguments:  # Elsewhere it is known that a mesh takes its time.
            long |= lane.notes.get("long", {})
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


def verdict(codes: Iterable[int]) -> int:
    """The worst of what lanes ended with; one that a signal ended (no memory, say) has proven nothing."""
    return max((0 if code == NOTHING_COLLECTED else code if code >= 0 else 128 - code for code in codes), default=0)


if __name__ == "__main__":
    sys.exit(main())
