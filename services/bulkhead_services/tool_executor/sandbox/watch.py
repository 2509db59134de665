"""Use of a tool's process while it runs, and what it prints: measured and bounded from outside.

In: process ids, a folder, the end of a pipe. Out: bytes of memory and disk; its text on the executor's
standard error.
"""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_PRINTED_BYTES = 64 * 1024
"""So much of what one call prints reaches the executor's log."""
READ_BYTES = 16 * 1024
MAX_FILES = 100_000


def measure_usage(processes: Iterable[int], folder: Path) -> tuple[int, int]:
    """Bytes of memory that these processes have for themselves, and of files below the folder."""
    memory = 0
    for pid in processes:
        with suppress(OSError, IndexError, ValueError):
            resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
            memory += (int(resident) - int(shared)) * PAGE_BYTES
    return memory, _measure_folder(folder)


def _measure_folder(folder: Path) -> int:
    """Links are not followed: they may lead anywhere."""
    size, pending, files = 0, [str(folder)], 0
    while pending and files < MAX_FILES:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                files += 1
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return size


class ToolOutputPipe:
    """The reading end of a pipe that is a tool's standard output and error."""

    def __init__(self, read_end: int) -> None:
        self._read: int | None = read_end
        self._allowance = MAX_PRINTED_BYTES
        os.set_blocking(read_end, False)

    def start(self) -> None:
        """Pass it on from now on."""
        if self._read is not None:
            asyncio.get_running_loop().add_reader(self._read, self._pass_on)

    def reset_allowance(self) -> None:
        """Another call: it may print as much again."""
        self._allowance = MAX_PRINTED_BYTES

    def close(self) -> None:
        """Read no more."""
        if self._read is not None:
            with suppress(RuntimeError):  # There is no loop where it was never started.
                asyncio.get_running_loop().remove_reader(self._read)
            os.close(self._read)
            self._read = None

    def _pass_on(self) -> None:
        assert self._read is not None
        try:
            chunk = os.read(self._read, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
            return
        passed = chunk[: self._allowance]
        self._allowance -= len(passed)
        with suppress(OSError):
            os.write(2, passed)
