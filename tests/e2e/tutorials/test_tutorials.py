"""The four tutorials, word by word: their blocks run in order in one folder, and print what the pages say.

A block is `sh` (run in one shell; `bulkhead up` in the first terminal), `text` (what the block before it prints; a line
`...` stands for any lines) or has a `title`: a file to write, or the part of a file that is there already.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.paths import ROOT

TUTORIALS = ("first-run", "your-documents", "write-a-tool", "test-your-agents")
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
END = "the block has ended"
START_S = 60
INSTALLED = {"bulkhead", "'bulkhead[testing]'"}
"""The machine has them."""
ID = r"\b(?=[a-f]*\d)[0-9a-f]{12,32}\b"
VARYING = (
    (r"\bt[a-z2-7]{25}\b", "TASK"),
    (ID, "ID"),
    (r"\$\d+\.\d+", "COST"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r"\b\d+(\.\d+)? ?(ms|s|min)\b( \(\d+:\d\d:\d\d\))?", "TIME"),
    (r"\b[\d,]+ (tokens( in)?|out|decisions|messages|sent messages)\b", r"N \1"),
    (r"[ \t]+", " "),
    (r"(?m)^ | $", ""),
)


class Block(NamedTuple):
    """One block of a page."""

    kind: str
    title: str
    text: str


def read_blocks(page: str) -> list[Block]:
    return [Block(*match) for match in FENCE.findall((ROOT / "docs" / "tutorial" / f"{page}.md").read_text())]


def unify(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text.strip()


LIVE_CALL = re.compile(r"^TIME \S+ (searches: |found \d+ passage)")
"""Of `bulkhead run`."""


def expected_output(text: str) -> re.Pattern[str]:
    lines = unify(text).splitlines()
    return re.compile("".join(r"(?:.*\n)*?" if line == "..." else _pattern_of(line) for line in lines))


def _pattern_of(line: str) -> str:
    """The line; one that tells a call live may be missing, as nothing stores those."""
    pattern = f"{re.escape(line)}\n"
    return f"(?:{pattern})?" if LIVE_CALL.search(line) else pattern


class Terminals:
    """A reader's two terminals in one folder: the first keeps a mesh in the foreground, the second runs the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BULKHEAD_", "OPENAI_", "PYTEST_"))
        }
        environ = {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=0o022,  # A mesh in the test's own process has a private one, and root's tools read as another user.
        )
        self._log = folder / "up.log"

    def run(self, commands: str) -> str:
        """Run commands in the second terminal, and return what they print. The first that fails ends the test."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        for requirement in re.findall(r"^pip install (.*)$", commands, re.M):
            assert requirement in INSTALLED
        commands = re.sub(r"^pip install .*\n", "", commands, flags=re.M)
        self._shell.stdin.write(f"set -e\n{{\n{commands}\n}} < /dev/null\nset +e; echo; echo '{END}'\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line == f"{END}\n":
                return "".join(lines)
            lines.append(line)
        pytest.fail(f"{commands}\nfailed:\n{''.join(lines)}")

    def start_mesh(self, command: str) -> None:
        """Run `up` in the first terminal; a mesh that stands there is stopped by Ctrl-C first."""
        self.stop_mesh()
        self.run(f"(cd {self.folder}; exec {command} > {self._log} 2>&1) &\n")
        deadline = time.monotonic() + START_S
        while not self._log.exists() or "the mesh runs at" not in self._log.read_text():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def stop_mesh(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        lock = self.folder / ".bulkhead" / "lock"
        if lock.exists() and psutil.pid_exists(pid := int(lock.read_text())):
            os.kill(pid, signal.SIGINT)
            while psutil.pid_exists(pid):
                time.sleep(0.1)
        self._log.unlink(missing_ok=True)

    def write_file(self, block: Block) -> None:
        """Write the file of a block; one that is there has to contain the block."""
        path = self.folder / block.title
        if path.exists():
            assert block.text in path.read_text(), f"{block.title} has not this part"
        else:
            path.write_text(block.text)

    def close(self) -> None:
        self.stop_mesh()
        self._shell.kill()
        self._shell.wait()


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    # Not pytest's folder, which is its user's alone: a tool runs as a user of its own, and reads its package here.
    with tempfile.TemporaryDirectory(prefix="bulkhead-tutorials-") as folder:
        Path(folder).chmod(0o755)
        terminals = Terminals(Path(folder))
        yield terminals
        terminals.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorials_can_be_followed_word_by_word(terminals: Terminals) -> None:
    for page in TUTORIALS:
        follow(terminals, page)


def follow(terminals: Terminals, page: str) -> None:
    """Do what a page says, and compare what it says is printed."""
    blocks, output = read_blocks(page), ""
    assert len(blocks) > 2
    for block in blocks:
        if block.title:
            terminals.write_file(block)
        elif block.kind == "text":
            printed = f"{unify(output)}\n"
            assert expected_output(block.text).fullmatch(printed), f"{page}:\n{block.text}\nis not:\n{printed}"
        else:
            assert block.kind == "sh", f"{page}: nobody can run this block: {block}"
            ids = re.findall(ID, output)
            commands = re.sub(ID, ids[0], block.text) if ids else block.text
            if commands.startswith("bulkhead up"):
                terminals.start_mesh(commands.strip())
            else:
                output = terminals.run(commands)
