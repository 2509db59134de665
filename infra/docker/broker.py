"""What the broker's container runs: `nats-server`, on the configuration that the provisioner wrote; `probe` asks it.

In: /bulkhead/identity (configuration, accounts, certificate), /bulkhead/data (its store). Out: this very process
becomes the server. Standard library, and the few lines that know what a power cut spoils. A server that was healthy and
does not become so again (after a full disk) is told to end by the probe: Docker starts what ended again.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from bulkhead.runtime.probe import ask
from infra.nats.store import drop_torn_journal

CONFIGURATION = Path("/bulkhead/identity/nats-server.conf")
DATA = Path("/bulkhead/data")


HEALTH_URL = "http://127.0.0.1:8222/healthz"
MARKS = Path("/tmp")  # noqa: S108 - the container's own, empty at every start
SERVER_PID = 1
UNHEALTHY_S = 8.0
MIN_FREE_BYTES = 256 * 1024**2
"""As `bulkhead up` does: with less it would only fill the disk again."""


def main(arguments: list[str]) -> int:
    """An exit code, for `probe` or when the server cannot be started."""
    if arguments == ["probe"]:
        return probe(HEALTH_URL, MARKS, SERVER_PID)
    program = shutil.which("nats-server")
    if program is None:
        print("this image has no nats-server: build it again (infra/docker/images.py)", file=sys.stderr)
        return 2
    if not os.access(CONFIGURATION, os.R_OK):
        print(f"{CONFIGURATION} cannot be read: `provision-keys` writes it, and must have ended before the broker "
              "starts; is its volume mounted here?", file=sys.stderr)  # fmt: skip
        return 2
    if not os.access(DATA, os.W_OK):
        print(f"{DATA} cannot be written by user {os.getuid()}: give the volume to it (chown), or mount another",
              file=sys.stderr)  # fmt: skip
        return 2
    if drop_torn_journal(DATA):
        print("the journal was torn by a power cut; it is made again of the inboxes", file=sys.stderr)
    os.execv(program, [program, "-c", str(CONFIGURATION)])  # noqa: S606 - no shell is wanted


def probe(url: str, marks: Path, pid: int) -> int:
    """0 when it is healthy. Unhealthy for UNHEALTHY_S after it was healthy, with room on the disk: told to end."""
    healthy, said = ask(url)
    print(said)
    was_healthy, since = marks / "was-healthy", marks / "unhealthy-since"
    if healthy:
        was_healthy.touch()
        since.unlink(missing_ok=True)
        return 0
    # While it starts it may read a large store for minutes: that is no reason to begin anew.
    if not was_healthy.exists():
        return 1
    if not since.exists():
        since.touch()
    if time.time() - since.stat().st_mtime < UNHEALTHY_S:
        return 1
    free = shutil.disk_usage(DATA if DATA.exists() else marks).free
    if free < MIN_FREE_BYTES:
        print(f"only {free // 1024**2} MiB are free where its store lies: free some, then it is restarted")
        return 1
    print("it does not recover by itself and is restarted")
    os.kill(pid, signal.SIGTERM)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
