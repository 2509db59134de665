"""The entry point of a container: runs one module under the container's own name. Standard library alone.

In: BULKHEAD_MODULE, which the image sets, and its arguments. Out: that module, run as a program. Every replica of a
service has the same environment, so the instance is the host name, which Docker and Kubernetes make unique.
"""

import os
import runpy
import socket
import sys


def main() -> None:
    """Never returns normally: the module ends the process."""
    module = os.environ.get("BULKHEAD_MODULE", "")
    if not module:
        sys.exit("BULKHEAD_MODULE is not set: it names what this image runs, and the image's build sets it")
    os.environ.setdefault("BULKHEAD_INSTANCE", socket.gethostname())
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
