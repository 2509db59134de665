"""Detection of a file that a power cut has torn. In: a path. Out: whether its end was never written.

The file system gives such a file its length, or its name, before its data: it is empty, or ends in zeros.
"""

import os
import shutil
from pathlib import Path

END_BYTES = 16
"""No file that is asked about ends in so many zeros by itself."""


def is_torn(path: Path) -> bool:
    """False when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_BYTES))
            return not file.read().strip(b"\0")
    except FileNotFoundError:
        return False


def torn_files(folder: Path, kept: str = "") -> list[Path]:
    """Torn files of a Redis, but for the one named `kept`. Its newest log may be empty: nothing was written yet."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != kept]
    return [path for path in files if is_torn(path) and (path.stat().st_size or not path.name.endswith(".incr.aof"))]


def empty_folder(folder: Path, kept: str = "") -> None:
    """Remove everything in a folder but the file named `kept`."""
    for path in folder.iterdir():
        if path.name == kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
