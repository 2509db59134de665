"""Free TCP ports of this machine, below the range of ephemeral ports.

Ports of the ephemeral range are unsafe for servers: a restarted server may find its port taken, and a client that
connects to a closed port of the range may be given that very port to connect from, and then talks to itself.
"""

import errno
import random
import socket
from collections import deque

FIRST, LAST = 20_000, 32_000
ATTEMPTS = 200
MAX_REMEMBERED_PORTS = 256
_recent_ports = deque[int](maxlen=MAX_REMEMBERED_PORTS)
"""Whoever was given a port may not listen on it yet: the next one is given another."""


class PortInUse(Exception):
    """Another process listens on the requested port."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which no process listens now. Raises PortInUse when none is found."""
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST, LAST)  # noqa: S311 - a port is no secret
        if port not in _recent_ports and _bindable(host, port):
            _recent_ports.append(port)
            return port
    raise PortInUse(f"no free port on {host} between {FIRST} and {LAST}; stop something that listens there")


def free_port_again(last: int) -> int:
    """The port of a run before when nobody listens on it, else a free one: whoever knows it finds the server again."""
    return last if 0 < last < 65_536 and _bindable("127.0.0.1", last) else free_port()


def claim_port(port: int, what: str) -> int:
    """`port` if it is free, a free one for 0. Raises PortInUse."""
    if port == 0:
        return free_port()
    if not _bindable("127.0.0.1", port):
        raise PortInUse(f"{what}: port {port} on 127.0.0.1 is in use; stop what listens there, or choose another port")
    return port


def _bindable(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
