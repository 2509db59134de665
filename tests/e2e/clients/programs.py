"""Programs of others, installed for one session and run as people run them.

In: package.json with its lock file for npm, PYTHON for PyPI. Out: what a program wrote and left in its folder. A
program has a home of its own, and no network but this machine: what it fetches beside is refused at once.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fresh_venv import FreshVenv
from tests.paths import ROOT

HERE = Path(__file__).parent
INSTALLED = ROOT / ".clients"
NPM = INSTALLED / "npm"
MANIFEST, LOCK = HERE / "package.json", HERE / "package-lock.json"
PYTHON: Mapping[str, str] = {
    "aider": "aider-chat==0.86.2",
    "llm": "llm==0.36",
    "smolagents": "smolagents[openai]==1.26.0",
}
"""Requirement by the name of a program; aider pins all that it needs itself."""
INSTALL_TIMEOUT_S = 400
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
        INSTALLED.mkdir(exist_ok=True)
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        with _renewed(NPM, LOCK.read_text()) as is_new, ThreadPoolExecutor() as pool:
            if is_new:
                for file in (MANIFEST, LOCK):
                    shutil.copy(file, NPM)
                npm = pool.submit(
                    subprocess.run, command, cwd=NPM, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
                )
            for name, requirement in PYTHON.items():
                with _renewed(self._venvs[name], requirement) as is_new_venv:
                    if is_new_venv:
                        FreshVenv(self._venvs[name]).install(requirement, is_locked=False)
            assert not is_new or npm.result().returncode == 0, npm.result().stderr

    def search_path(self) -> str:
        """PATH, with the programs before all others."""
        folders = [NPM / "node_modules" / ".bin", *(venv / "venv" / "bin" for venv in self._venvs.values())]
        return os.pathsep.join([*map(str, folders), os.environ["PATH"]])

    def python_of(self, name: str) -> Path:
        """The interpreter of one of PYTHON's programs."""
        return self._venvs[name] / "venv" / "bin" / "python"

    def make_workplace(self, name: str, files: Mapping[str, str]) -> Path:
        """An empty home with a folder `work` that holds these files. Returns that folder."""
        work = self._homes / name / "work"
        work.mkdir(parents=True)
        for path, text in files.items():
            (work / path).write_text(text)
        return work

    async def run(self, work: Path, *words: str | Path, **environ: str) -> Ended:
        """Run in a folder of `make_workplace` until it ends. Raises AssertionError: it takes too long."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        report = work.parent / "output.txt"
        with report.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, words),
                cwd=work,
                env={**kept, **NO_NETWORK, "PATH": self.search_path(), "HOME": str(work.parent), **environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                code = await asyncio.wait_for(process.wait(), RUN_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                raise AssertionError(f"not over after {RUN_TIMEOUT_S} s: {report.read_text()}") from None
        return Ended(code, report.read_text(errors="replace"))


@contextmanager
def _renewed(folder: Path, wanted: str) -> Iterator[bool]:
    """An empty folder to install into (True), unless it holds what is wanted already (False)."""
    stamp = folder / "installed"
    is_new = not (stamp.exists() and stamp.read_text() == wanted)
    if is_new:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    yield is_new
    stamp.write_text(wanted)


PROGRAMS = {
    "@anthropic-ai/claude-code": "Claude Code",
    "@openai/codex": "Codex",
    "@qwen-code/qwen-code": "qwen-code",
    "opencode-ai": "opencode",
}
"""Names under which people know some packages of npm."""


def pinned_versions() -> dict[str, tuple[str, str]]:
    """Package and version by program, of what is installed from npm and from PyPI."""
    packages = json.loads(LOCK.read_text())["packages"]
    versions = {
        PROGRAMS.get(package, package): (package, packages[f"node_modules/{package}"]["version"])
        for package in packages[""]["dependencies"]
    }
    for program, requirement in PYTHON.items():
        package, _, version = requirement.partition("==")
        versions[program] = package.partition("[")[0], version
    return versions
