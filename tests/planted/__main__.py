"""`make planted`: plant each bug alone in a copy of the tree and see which suite catches it.

Exit codes: 0 every bug was caught by the suite that its file names, in what runs by day; 1 one was not; 2 usage, a bug
that does not fit, or a tree that cannot be imported.
"""

import argparse
import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.paths import ROOT

from . import running, suites, trees, trials
from .bugs import SUITES, BadBug, Bug, load
from .suites import Finding

SAME_AGAIN = ("playbooks", "simulation")
"""What these have seen they see again: nothing of the machine gets in."""
SLOWEST = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bug and what became of it. control: it was not planted, and must not be caught."""

    bug: Bug
    findings: tuple[Finding, ...]
    control: bool = False

    @property
    def expected(self) -> Finding:
        """Of the suite that its file names."""
        return self.findings[0]

    @property
    def caught(self) -> bool:
        """By the suite that is expected to."""
        return any(one.caught for one in self.findings if one.suite == self.bug.suite)

    @property
    def unsure(self) -> bool:
        """Whether another look might tell more: what runs on the machine's clock sees it or not, or could not run."""
        return (
            not self.control and not self.caught and (self.expected.caught is None or self.bug.suite not in SAME_AGAIN)
        )

    @property
    def seconds(self) -> float:
        """Of all suites."""
        return sum(one.seconds for one in self.findings)

    @property
    def problem(self) -> str:
        """Why this fails the build; "" when it does not."""
        if self.control:
            passed = self.expected.caught is False
            return "" if passed else f"{self.bug.name}: without the bug, too, the {self.bug.suite} {self.expected.by}"
        if self.caught and self.bug.suite == "simulation" and self.expected.tried > 1:
            first = int(self.bug.seeds.partition("-")[0]) + self.expected.tried - 1
            return f"{self.bug.name}: let its seeds begin with {first}, which shows it and runs by day then"
        if self.caught:
            return ""
        if broken := next((one for one in self.findings if one.caught is None), None):
            return f"{self.bug.name}: the {broken.suite} {broken.by}"
        others = [one.suite for one in self.findings if one.caught]
        unit = "seeds" if self.bug.suite == "simulation" else "tests"
        told = f"caught by {', '.join(others)} instead" if others else "caught by nothing"
        return f"{self.bug.name}: not caught by the {self.bug.suite} ({self.expected.tried} {unit}); {told}"

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "bug": self.bug.name,
            "what": self.bug.what,
            "expected": self.bug.suite,
            "caught": self.caught,
            "seconds": round(self.seconds, 2),
            "findings": [one.row() for one in self.findings],
        }


def main() -> int:
    """See the module."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bugs = [bug for bug in load(tuple(asked.names)) if bug.name not in asked.resume]
        if asked.list:
            _list(bugs, as_json=asked.json)
            return 0
        with tempfile.TemporaryDirectory(prefix="bulkhead-planted-") as folder:
            outcomes = run(bugs, asked, Path(folder).resolve())
    except (BadBug, RuntimeError) as error:
        print(f"planted: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("planted: stopped", file=sys.stderr)
        return 130
    if not asked.json:
        print("\n".join(table(outcomes)))
    slowest = sorted(outcomes, key=lambda one: -one.seconds)[:SLOWEST]
    print("slowest: " + ", ".join(f"{one.bug.name} {one.seconds:.1f} s" for one in slowest), file=sys.stderr)
    problems = [one.problem for one in outcomes if one.problem]
    for problem in problems:
        print(f"NOT CAUGHT {problem}" if not asked.control else f"NOT WELL {problem}", file=sys.stderr)
    if problems and not asked.control:
        print(
            "write the test or the law that catches it (docs/explanation/testing.md), or correct `caught_by`",
            file=sys.stderr,
        )
    return 1 if problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.planted",
        description="Plant each bug of tests/planted/bugs alone in a copy of the tree, uncommitted files included, and "
        "run the suite that is expected to catch it, with the narrowest command that does. With --full, all suites "
        "run on every bug: that takes hours, and tells how much one suite sees of what another one is for.",
        epilog="How to add a bug: docs/explanation/testing.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs (default: all; --list shows them)")
    parser.add_argument("--full", action="store_true", help="every suite, whole, beside the narrow command")
    parser.add_argument(
        "--suites", type=_suites, default=SUITES, metavar="A,B", help=f"with --full, only these of: {', '.join(SUITES)}"
    )
    parser.add_argument(
        "--seeds",
        default=suites.FULL_SEEDS,
        metavar="A-B",
        help=f"with --full, these of the simulation (default {suites.FULL_SEEDS})",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="bugs at once (default: one per core)")
    parser.add_argument("--json", action="store_true", help="a JSON line per bug on stdout instead of the table")
    parser.add_argument(
        "--resume",
        type=_known,
        default=frozenset(),
        metavar="FILE",
        help="leave out the bugs that this file of --json has: go on with >> FILE",
    )
    parser.add_argument(
        "--control", action="store_true", help="plant nothing: what is said to catch a bug must pass without it"
    )
    parser.add_argument("--list", action="store_true", help="only show the bugs")
    return parser.parse_args()


def _suites(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if strange := set(names) - set(SUITES):
        raise argparse.ArgumentTypeError(f"{', '.join(strange)}: choose from {', '.join(SUITES)}")
    return names


def _known(text: str) -> frozenset[str]:
    """The bugs that a file of JSON lines has; a file that is not there yet has none, a line that was cut is none."""
    file, found = Path(text), set()
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            found.add(json.loads(line)["bug"])
        except (ValueError, KeyError, TypeError):
            continue
    return frozenset(found)


def run(bugs: Sequence[Bug], asked: argparse.Namespace, folder: Path) -> list[Outcome]:
    """Every bug alone, in as many copies as there are jobs: a copy is used again when the bug is gone from it.

    What was not sure is looked at once more at the end, when nothing else runs.
    """
    began, clean = time.monotonic(), folder / "clean"
    for bug in bugs:
        bug.texts(ROOT)  # Before minutes are spent.
    trees.copy(clean)
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for number in range(max(1, min(asked.jobs, len(bugs)))):
        copies.put(folder / f"tree-{number}")
    done: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        told = ", ".join(_short(one) for one in outcome.findings)
        print(
            f"[{len(done)}/{len(bugs)} {time.monotonic() - began:.0f} s] {outcome.bug.name}: {told}",
            file=sys.stderr,
            flush=True,
        )

    again: list[Outcome] = []
    for outcome in _side_by_side(clean, bugs, asked, copies):
        (again if outcome.unsure else done).append(outcome)
        tell(outcome)
        if asked.json and not outcome.unsure:
            print(json.dumps(outcome.row()), flush=True)
    for outcome in again:
        looked = try_one(clean, outcome.bug, asked, copies, full=False)
        done.append(replace(outcome, findings=(*looked.findings, *outcome.findings[1:])))
        tell(looked)
        if asked.json:
            print(json.dumps(done[-1].row()), flush=True)
    return sorted(done, key=lambda one: one.bug.name)


def _side_by_side(
    clean: Path, bugs: Sequence[Bug], asked: argparse.Namespace, copies: "queue.SimpleQueue[Path]"
) -> Iterator[Outcome]:
    """As they are done; those that take longest are begun first, so that no job waits for the last one alone."""
    longest = sorted(bugs, key=lambda bug: -SUITES.index(bug.suite))
    pool = ThreadPoolExecutor(copies.qsize())
    try:
        futures = [pool.submit(try_one, clean, bug, asked, copies, full=asked.full) for bug in longest]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        running.stop()
        pool.shutdown()


def try_one(
    clean: Path, bug: Bug, asked: argparse.Namespace, copies: "queue.SimpleQueue[Path]", *, full: bool
) -> Outcome:
    """The expected suite first, narrowly; then, if asked for, the others."""
    tree = copies.get()
    try:
        if not tree.exists():
            shutil.copytree(clean, tree)
        runner = running.Runner(tree)
        if asked.control:
            return Outcome(bug, (trials.control(runner, bug),), control=True)
        findings = [trials.narrow(runner, clean, bug, tree)]
        with trees.planted(clean, bug, tree):
            for suite in asked.suites if full else ():
                if suite != bug.suite or not findings[0].caught:
                    findings.append(suites.whole(runner, suite, asked.seeds))
    finally:
        copies.put(tree)
    return Outcome(bug, tuple(findings))


def _short(one: Finding) -> str:
    unit = "seeds" if one.suite == "simulation" else "tests"
    how = {True: "caught", False: "NOT caught", None: "BROKEN"}[one.caught]
    return f"{how} by {one.suite} after {one.tried} {unit}, {one.seconds:.1f} s" + (f" ({one.by})" if one.by else "")


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for people."""
    rows = [("bug", "caught by", "after", "seconds", "what saw it")]
    for outcome in outcomes:
        for number, one in enumerate(outcome.findings):
            unit = "seeds" if one.suite == "simulation" else "tests"
            seen = one.suite if one.caught else f"not by {one.suite}"
            rows.append(
                (
                    "" if number else outcome.bug.name,
                    seen,
                    f"{one.tried} {unit}",
                    f"{one.seconds:.1f}",
                    one.by.removeprefix("tests/")[:90],
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]
    counts = {
        suite: sum(any(one.caught and one.suite == suite for one in each.findings) for each in outcomes)
        for suite in SUITES
    }
    told = ", ".join(f"{count} by {suite}" for suite, count in counts.items() if count)
    return [*lines, "", f"{sum(each.caught for each in outcomes)} of {len(outcomes)} caught: {told or 'none'}"]


def _list(bugs: Sequence[Bug], *, as_json: bool) -> None:
    for bug in bugs:
        if as_json:
            row = {
                "bug": bug.name,
                "what": bug.what,
                "why": bug.why,
                "expected": bug.suite,
                "tests": bug.tests,
                "seeds": bug.seeds,
                "files": [edit.file for edit in bug.edits],
            }
            print(json.dumps(row))
        else:
            print(f"{bug.name} ({bug.suite} {bug.seeds or ' '.join(bug.tests)})\n    {bug.what}\n    {bug.why}")


if __name__ == "__main__":
    sys.exit(main())
