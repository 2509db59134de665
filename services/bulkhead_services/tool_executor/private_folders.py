"""Private folders of tools' processes, in the temporary folder: made, and removed when their executor was killed.

In: a prefix. Out: a folder whose name tells the executor's process and when that began, since numbers of processes
are given again.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from bulkhead.telemetry.log import Log

log = Log("tools")
_OWNED = re.compile(r"bulkhead-(?:tool|mcp)-(\d{1,10})\.(\d{1,20})-[A-Za-z0-9_]+")


def make_private_folder(prefix: str) -> str:
    """A new folder that this user alone may enter. Raises OSError."""
    pid = os.getpid()
    return tempfile.mkdtemp(prefix=f"{prefix}{pid}.{_start_ticks(pid)}-")


def remove_abandoned_folders() -> int:
    """Remove the folders of executors that are gone; those of others that run stay. Returns their number."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob("bulkhead-*"):
        owner = _OWNED.fullmatch(folder.name)
        if owner is not None and _start_ticks(int(owner[1])) != int(owner[2]):
            shutil.rmtree(folder, ignore_errors=True)
            removed += not folder.exists()
    if removed:
        log.info("abandoned_folders_removed", folders=removed)
    return removed


def _start_ticks(pid: int) -> int:
    """Time since boot at which a process began; 0 where that is not told, -1 when there is no such process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return -1
    except PermissionError:
        pass  # It is another user's.
    try:
        # The name of the program, in brackets, may hold blanks and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
