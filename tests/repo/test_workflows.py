"""What runs at GitHub may read the code and no more, says which version of each action it takes, and ends some time;
and every night runs schedules of its own."""

import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.simulation.__main__ import CI_SEEDS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
OURS_OF_ACTIONS = re.compile(r"actions/[a-z-]+@v\d+")


def _read(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


NIGHTLY = _read(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["simulate"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=[one.stem for one in WORKFLOWS])
def test_a_workflow_may_read_alone_and_ends(file: Path) -> None:
    found = _read(file)
    assert found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 60 and job["runs-on"] == "ubuntu-24.04"
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert uses and all(OURS_OF_ACTIONS.fullmatch(one) for one in uses)


def _nightly(number: int) -> list[str]:
    """What a run of this number calls, by make itself: the arguments of `python -m tests.simulation`."""
    (script,) = [step["run"] for step in NIGHTLY["steps"] if "run" in step]
    environ = {**os.environ, "GITHUB_RUN_NUMBER": str(number), "MAKEFLAGS": "n"}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (line,) = [one for one in done.stdout.replace("\\\n", "").splitlines() if " -m tests.simulation " in one]
    return shlex.split(line)


def _seeds(called: list[str]) -> range:
    first, last = called[called.index("--seeds") + 1].split("-")
    return range(int(first), int(last) + 1)


def test_every_night_has_seeds_that_no_other_run_has() -> None:
    every = [CI_SEEDS, *(_seeds(_nightly(number)) for number in (1, 2, 3, 400))]
    assert all(before[-1] < after[0] and len(after) > 500_000 for before, after in itertools.pairwise(every))


def test_what_a_night_finds_is_kept() -> None:
    """There is time left to shrink it; and what begins with a dot the action leaves out."""
    called = _nightly(1)
    (upload,) = [step for step in NIGHTLY["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert upload["if"] == "failure()" and upload["with"]["path"] == called[called.index("--found") + 1]
    assert not upload["with"]["path"].startswith(".") and "--keep-going" in called
    assert float(called[called.index("--minutes") + 1]) < NIGHTLY["timeout-minutes"] - 10
