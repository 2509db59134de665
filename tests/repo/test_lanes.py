"""The suite's end says what its lanes have shown; `make compose-test` collects all tests of containers."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import NOTHING_COLLECTED, verdict
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("lanes", "ends"),
    [
        ([0, 0, 0], 0),
        ([0, NOTHING_COLLECTED, 0], 0),
        ([0, 1, 0], 1),
        ([0, 2, 1], 2),
        # Killed, by whoever wanted its memory: it has shown nothing, and says no failure either.
        ([0, 0, -9], 137),
        ([0, -15, 1], 143),
    ],
)
def test_a_lane_that_did_not_end_well_is_no_success(lanes: list[int], ends: int) -> None:
    assert verdict(lanes) == ends


ONCE = """
from pathlib import Path
def test_it():
    mark = Path({mark!r})
    first = not mark.exists()
    mark.touch()
    assert not first, "the first time"
"""
ALWAYS = "def test_it():\n    assert 0, 'each time'\n"
WELL = "def test_it():\n    pass\n"


def the_suite(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The whole suite of a folder, run by our own command."""
    for name in ("__main__.py", "conftest.py", "allowed_skips.txt"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH")}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "tests", *arguments, "-p", "no:cacheprovider", "-p", "xdist"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("computing", "again", "ends", "said"),
    [
        (ONCE, 2, 0, "UNSTABLE tests/unit/test_unit.py::test_it"),
        (ONCE, 0, 1, "the first time"),
        (ALWAYS, 2, 1, "run again alone: tests/unit/test_unit.py::test_it"),
    ],
)
def test_a_test_that_failed_is_run_again_alone_where_that_is_asked_for_and_told(
    tmp_path: Path, computing: str, again: int, ends: int, said: str
) -> None:
    for folder, body in {"bench": WELL, "e2e": WELL, "unit": computing.format(mark=str(tmp_path / "mark"))}.items():
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}.py").write_text(body)
    done = the_suite(tmp_path, "--again", str(again))
    assert done.returncode == ends and said in done.stdout, done.stdout + done.stderr
    assert ("UNSTABLE" in done.stdout) == (ends == 0)


NIGHTLY = "import pytest\n@pytest.mark.nightly\ndef test_it():\n    assert 0, 'by night'\n"


@pytest.mark.parametrize(("marks", "ends"), [([], 0), (["-m", "nightly"], 1)])
def test_what_is_of_the_night_is_left_out_unless_it_is_asked_for(tmp_path: Path, marks: list[str], ends: int) -> None:
    for folder, body in {"bench": WELL, "e2e": WELL, "unit": NIGHTLY}.items():
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}.py").write_text(body)
    done = the_suite(tmp_path, *marks)
    assert done.returncode == ends and ("by night" in done.stdout) == bool(ends), done.stdout + done.stderr


HERE = Path("tests/e2e/containers")


def test_make_compose_test_collects_all_of_them() -> None:
    """pytest drops a file that is named beside its folder: two of them were never run, and all was green."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^compose-test:.*\n\t@\$\(BIN\)/python (-m pytest .*) \$\(ARGS\)$", makefile, re.M)
    assert recipe is not None, "compose-test is no line of pytest any more: change this test with it"
    done = subprocess.run(
        [sys.executable, *shlex.split(recipe[1]), "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    tests = re.compile(r"^(async )?def test_", re.M)
    written = {str(HERE / one.name) for one in (ROOT / HERE).glob("*.py") if tests.search(one.read_text())}
    long = {"external_suite.py", "half_a_cluster.py", "lost_broker.py", "promote_dry_run.py", "redis_by_name.py"}
    long |= {"restoring.py", "whole_overlays.py"}
    assert long <= {Path(one).name for one in written} and collected == written
