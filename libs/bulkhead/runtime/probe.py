"""The health check of a container: `python -m bulkhead.runtime.probe [URL]`. Standard library alone, and little of it.

In: an address, else BULKHEAD_PROBE_URL, else `/readyz` at BULKHEAD_HEALTH_PORT. Out: exit code 0 for status 200, 1 for
anything else, with what was said on standard output, where `docker inspect` shows it.
"""

import os
import socket
import sys

TIMEOUT_S = 4.0
MAX_ANSWER_BYTES = 4096
DEFAULT_PORT = "8081"


def ask(url: str) -> tuple[bool, str]:
    """Whether the answer is 200, and what it says. url: http://host:port/path."""
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\nhost: {place}\r\n\r\n".encode())
            answer = b""
            while len(answer) < MAX_ANSWER_BYTES and (more := connection.recv(MAX_ANSWER_BYTES)):
                answer += more
    except (OSError, ValueError) as error:
        return False, f"{url} does not answer: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ", 2)[1:2] == [b"200"], (body or head).decode("utf-8", "replace").strip()


def main(arguments: list[str]) -> int:
    """See the module."""
    port = os.environ.get("BULKHEAD_HEALTH_PORT", DEFAULT_PORT)
    url = arguments[0] if arguments else os.environ.get("BULKHEAD_PROBE_URL", f"http://127.0.0.1:{port}/readyz")
    healthy, said = ask(url)
    print(said)  # noqa: T201
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
