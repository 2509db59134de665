"""Programs of others, installed for one session and run as people run them.

In: package.json with its lock file for npm, PYTHON for PyPI. Out: what a program wrote and left in its folder. A
program has a home of its own, and no network but this machine: what it fetches beside is refused at once.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fresh_venv import FreshVenv
from tests.paths import ROOT

HERE = Path(__file__).parent
INSTALLED = ROOT / ".clients"
MANIFEST, LOCK = HERE / "package.json", HERE / "package-lock.json"
PYTHON: Mapping[str, str] = {"aider": "aider-chat==0.86.2"}
"""Requirement by the name of a program; aider pins all that it needs itself."""
INSTALL_TIMEOUT_S = 170
RUN_TIMEOUT_S = 90
CLOSED_PORT = "http://127.0.0.1:9"
NO_NETWORK = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), CLOSED_PORT),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


@dataclass(frozen=True)
class Ended:
    """A program that has ended: its exit code, and all that it wrote."""

    code: int
    output: str


class Programs:
    """homes: each run has a folder of its own there."""

    def __init__(self, homes: Path) -> None:
        self._homes = homes
        self._venvs = {name: INSTALLED / name for name in PYTHON}

    def install(self) -> None:
        """All of them, unless they are there: over a gigabyte, which `make clean` removes. Raises AssertionError."""
        wanted = hashlib.sha256(LOCK.read_bytes() + repr(PYTHON).encode()).hexdigest()
        stamp = INSTALLED / "installed.sha256"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir()
        for file in (MANIFEST, LOCK):
            shutil.copy(file, INSTALLED)
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        npm = subprocess.Popen(command, cwd=INSTALLED, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for name, requirement in PYTHON.items():
                self._venvs[name].mkdir()
                FreshVenv(self._venvs[name]).install(requirement, is_locked=False)
            said, _ = npm.communicate(timeout=INSTALL_TIMEOUT_S)
        finally:
            npm.kill()
        assert npm.returncode == 0, said
        stamp.write_text(wanted)

    def search_path(self) -> str:
        """PATH, with the programs before all others."""
        folders = [INSTALLED / "node_modules" / ".bin", *(venv / "venv" / "bin" for venv in self._venvs.values())]
        return os.pathsep.join([*map(str, folders), os.environ["PATH"]])

    def make_workplace(self, name: str, files: Mapping[str, str]) -> Path:
        """An empty home with a folder `work` that holds these files. Returns that folder."""
        work = self._homes / name / "work"
        work.mkdir(parents=True)
        for path, text in files.items():
            (work / path).write_text(text)
        return work

    async def run(self, work: Path, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        """Run in a folder of `make_workplace` until it ends. Raises TimeoutError."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            cwd=work,
            env={**kept, **NO_NETWORK, "PATH": self.search_path(), "HOME": str(work.parent), **environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), RUN_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Ended(process.returncode, output.decode(errors="replace"))


def pinned_versions() -> dict[str, str]:
    """Version by package, of what is installed from npm and from PyPI."""
    packages = json.loads(LOCK.read_text())["packages"]
    of_npm = {name: packages[f"node_modules/{name}"]["version"] for name in packages[""]["dependencies"]}
    rows = (requirement.partition("==") for requirement in PYTHON.values())
    return of_npm | {name.partition("[")[0]: version for name, _, version in rows}
