"""The suite's end says what its lanes have shown; `make compose-test` collects all tests of containers."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
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


def the_suite(folder: Path, tests: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The suite of a folder, run by our own command. tests: a file's text by the folder of tests that has it."""
    for name, text in tests.items():
        (folder / "tests" / name).mkdir(parents=True)
        (folder / "tests" / name / f"test_{name}.py").write_text(text)
    for name in ("__main__.py", "conftest.py", "needs.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / "Makefile").write_text("check:\n\t@echo checked\n")
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
@pytest.mark.slow
def test_a_test_that_failed_is_run_again_alone_where_that_is_asked_for_and_told(
    tmp_path: Path, computing: str, again: int, ends: int, said: str
) -> None:
    tests = {"smoke": WELL, "unit": computing.format(mark=str(tmp_path / "mark"))}
    done = the_suite(tmp_path, tests, "--again", str(again))
    assert done.returncode == ends and said in done.stdout, done.stdout + done.stderr
    assert ("UNSTABLE" in done.stdout) == (ends == 0)


MARKED = """
import pytest
def test_plain():
    print("ran: plain")
@pytest.mark.slow
def test_slow():
    print("ran: slow")
@pytest.mark.nightly
def test_nightly():
    print("ran: nightly")
@pytest.mark.needs("public-suites")
def test_of_others():
    print("ran: of others")
"""


@pytest.mark.parametrize(
    ("asked", "folder", "ran"),
    [
        ([], "unit", {"plain"}),
        (["--rest"], "unit", {"slow"}),
        (["--nightly"], "unit", {"nightly"}),
        ([], "smoke", {"plain", "slow"}),
        (["--rest"], "smoke", set()),
        ([], "e2e", set()),
        (["--rest"], "e2e", {"plain", "slow"}),
        (["--nightly"], "e2e", {"nightly"}),
        (["--rest"], "integration", {"plain", "slow"}),
        (["--rest"], "bench", {"plain", "slow"}),
    ],
)
@pytest.mark.slow
def test_each_test_runs_in_the_part_that_its_folder_and_its_mark_say(
    tmp_path: Path, asked: list[str], folder: str, ran: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BULKHEAD_REFERENCE_MCP", raising=False)
    done = the_suite(tmp_path, {folder: MARKED}, *asked, "-rP")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"^ran: (.*)$", done.stdout, re.M)) == ran, done.stdout
    assert ("checked" in done.stdout) == (not asked), "make test alone has the checks"


@pytest.mark.slow
def test_what_the_machine_lacks_is_told_in_one_line_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BULKHEAD_REFERENCE_MCP", raising=False)
    done = the_suite(tmp_path, {"unit": MARKED, "smoke": MARKED})
    [line] = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert "2 for want of public-suites (" in line and ".ci/run" in line
    assert done.stdout.splitlines().index(line) == len(done.stdout.splitlines()) - 2


@pytest.mark.slow
def test_what_takes_long_without_the_mark_is_told(tmp_path: Path) -> None:
    text = "import time, pytest\ndef test_it():\n    time.sleep(3.1)\n"
    done = the_suite(tmp_path, {"unit": text + "@pytest.mark.slow\n" + text.partition("\n")[2].replace("it", "slow")})
    assert re.search(r"^took 3\.\d s without the mark `slow`: tests/unit/test_unit.py::test_it$", done.stdout, re.M)
    assert done.stdout.count("without the mark") == 1


HERE = Path("tests/e2e/containers")


@pytest.mark.slow
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
    long = {"external_suite.py", "half_a_cluster.py", "lost_broker.py", "redis_by_name.py", "restoring.py"}
    assert long <= {Path(one).name for one in written} and collected == written
