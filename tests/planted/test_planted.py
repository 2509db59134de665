"""Every planted bug fits the tree as it is now, and the suite that its file names catches it."""

import json
import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import CI_SEEDS

from . import running, suites, trees, warm
from .bugs import BadBug, Bug, Edit, load

BUGS = load()
SECONDS = 900
"""For all bugs: under 240 s on two free cores; machines are slower when they are shared."""


def test_there_are_bugs_of_many_kinds_for_every_suite_that_ci_runs():
    assert len(BUGS) >= 30
    assert {"playbooks", "integration", "simulation"} <= {bug.suite for bug in BUGS}
    assert len({edit.file for bug in BUGS for edit in bug.edits}) >= 15


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_text_stands_once_and_what_replaces_it_is_python(bug):
    for name, text in bug.texts(trees.ROOT).items():
        assert text != (trees.ROOT / name).read_text()
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_no_bug_uses_a_name_that_is_not_there(tmp_path):
    """It would be caught by any test, and show nothing."""
    for bug in BUGS:
        for name, text in bug.texts(trees.ROOT).items():
            if name.endswith(".py"):
                (tmp_path / f"{bug.name}--{name.replace('/', '--')}").write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "-q", "--no-cache", "--isolated", "--select", "F821,F823", tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_what_a_bug_names_is_there_and_run_by_ci(bug):
    for target in bug.tests:
        assert (trees.ROOT / target.partition("::")[0]).exists()
    if bug.seeds:
        first, _, last = bug.seeds.partition("-")
        assert int(first) in CI_SEEDS and int(last) in CI_SEEDS


def test_a_text_that_has_moved_on_is_told(tmp_path):
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n")
    for find, times in (("c = 1", 0), (" = 1", 2)):
        bug = Bug("name", "", "", "playbooks", (Edit("code.py", find, ""),))
        with pytest.raises(BadBug, match=f"{times} times, not once"):
            bug.texts(tmp_path)
    with pytest.raises(BadBug, match="0 times"):
        Bug("name", "", "", "playbooks", (Edit("gone.py", "a", ""),)).texts(tmp_path)
    twice = (Edit("*.py", "b = 1", "c = 1"), Edit("code.py", "c = 1", "d = 2"))
    assert Bug("name", "", "", "playbooks", twice).texts(tmp_path) == {"code.py": "a = 1\nd = 2\n"}


@pytest.mark.parametrize(("text", "says"), [
    ('what = "x"', "missing"),
    ('what = "x"\nwhy = "x"\ncaught_by = "luck"\nedit = []', "one of playbooks"),
    ('what = "x"\nwhy = "x"\ncaught_by = "simulation"\nseeds = "7-7"\nedit = []', "range of 50"),
    ('what = "x"\nwhy = "x"\ncaught_by = "playbooks"\nedit = []', "must name the tests"),
    ('what = "x"\nwhy = "x"\ncaught_by = "contract"\ntests = ["t"]\nedit = []\nextra = 1', "unknown: extra"),
    ("what =", "Invalid"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_says_what_is_missing(tmp_path, text, says):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(BadBug, match=says):
        load(folder=tmp_path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "clean"
    trees.copy(folder)
    return folder


@pytest.mark.slow
def test_what_runs_is_the_copy_and_not_what_is_installed(clean, tmp_path):
    edit = Edit("contracts/bulkhead_contracts/limits.py", "PARTITIONS = 32", "PARTITIONS = 31")
    bug = Bug("other-partitions", "", "", "playbooks", (edit,))
    program = ("from bulkhead_contracts.limits import PARTITIONS; import bulkhead.flow, services.planner.core as c; "
               "print(PARTITIONS, c.__file__)")  # fmt: skip
    with trees.planted(clean, bug, tmp_path / "tree") as tree:
        done = subprocess.run([sys.executable, "-c", program], cwd=tree, env=trees.environment(tree),
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.split() == ["31", str(tree / "services/planner/core.py")]
    assert "PARTITIONS = 32" in (tree / edit.file).read_text() == (clean / edit.file).read_text()


@pytest.mark.slow
def test_a_bug_that_breaks_the_suite_itself_is_not_caught_by_it(clean, tmp_path):
    edit = Edit("services/worker/core.py", "from services.worker.state import ", "from services.worker.nowhere import ")
    with trees.planted(clean, Bug("broken", "", "", "playbooks", (edit,)), tmp_path / "tree") as tree:
        runner = running.Cold(tree)
        assert suites.tests(runner, "playbooks", ["tests/unit/worker"], 100).caught is None
        assert suites.simulation(runner, "1-2", 100).caught is None


def test_a_fork_forgets_what_stands_on_what_has_changed():
    assert warm.forgotten(["services/planner/core.py"]) == ["bulkhead.cli", "infra", "services.planner", "tests"]
    assert "bulkhead" in warm.forgotten(["libs/bulkhead/bus/wire.py"])
    assert "bulkhead_contracts" not in warm.forgotten(["libs/bulkhead/bus/wire.py", "tests/simulation/net.py"])
    assert warm.forgotten(["infra/nats/streams.py"]) == ["bulkhead.cli", "infra", "services", "tests"]
    for of_all in (["contracts/bulkhead_contracts/limits.py"], ["services/planner/prompts/draft.md"], ["Makefile"]):
        assert warm.forgotten(of_all) == sorted(warm.ALL)
    assert warm.forgotten([]) == []


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_the_copy_without_a_bug_passes_what_catches_them(clean):
    """Otherwise 'caught' would mean nothing. Of the seeds only some: test_simulation.py runs them all."""
    targets = sorted({target for bug in BUGS for target in bug.tests})
    runner = running.Cold(clean)
    found = suites.tests(runner, "playbooks", targets, SECONDS)
    assert found.caught is False, found.by
    found = suites.simulation(runner, "1-50", SECONDS)
    assert found.caught is False and found.tried == 50, found.by


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_every_bug_is_caught_by_the_suite_that_is_expected_to():
    done = subprocess.run([sys.executable, "-m", "tests.planted", "--json", "--jobs", "2"], cwd=trees.ROOT,
                          capture_output=True, text=True, timeout=SECONDS,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-4000:]
    assert {row["bug"] for row in rows if row["caught"]} == {bug.name for bug in BUGS}
