"""Many schedules in forks of one process: each chunk of seeds in a fork that has been warmed, and that just ends.

In: seeds, what runs one. Out: rows of results, chunk by chunk as they are done. A fork knows what files and prices say,
when its parent has run a schedule already, and it collects no garbage: its memory goes with it.
"""

import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]
CHUNK = 25
"""Seeds of one fork: a schedule leaves some 3 MB behind."""
PIECE = 65_536


class ForkDied(RuntimeError):
    """A fork ended without its results."""


@dataclass(slots=True)
class _Fork:
    pid: int
    seeds: Sequence[int]
    said: bytearray = field(default_factory=bytearray)


def in_forks(
    seeds: Sequence[int], jobs: int, rows_of: Callable[[Sequence[int]], Rows], may_begin: Callable[[], bool]
) -> Iterator[Rows]:
    """In chunks, so many at a time. may_begin: asked before each chunk; False when no more are to be run.

    Raises ForkDied.
    """
    running: dict[int, _Fork] = {}
    todo = (seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK))
    more = True
    with selectors.DefaultSelector() as ready:
        try:
            while True:
                while more and len(running) < jobs:
                    chunk = next(todo, None)
                    more = chunk is not None and may_begin()
                    if more and chunk is not None:
                        end, fork = _begin(chunk, rows_of)
                        running[end] = fork
                        ready.register(end, selectors.EVENT_READ)
                if not running:
                    return
                for key, _ in ready.select():
                    if piece := os.read(key.fd, PIECE):
                        running[key.fd].said += piece
                        continue
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    yield _ended(running.pop(key.fd))
        finally:
            for end, fork in running.items():
                os.close(end)
                os.kill(fork.pid, signal.SIGKILL)
                os.waitpid(fork.pid, 0)


def _begin(seeds: Sequence[int], rows_of: Callable[[Sequence[int]], Rows]) -> tuple[int, _Fork]:
    sys.stdout.flush()
    sys.stderr.flush()
    end, begin = os.pipe()
    pid = os.fork()
    if pid:
        os.close(begin)
        return end, _Fork(pid, seeds)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that tells how it went.
        os.close(end)
        with os.fdopen(begin, "wb") as pipe:
            pipe.write(json.dumps(rows_of(seeds)).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _ended(fork: _Fork) -> Rows:
    _, status = os.waitpid(fork.pid, 0)
    try:
        found: Rows = json.loads(fork.said)
    except ValueError:
        raise ForkDied(
            f"the process that ran the seeds {fork.seeds[0]}-{fork.seeds[-1]} ended with "
            f"{os.waitstatus_to_exitcode(status)} and without results; what it said stands above: run them alone, "
            "with --jobs 1"
        ) from None
    return found
