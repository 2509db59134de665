"""What processes use: CPU time and memory, by pid.

In: pids. Out: CPU seconds since each began, proportional set size in MB (shared pages counted once).
"""

from collections.abc import Iterable
from pathlib import Path

import psutil


class Unreadable(Exception):
    """The kernel does not let this user see it; says what to do."""


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds used so far by these processes. One that ended meanwhile counts nothing: measure before it does."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size. Raises Unreadable."""
    kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except PermissionError as error:
            raise Unreadable(f"memory of process {pid} belongs to another user: run the bench as root") from error
        except (FileNotFoundError, ProcessLookupError):
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def with_children(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        process = psutil.Process(pid)
        return [pid, *(one.pid for one in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
