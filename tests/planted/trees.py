"""Copies of the tree to break: what git knows and what it would add, compiled once, and run before any installed one.

In: the working tree. Out: a folder, and the environment in which its packages are the ones that are imported.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.paths import ROOT

from .bugs import Bug

SOURCES = (".", "contracts", "libs", "services", "infra", "cli")
"""Where packages lie; the editable install names the same folders of the working tree, and must not win."""
PACKAGES = ("bulkhead", "bulkhead_contracts", "bulkhead_services", "bulkhead_infra", "bulkhead_cli", "tests.simulation")
_PROBE = """
import importlib, sys
for name in sys.argv[2:]:
    file = importlib.import_module(name).__file__
    assert file.startswith(sys.argv[1] + "/"), f"{name} is imported from {file}, not from the copy in {sys.argv[1]}"
"""


def copy(to: Path) -> None:
    """Every file of the working tree that is not ignored, committed or not; compiled, and known to be what runs.

    The bytecode is checked against the source's hash: a file that is changed within the same second, and keeps its
    size, would run as it was before otherwise.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, to / name
        if source.is_file():  # What was deleted and not committed is listed too.
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."],
        cwd=to,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE, str(to), *PACKAGES], cwd=to, env=environment(to), capture_output=True, text=True
    )
    if probe.returncode != 0:
        raise RuntimeError(f"the copy is not what would run: {probe.stderr.strip().splitlines()[-1]}")


def environment(tree: Path) -> dict[str, str]:
    """Of a process that runs this tree."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str((tree / one).resolve()) for one in SOURCES),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }


@contextmanager
def planted(clean: Path, bug: Bug, tree: Path) -> Iterator[Path]:
    """A copy of the copy, `tree`, with this bug in it while it lasts; made when it is not there. Raises BadBug."""
    texts = bug.texts(clean)
    if not tree.exists():
        shutil.copytree(clean, tree)
    try:
        for name, text in texts.items():
            (tree / name).write_text(text)
        yield tree
    finally:
        for name in texts:
            shutil.copy(clean / name, tree / name)
