"""Every planted bug fits the tree as it is now, and the suite that its file names catches it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.simulation.__main__ import KNOWN_SEEDS

from . import __main__ as command
from . import running, standing, suites, trees, trials, warm
from .bugs import BadBug, Bug, Edit, load
from .running import Ran
from .suites import Finding

BUGS = load()
MOST_S = 3_000
"""For all bugs, against a hang: it takes a few minutes on two free cores."""


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('what = "x"', "missing"),
        ('what = "x"\nwhy = "x"\ncaught_by = "luck"\nedit = []', "one of playbooks"),
        ('what = "x"\nwhy = "x"\ncaught_by = "simulation"\nseeds = "7-7"\nedit = []', "range of 50"),
        ('what = "x"\nwhy = "x"\ncaught_by = "playbooks"\nedit = []', "must name the tests"),
        ('what = "x"\nwhy = "x"\ncaught_by = "contract"\ntests = ["t"]\nedit = []\nextra = 1', "unknown: extra"),
        ("what =", "Invalid"),
    ],
)
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
    edit = Edit("contracts/bulkhead_contracts/bounds.py", "PARTITIONS = 32", "PARTITIONS = 31")
    bug = Bug("other-partitions", "", "", "playbooks", (edit,))
    program = (
        "from bulkhead_contracts.bounds import PARTITIONS; import bulkhead.flow, bulkhead_services.planner.core as c; "
        "print(PARTITIONS, c.__file__)"
    )
    with trees.planted(clean, bug, tmp_path / "tree") as tree:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tree,
            env=trees.environment(tree),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["31", str(tree / "services/bulkhead_services/planner/core.py")]
    assert "PARTITIONS = 32" in (tree / edit.file).read_text() == (clean / edit.file).read_text()


@pytest.mark.slow
def test_a_bug_that_breaks_the_suite_itself_is_not_caught_by_it(clean, tmp_path):
    edit = Edit(
        "services/bulkhead_services/worker/core.py",
        "from bulkhead_services.worker.state import ",
        "from bulkhead_services.worker.nowhere import ",
    )
    with trees.planted(clean, Bug("broken", "", "", "playbooks", (edit,)), tmp_path / "tree") as tree:
        runner = running.Cold(tree)
        assert suites.tests(runner, "playbooks", ["tests/unit/services/worker"], suites.Limits()).caught is None
        assert suites.simulation(runner, "1-2", suites.Limits()).caught is None


FILES = {
    "contracts/bulkhead_contracts/plan.py": "",
    "libs/bulkhead/__init__.py": "",
    "libs/bulkhead/bus/__init__.py": "",
    "libs/bulkhead/bus/wire.py": "import json",
    "libs/bulkhead/bus/port.py": "if True:\n    from bulkhead.bus import wire",
    "libs/bulkhead/seals/__init__.py": "from .keys import Key",
    "libs/bulkhead/seals/keys.py": "class Key: ...",
    "libs/bulkhead/seals/store.py": "def late():\n    from bulkhead.bus.port import Port",
    "services/bulkhead_services/worker/core.py": "from bulkhead.seals import Key",
    "services/bulkhead_services/worker/app.py": "",
    "services/bulkhead_services/planner/app.py": "try:\n    import bulkhead.bus.port\nexcept ImportError:\n    pass",
    "infra/bulkhead_infra/local/__init__.py": "from bulkhead_services.planner.app import App",
}


def test_a_fork_imports_anew_what_has_changed_and_what_stands_on_it_and_no_more(tmp_path):
    modules = {}
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        path = re.sub("^(contracts|libs|services|infra)/", "", name)
        modules[path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")] = file
    graph = standing.importers(modules)
    above = {"bulkhead.bus.port", "bulkhead_services.planner.app", "bulkhead_infra.local"}
    assert standing.on(["libs/bulkhead/bus/wire.py"], graph) == above | {"bulkhead.bus.wire"}
    assert standing.on(["libs/bulkhead/bus/port.py", "tests/unit/x.py"], graph) == above
    # A package imports what is in it; then nothing in it stays as it was.
    seals = {"bulkhead.seals", "bulkhead.seals.keys", "bulkhead.seals.store", "bulkhead_services.worker.core"}
    assert standing.on(["libs/bulkhead/seals/keys.py"], graph) == seals
    assert standing.on(["services/bulkhead_services/worker/core.py"], graph) == {
        "bulkhead_services.worker.core",
        "bulkhead_services.worker.app",
    }
    for of_all in (
        "contracts/bulkhead_contracts/plan.py",
        "services/bulkhead_services/worker/prompts/draft.md",
        "Makefile",
    ):
        assert standing.on([of_all], graph) == set(modules)
    assert standing.on([], graph) == set()


def test_what_is_forgotten_is_read_anew_also_from_its_package(tmp_path, monkeypatch):
    folder = tmp_path / "forgetful"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "told.py").write_text("WORD = 1")
    monkeypatch.syspath_prepend(tmp_path)
    from forgetful import told  # type: ignore[import-not-found]

    assert told.WORD == 1
    (folder / "told.py").write_text("WORD = 12")
    warm.forget(["forgetful.told"])
    from forgetful import told

    assert told.WORD == 12
    warm.forget(["forgetful.told", "forgetful"])


class Told:
    """A runner that answers as it is told: with what the bug does, then without it."""

    def __init__(self, tree, *answers):
        self.tree, self.answers, self.asked = tree, list(answers), []

    def run(self, module, arguments, most_s):
        self.asked.append(("broken" in (self.tree / "code.py").read_text(), most_s))
        return self.answers.pop(0)


PASSED, FAILED = "1 passed in 1s", "FAILED tests/t.py::test_it - assert False\n1 failed in 1s"
HUNG = "FAILED tests/t.py::test_it - Failed: Timeout (>240.0s) from pytest-timeout.\n1 failed in 241s"


@pytest.mark.parametrize(
    ("answers", "caught", "says"),
    [
        ([Ran(1, FAILED, 5)], True, "tests/t.py::test_it"),
        ([Ran(0, PASSED, 5)], False, ""),
        ([Ran(1, HUNG, 241), Ran(0, PASSED, 5)], True, "it hangs: 241 s, 5 s without the bug"),
        # The machine is slow: more time, and then it is seen.
        ([Ran(1, HUNG, 241), Ran(0, PASSED, 100), Ran(1, FAILED, 300)], True, "tests/t.py::test_it"),
        ([Ran(-1, "", 600, in_time=False), Ran(0, PASSED, 100), Ran(0, PASSED, 800)], False, ""),
        # Nothing can be told.
        (
            [Ran(1, HUNG, 241), Ran(0, PASSED, 100), Ran(1, HUNG, 961), Ran(0, PASSED, 400)],
            None,
            "twice; 400 s without",
        ),
        ([Ran(1, HUNG, 241), Ran(1, HUNG, 241)], None, "nor is it well without the bug"),
        ([Ran(1, "ERROR tests/t.py::test_it - no redis\n1 error in 1s", 5)], None, "no redis"),
    ],
)
def test_a_slow_machine_makes_no_verdict(tmp_path, answers, caught, says):
    clean, tree = tmp_path / "clean", tmp_path / "tree"
    clean.mkdir()
    (clean / "code.py").write_text("whole")
    bug = Bug("bug", "", "", "playbooks", (Edit("code.py", "whole", "broken"),), ("tests/t.py",))
    with trees.planted(clean, bug, tree):
        pass
    runner = Told(tree, *answers)
    found = trials.narrow(runner, clean, bug, tree)
    assert (found.caught, runner.answers) == (caught, []) and says in found.by
    assert [planted for planted, _ in runner.asked] == [True, False, True, False][: len(answers)]
    assert len({most for _, most in runner.asked}) == (2 if len(answers) > 2 else 1)


BUG = Bug("bug", "", "", "playbooks", (Edit("code.py", "whole", "broken"),), ("tests/t.py",))


@pytest.mark.parametrize(
    ("findings", "control", "problem"),
    [
        ([Finding("playbooks", True, 3, 1.0)], False, ""),
        ([Finding("playbooks", False, 3, 1.0)], False, "not caught by the playbooks (3 tests); caught by nothing"),
        (
            [Finding("playbooks", False, 3, 1.0), Finding("simulation", True, 1, 1.0)],
            False,
            "caught by simulation instead",
        ),
        ([Finding("playbooks", None, 0, 1.0, "could not run")], False, "could not run"),
        ([Finding("playbooks", False, 3, 1.0)], True, ""),
        ([Finding("playbooks", True, 3, 1.0, "tests/t.py")], True, "without the bug, too, the playbooks tests/t.py"),
    ],
)
def test_what_was_not_caught_by_the_suite_that_is_to_fails_the_build(findings, control, problem, monkeypatch, capsys):
    outcome = command.Outcome(BUG, tuple(findings), control=control)
    assert bool(outcome.problem) is bool(problem) and problem in outcome.problem
    monkeypatch.setattr(command, "load", lambda names: [BUG])
    monkeypatch.setattr(command, "run", lambda *_: [outcome])
    monkeypatch.setattr(sys, "argv", ["planted", *(["--control"] if control else [])])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main() == bool(problem)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert problem in capsys.readouterr().err


def test_a_seed_that_was_seen_before_the_time_was_up_counts(tmp_path):
    row = {"seed": 7, "complaints": ["money: gone"]}
    said = json.dumps({"seed": 6, "complaints": []}) + "\n" + json.dumps(row) + "\n" + json.dumps(row)[:9]
    runner = Told(tmp_path, Ran(-1, said, 600, in_time=False))
    (tmp_path / "code.py").write_text("")
    found = suites.simulation(runner, "6-90", suites.Limits())
    assert (found.caught, found.tried, found.by, found.late) == (True, 2, "seed 7: money: gone", False)


@pytest.mark.nightly
@pytest.mark.timeout(MOST_S)
def test_the_copy_without_a_bug_passes_what_catches_them(clean):
    """Otherwise 'caught' would mean nothing. Of the seeds only some: test_simulation.py runs them all."""
    targets = sorted({bug.tests[0] for bug in BUGS if bug.tests})
    runner, limits = running.Cold(clean), suites.Limits(900, MOST_S)
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
