"""Somebody else's repository: `external/` with its own role, tool and tests, installed beside a wheel of ours, run from
a place outside this tree by a pytest of its own. What it relies on is what a stranger has: packages, the plugin, docs.
"""

import re

import pytest

from tests.e2e.fixtures.stranger import Stranger, run
from tests.needs import is_met

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("meshes", ["memory", "processes"])
def test_their_tests_pass_on(stranger: Stranger, meshes: str) -> None:
    # Where a disk image can be mounted, a mesh of processes has one that can be full; elsewhere it says that it cannot.
    disk = ["-o", "bulkhead_disk_mib=640"] if meshes == "processes" and is_met("loop-mounts") else []
    done = stranger.pytest("--meshes", meshes, "-o", "asyncio_mode=auto", *disk)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "skipped" not in done.stdout and "xfailed" not in done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower(), "theirs is a clean suite"


def test_it_is_their_installation_that_is_tested(stranger: Stranger) -> None:
    """Not this checkout: its packages come from the wheel."""
    modules = "bulkhead.testing.plugin", "bulkhead_infra", "acme_desk"
    where = f"import sys, {', '.join(modules)}; print(*(sys.modules[name].__file__ for name in {modules}))"
    done = run(stranger.python, "-P", "-c", where, cwd=stranger.folder)
    venv_folder = str(stranger.python.parents[1])
    assert done.returncode == 0 and all(one.startswith(venv_folder) for one in done.stdout.split()), done


def test_what_fails_leaves_its_journal_timeline_and_logs(stranger: Stranger) -> None:
    done = stranger.pytest("tests/failing.py", "--meshes", "memory", "--bulkhead-evidence=left")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "answer.cites('fares.md'): fares.md is not cited; it cites nothing" in done.stdout
    left = stranger.folder / "left" / "tests-failing.py-test_that_fails-memory"
    assert f"everything of this test: {left}" in done.stdout
    names = {re.sub(r"^t[a-z2-7]{25}", "TASK", one.name) for one in left.iterdir()}
    assert names == {"TASK.json", "TASK.timeline.txt", "TASK.timeline.json", "TASK.journal.jsonl.gz", "logs"}
    timeline = next(left.glob("*.timeline.txt")).read_text()
    assert "worker → model_gateway" in timeline and "succeeded" in timeline
    assert "signer" in (left / "logs" / "mesh.log").read_text()
    replayed = run(stranger.python, "-m", "bulkhead_cli.main", "replay", next(left.glob("*.gz")), cwd=left)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
