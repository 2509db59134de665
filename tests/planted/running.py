"""Runs commands in a tree, each in a Python of its own.

In: a module and its arguments, as `python -m` takes them. Out: the exit code, what it said, and how long it took.
Nothing of a command is left when its time is up or this program is stopped.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import trees

_SESSIONS: set[int] = set()
"""Leaders of what runs now."""


class Ran(NamedTuple):
    """What became of a command. in_time: False when it was ended because its time was up; code is -1 then."""

    code: int
    out: str
    seconds: float
    in_time: bool = True


class Runner:
    """A tree in which commands are run, each in a Python of its own."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def run(self, module: str, arguments: Sequence[str], most_s: float) -> Ran:
        """Until it ends by itself, or `most_s` have gone by."""
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self._tree,
            text=True,
            env=trees.environment(self._tree),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            _SESSIONS.add(process.pid)
            try:
                out, _ = process.communicate(timeout=most_s)
                ran = Ran(process.returncode, out, time.monotonic() - began)
            except subprocess.TimeoutExpired as error:
                _end(process.pid)
                said = error.stdout or b""
                out = said if isinstance(said, str) else said.decode(errors="replace")
                ran = Ran(-1, out, time.monotonic() - began, in_time=False)
            finally:
                _SESSIONS.discard(process.pid)
        return ran


def stop() -> None:
    """End everything that still runs: what this program starts outlives it otherwise."""
    for leader in list(_SESSIONS):
        _end(leader)


def _end(leader: int) -> None:
    # Ask first: pytest ends the processes that it started, which have sessions of their own.
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(leader, signal.SIGINT)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            os.kill(leader, 0)
            if Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
