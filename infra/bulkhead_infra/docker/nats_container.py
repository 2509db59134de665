"""The broker's container: `nats-server` on the configuration that the provisioner wrote. probes.py asks it.

In: /bulkhead/identity (configuration, accounts, certificate), /bulkhead/data (its store). Out: this very process
becomes the server. Standard library, and the few lines that know what a power cut spoils.
"""

import os
import shutil
import sys
from pathlib import Path

from bulkhead_infra.nats.store import drop_torn_journal

CONFIGURATION = Path("/bulkhead/identity/nats-server.conf")
DATA = Path("/bulkhead/data")


def main() -> int:
    problem, program = "", shutil.which("nats-server")
    if program is None:
        problem = "this image has no nats-server: build it again (infra/bulkhead_infra/docker/images.py)"
    elif not os.access(CONFIGURATION, os.R_OK):
        problem = (
            f"{CONFIGURATION} cannot be read: `provision-keys` writes it, and must have ended before the broker "
            "starts; is its volume mounted here?"
        )
    elif not os.access(DATA, os.W_OK):
        problem = f"{DATA} cannot be written by user {os.getuid()}: give the volume to it (chown), or mount another"
    if program is None or problem:
        print(problem, file=sys.stderr)
        return 2
    if drop_torn_journal(DATA):
        print("the journal was torn by a power cut; it is made again of the inboxes", file=sys.stderr)
    os.execv(program, [program, "-c", str(CONFIGURATION)])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
