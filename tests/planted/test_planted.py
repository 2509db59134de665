"""Every planted bug fits the tree as it is now, and the suite that its file names catches it."""

import json
import os
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.simulation.__main__ import KNOWN_SEEDS

from . import running, suites, trees
from .bugs import load

BUGS = load()
MOST_S = 3_000
"""For all bugs, against a hang: it takes ten minutes on two free cores."""


def test_there_are_bugs_of_many_kinds_for_every_suite_that_ci_runs():
    assert len(BUGS) >= 30
    assert {"playbooks", "integration", "simulation"} <= {bug.suite for bug in BUGS}
    assert len({edit.file for bug in BUGS for edit in bug.edits}) >= 15


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_text_stands_once_and_what_replaces_it_is_python(bug):
    for name, text in bug.texts(ROOT).items():
        assert text != (ROOT / name).read_text()
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_no_bug_uses_a_name_that_is_not_there(tmp_path):
    """It would be caught by any test, and show nothing."""
    for bug in BUGS:
        for name, text in bug.texts(ROOT).items():
            if name.endswith(".py"):
                (tmp_path / f"{bug.name}--{name.replace('/', '--')}").write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "-q", "--no-cache", "--isolated", "--select", "F821,F823", tmp_path],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_what_a_bug_names_is_there_and_run_by_ci(bug):
    for target in bug.tests:
        path = ROOT / target.partition("::")[0]
        files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
        assert files, f"there is no {path}"
        assert not [file for file in files if "mark.nightly" in file.read_text()], "it is to be caught by day"
    if bug.seeds:
        first, _, last = bug.seeds.partition("-")
        assert int(first) in KNOWN_SEEDS and int(last) in KNOWN_SEEDS


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "clean"
    trees.copy(folder)
    return folder


@pytest.mark.nightly
@pytest.mark.timeout(MOST_S)
def test_the_copy_without_a_bug_passes_what_catches_them(clean):
    """Otherwise 'caught' would mean nothing. Of the seeds only some: test_simulation.py runs them all."""
    targets = sorted({bug.tests[0] for bug in BUGS if bug.tests})
    runner, limits = running.Runner(clean), suites.Limits(900, MOST_S)
    found = suites.tests(runner, "playbooks", targets, limits)
    assert found.caught is False, found
    found = suites.simulation(runner, "1-20", limits)
    assert found.caught is False and found.tried == 20, found


@pytest.mark.nightly
@pytest.mark.timeout(MOST_S + 120)
def test_every_bug_is_caught_by_the_suite_that_is_expected_to(tmp_path):
    """Three at once on two cores: what catches some of them waits for what never comes."""
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.planted", "--json", "--jobs", "3"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            out, _ = process.communicate(timeout=MOST_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # It ends what it has started.
            out, _ = process.communicate(timeout=90)
        said.seek(0)
        told = said.read()
    rows = [json.loads(line) for line in out.splitlines()]
    if process.returncode != 0:
        # What matters first: how it went before may be as long as a book.
        problems = [line for line in told.splitlines() if line.startswith(("NOT CAUGHT", "planted:"))]
        pytest.fail(
            "\n".join(
                [f"exit {process.returncode}, {len(rows)} of {len(BUGS)} bugs tried", *problems, "...", told[-4000:]]
            ),
            pytrace=False,
        )
    assert {row["bug"] for row in rows if row["caught"]} == {bug.name for bug in BUGS}
