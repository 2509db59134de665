"""The mesh of this checkout in turns with that of an older commit, each measured by its own bench.

In: a commit and names of measures that both have. Out: the medians of all rounds, and what changed.
"""

import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Book, Figure, changes, read, say
from tests.paths import ROOT

ROUNDS = 3
PROVIDER = ROOT / "tests" / "bench" / "instant.py"
PACKAGES = ("contracts", "libs", "services", "infra", "cli", "")
"""Folders of a checkout that have packages."""
DEFAULT_MEASURES = ("full_step*", "one_agent_task_p50_ms", "step_p50_ms", "steps_per_s", "cpu_per_step_ms")


def measure_against(commit: str, only: Sequence[str], *, quick: bool) -> int:
    """Measure both, print; the exit code."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as name:
        folder = Path(name)
        older = folder / "older"
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
        if archive.returncode:
            say(f"{commit} is no commit of this repository: {archive.stderr.decode().strip()}")
            return 2
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree_of_commit:
            tree_of_commit.extractall(older, filter="data")
        # The same provider for both: what it says decides how often a step is tried.
        shutil.copy(PROVIDER, older / PROVIDER.relative_to(ROOT))
        figures: dict[Path, list[Figure]] = {older: [], ROOT: []}
        for number in range(ROUNDS):
            for tree, rows in figures.items():
                say(f"round {number + 1} of {ROUNDS}: {commit if tree == older else 'this checkout'}")
                try:
                    rows += _measure_tree(tree, folder / "rows.jsonl", only or DEFAULT_MEASURES, quick=quick)
                except subprocess.CalledProcessError as error:
                    say(f"the bench of {tree} ended with exit code {error.returncode}; its last lines say why")
                    return 1
        before, now = _medians(figures[older]), _medians(figures[ROOT])
    say(f"\nmedians of {ROUNDS} rounds, before: {commit}\n{changes(Book(figures=now), before)}")
    return 0


def _measure_tree(tree: Path, rows: Path, only: Sequence[str], *, quick: bool) -> list[Figure]:
    """One run of a checkout's own bench on its own code."""
    command = [
        sys.executable,
        "-m",
        "tests.bench",
        "--systems",
        "bulkhead",
        "--durability",
        "power",
        "--json",
        str(rows),
    ]
    command += ["--quick"] * quick + ["--only", *only]
    environ = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(str(tree / package) for package in PACKAGES)}
    subprocess.run(command, cwd=tree, env=environ, stdout=subprocess.DEVNULL, check=True)
    return read(rows)


def _medians(figures: Sequence[Figure]) -> list[Figure]:
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in figures:
        values.setdefault((row.system, row.durability, row.measure), []).append(row.value)
    return [Figure(*key, statistics.median(of_rounds)) for key, of_rounds in values.items()]
