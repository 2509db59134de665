"""Programs of others, installed for one session and run as people run them.

In: package.json with its lock file for npm, PYTHON for PyPI. Out: what a program wrote and left in its folder. A
program has a home of its own, and no network but this machine: what it fetches beside is refused at once.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fresh_venv import FreshVenv

HERE = Path(__file__).parent
MANIFEST, LOCK = HERE / "package.json", HERE / "package-lock.json"
PYTHON: Mapping[str, str] = {}
"""Requirement by the name of a program."""
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
    """folder: programs lie there, and each run has a folder of its own there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._venvs: dict[str, FreshVenv] = {}

    def install(self) -> None:
        """All of them. Raises CalledProcessError: npm could not."""
        for file in (MANIFEST, LOCK):
            shutil.copy(file, self._folder)
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        npm = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for name, requirement in PYTHON.items():
                (self._folder / name).mkdir()
                self._venvs[name] = FreshVenv(self._folder / name)
                self._venvs[name].install(requirement, is_locked=False)
            said, _ = npm.communicate(timeout=INSTALL_TIMEOUT_S)
        finally:
            npm.kill()
        assert npm.returncode == 0, said

    def of_npm(self, name: str) -> Path:
        """A program by the name of its command."""
        return self._folder / "node_modules" / ".bin" / name

    def of_python(self, name: str, command: str) -> Path:
        """A command of the venv of PYTHON's name."""
        return self._venvs[name].bin / command

    def make_workplace(self, name: str, files: Mapping[str, str]) -> Path:
        """An empty home with a folder `work` that holds these files. Returns that folder."""
        work = self._folder / "homes" / name / "work"
        work.mkdir(parents=True)
        for path, text in files.items():
            (work / path).write_text(text)
        return work

    async def run(self, work: Path, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        """Run in a folder of `make_workplace` until it ends. Raises TimeoutError."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            cwd=work,
            env={**kept, **NO_NETWORK, "HOME": str(work.parent), **environ},
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
