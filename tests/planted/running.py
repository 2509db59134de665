"""Runs commands in a tree: each in a Python of its own, or in a fork of one that has imported the tree already.

In: a module and its arguments, as `python -m` takes them. Out: the exit code, what it said, and how long it took.
Nothing of a command is left when its time is up or this program is stopped.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from . import trees

PRELOAD_S = 1200.0
"""Against a hang alone: it takes seconds on two free cores."""
_SESSIONS: set[int] = set()
"""Leaders of what runs now."""


class Ran(NamedTuple):
    """What became of a command. in_time: False when it was ended because its time was up; code is -1 then."""

    code: int
    out: str
    seconds: float
    in_time: bool = True


class Runner(Protocol):
    """A tree in which commands are run."""

    def run(self, module: str, arguments: Sequence[str], most_s: float) -> Ran:
        """Until it ends by itself, or `most_s` have gone by."""
        ...


class Cold:
    """Each command in a Python that begins with it."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def run(self, module: str, arguments: Sequence[str], most_s: float) -> Ran:
        """See Runner."""
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


class Warm:
    """Each command in a fork; see warm.py. `changed`: files of the tree that are not as they were imported."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self.changed: tuple[str, ...] = ()
        self._said = tree.with_name(f"{tree.name}.out")
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self) -> None:
        """Import everything; the tree must hold no bug then. Raises RuntimeError."""
        environment = trees.environment(self._tree) | {"OPENBLAS_NUM_THREADS": "1"}  # Threads do not outlive a fork.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.planted.warm"],
            cwd=self._tree,
            env=environment,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if self._answer(PRELOAD_S) != {"ready": True}:
            self.stop()
            raise RuntimeError(f"the copy in {self._tree} cannot be imported; what it said stands above")

    def stop(self) -> None:
        """It ends by itself when nobody asks any more; a command that runs is ended by `stop` of this module."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.kill()
            self._process.wait()

    def run(self, module: str, arguments: Sequence[str], most_s: float) -> Ran:
        """See Runner."""
        assert self._process is not None and self._process.stdin is not None
        began = time.monotonic()
        self._said.write_text("")
        ask = {"module": module, "arguments": list(arguments), "changed": list(self.changed), "out": str(self._said)}
        self._process.stdin.write(json.dumps(ask).encode() + b"\n")
        leader = self._must_answer()["pid"]
        _SESSIONS.add(leader)
        try:
            answer = self._answer(most_s)
            if not answer:
                _end(leader)
                self._must_answer()
        finally:
            _SESSIONS.discard(leader)
        said = self._said.read_text(errors="replace")
        return Ran(answer.get("code", -1), said, time.monotonic() - began, in_time=bool(answer))

    def _must_answer(self) -> dict[str, Any]:
        """What takes no time but the machine's. Raises RuntimeError."""
        found = self._answer(PRELOAD_S)
        if not found:
            raise RuntimeError(f"what runs the copy in {self._tree} does not fork within {PRELOAD_S:.0f} s")
        return found

    def _answer(self, most_s: float) -> dict[str, Any]:
        """The next line; {} when none came in time. Raises RuntimeError when it has ended."""
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + most_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return {}
            read = os.read(self._process.stdout.fileno(), 65_536)
            if not read:
                raise RuntimeError(f"what runs the copy in {self._tree} has ended; what it said stands above")
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


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
