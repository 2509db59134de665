"""What Redis's container runs: `redis-server`, on the configuration that the provisioner wrote; `probe` asks it.

In: /bulkhead/identity/redis.conf (it holds the password), /bulkhead/data. Out: this very process becomes the server.
What lies in it is a cache, made again of the journal: files that a power cut has torn are removed before the start.
"""

import os
import re
import shutil
import socket
import sys
from pathlib import Path

from infra.local.torn import torn

CONFIGURATION = Path("/bulkhead/identity/redis.conf")
DATA = Path("/bulkhead/data")
PORT = 6379
TIMEOUT_S = 4.0


def main(arguments: list[str]) -> int:
    """An exit code, for `probe` or when the server cannot be started."""
    try:
        configured = CONFIGURATION.read_text()
    except OSError as error:
        print(f"{CONFIGURATION} cannot be read: {error.strerror}; `provision-keys` writes it, and must have ended "
              "before Redis starts; is its volume mounted here?", file=sys.stderr)  # fmt: skip
        return 2
    if arguments == ["probe"]:
        return probe(configured)
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


def probe(configured: str) -> int:
    """0 when it answers, with its password."""
    password = re.search(r"^requirepass (\S+)$", configured, re.M)
    try:
        with socket.create_connection(("127.0.0.1", PORT), TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password[1] if password else ''}\r\nPING\r\n".encode())
            answers = b""
            while answers.count(b"\r\n") < 2 and (more := connection.recv(1024)):
                answers += more
    except OSError as error:
        print(f"it does not answer: {error}")
        return 1
    print(answers.decode("utf-8", "replace").strip())
    return 0 if answers == b"+OK\r\n+PONG\r\n" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
