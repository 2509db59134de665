"""A peer's program in the bench's own venv: one process, pinned to a core, that takes orders line by line.

In: an order, as a JSON object. Out: its answer. A program may tell of the steps that it runs between the two.
"""

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.paths import ROOT

VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
ORDER_TIMEOUT_S = 300.0
LINE_MAX_BYTES = 16 * 1024 * 1024


class NoPeer(Exception):
    """A peer is not installed; says what to do."""


class WorkerFailed(Exception):
    """A peer's process ended or did not answer; says what it said last."""


@dataclass(slots=True)
class Worker:
    """One process. ran: (workflow, step, machine's clock) of the steps that it told of."""

    process: asyncio.subprocess.Process
    log: Path
    ran: list[tuple[str, int, float]] = field(default_factory=list)

    @classmethod
    async def start(cls, script: str, log: Path, number: int, **environ: str) -> "Worker":
        """Start the number-th process of a script of this folder, on a core of its own."""
        if not PYTHON.is_file():
            raise NoPeer(f"there is no {PYTHON.relative_to(ROOT)} with the peers in it: `make bench` makes it")
        cores = sorted(os.sched_getaffinity(0))
        environ |= {"PATH": os.environ.get("PATH", os.defpath), "BENCH_CORE": str(cores[number % len(cores)])}
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                str(PYTHON),
                str(Path(__file__).with_name(script)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environ,
                start_new_session=True,
                limit=LINE_MAX_BYTES,
            )
        return cls(process, log)

    async def stop(self) -> None:
        """Kill it: what it has begun is of no use to anybody."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def order(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer. Raises WorkerFailed."""
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(order) + "\n").encode())
        done: dict[str, Any] = (await self.answer())["done"]
        return done

    async def answer(self) -> dict[str, Any]:
        """The next line that is no step."""
        try:
            async with asyncio.timeout(ORDER_TIMEOUT_S):
                while True:
                    row = await self.row()
                    if "step" not in row:
                        return row
        except TimeoutError as error:
            raise WorkerFailed(f"no answer within {ORDER_TIMEOUT_S:g} s: {self._last_words()}") from error

    async def row(self) -> dict[str, Any]:
        """The next line; a step is noted in `ran`."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise WorkerFailed(f"a peer's process ended: {self._last_words()}")
        row: dict[str, Any] = json.loads(line)
        if "step" in row:
            self.ran.append((row["workflow"], row["step"], row["at"]))
        return row

    def _last_words(self) -> str:
        return self.log.read_text()[-1500:]
