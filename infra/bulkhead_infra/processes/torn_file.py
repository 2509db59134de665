"""Detection of a file that a power cut has torn. In: a path. Out: whether its end was never written.

The file system gives such a file its length, or its name, before its data: it is empty, or ends in zeros.
"""

import os
from pathlib import Path

END_BYTES = 16
"""No file that is asked about ends in so many zeros by itself."""


def torn(path: Path) -> bool:
    """False when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_BYTES))
            return not file.read().strip(b"\0")
    except FileNotFoundError:
        return False
