"""What Redis's container runs: `redis-server`, on the configuration that the provisioner wrote. probes.py asks it.

In: /bulkhead/identity/redis.conf (it holds the password), /bulkhead/data. Out: this very process becomes the server.
What lies in it is a cache, made again of the journal: files that a power cut has torn are removed before the start.
"""

import os
import shutil
import sys
from pathlib import Path

from infra.local.torn import torn

CONFIGURATION = Path("/bulkhead/identity/redis.conf")
DATA = Path("/bulkhead/data")


def main() -> int:
    """An exit code, when the server cannot be started."""
    try:
        CONFIGURATION.read_text()
    except OSError as error:
        print(f"{CONFIGURATION} cannot be read: {error.strerror}; `provision-keys` writes it, and must have ended "
              "before Redis starts; is its volume mounted here?", file=sys.stderr)  # fmt: skip
        return 2
    program = shutil.which("redis-server")
    if program is None:
        print("this image has no redis-server: build it again (infra/docker/images.py)", file=sys.stderr)
        return 2
    if not os.access(DATA, os.W_OK):
        print(f"{DATA} cannot be written by user {os.getuid()}: give the volume to it (chown), or mount another",
              file=sys.stderr)  # fmt: skip
        return 2
    if torn_files(DATA):
        print("its files were torn by a power cut; it starts empty", file=sys.stderr)
        empty(DATA)
    os.execv(program, [program, str(CONFIGURATION)])  # noqa: S606 - no shell is wanted


def torn_files(folder: Path) -> list[Path]:
    """What a power cut took the end of. The newest log may well be empty: nothing was said yet."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if torn(path) and (path.stat().st_size or not path.name.endswith(".incr.aof"))]


def empty(folder: Path) -> None:
    """Forget everything."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
