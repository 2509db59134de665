"""Somebody else's repository: `external/` with its own role, tool and tests, installed beside a wheel of ours, run from
a place outside this tree by a pytest of its own. What it relies on is what a stranger has: packages, the plugin, docs.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTERNAL = Path(__file__).with_name("external")
TIMEOUT_S = 300


def _run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)


def _wheel(source: Path, out: Path) -> Path:
    """Built as `pip wheel` would, with what is installed here: nothing comes over the network."""
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = _run(sys.executable, "-c", build, out, cwd=source)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


class Stranger:
    """A checkout of the other repository with a Python of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "acme-desk"
        shutil.copytree(EXTERNAL, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
        wheels = [_wheel(ROOT, folder), _wheel(self.folder, folder)]
        # As `pip install --no-deps`: what both depend on is installed with us and comes after them on the path.
        done = _run(sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-index", "--no-deps",
                    "--python", self.python, *wheels, cwd=folder)  # fmt: skip
        assert done.returncode == 0, done.stderr
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pytest(self, *words: str) -> subprocess.CompletedProcess[str]:
        """In their checkout, with nothing of this one on the path."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
        # A package's programs (nats-server) come with it: where they are installed.
        env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", os.defpath)])
        return _run(self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, cwd=self.folder, env=env)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    return Stranger(tmp_path_factory.mktemp("stranger"))


@pytest.mark.parametrize("meshes", ["memory", "processes"])
def test_their_tests_pass_on(stranger: Stranger, meshes: str) -> None:
    done = stranger.pytest("--meshes", meshes, "-o", "asyncio_mode=auto")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "skipped" not in done.stdout and "xfailed" not in done.stdout


def test_it_is_their_installation_that_is_tested(stranger: Stranger) -> None:
    """Not this checkout: its packages come from the wheel."""
    where = "import bulkhead.testing.plugin as p, infra as i, acme_desk as a; print(p.__file__, i.__file__, a.__file__)"
    done = _run(stranger.python, "-P", "-c", where, cwd=stranger.folder)
    venv_folder = str(stranger.python.parents[1])
    assert done.returncode == 0 and all(one.startswith(venv_folder) for one in done.stdout.split()), done


def test_what_fails_leaves_its_journal_timeline_and_logs(stranger: Stranger) -> None:
    done = stranger.pytest("tests/failing.py", "--meshes", "memory", "--bulkhead-evidence", "left")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "answer.cites('fares.md'): fares.md is not cited; it cites nothing" in done.stdout
    left = stranger.folder / "left" / "tests-failing.py-test_that_fails-memory"
    assert f"everything of this test: {left}" in done.stdout
    names = {re.sub(r"^t[a-z2-7]{25}", "TASK", one.name) for one in left.iterdir()}
    assert names == {"TASK.json", "TASK.timeline.txt", "TASK.timeline.json", "TASK.journal.jsonl.gz", "logs"}
    timeline = next(left.glob("*.timeline.txt")).read_text()
    assert "worker → model_gateway" in timeline and "succeeded" in timeline
    assert "signer" in (left / "logs" / "mesh.log").read_text()
    replayed = _run(stranger.python, "-m", "bulkhead.cli.main", "replay", next(left.glob("*.gz")), cwd=left)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
