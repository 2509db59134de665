"""The health check of a container: `python -m bulkhead.runtime.process.container_probe [--stay] [URL]`.

In: an address, else BULKHEAD_PROBE_URL, else `/readyz` at BULKHEAD_HEALTH_PORT. Out: exit code 0 for status 200, 1 for
anything else, with what was said on standard output, where `docker inspect` shows it. `--stay`: whom the last probe
found healthy is asked on for a minute, and the probe ends at once when the answer is no: to begin a process in a
container costs more than all that it does there. So nothing but modules in C and `os` is imported, either.
"""

import _socket
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 4.0
MAX_ANSWER_BYTES = 4096
DEFAULT_PORT = "8081"
MARKS = "/tmp"  # noqa: S108 - the container's own, empty at every start
TOLD = "told-healthy"
STAY = "--stay"
LOOKS, EVERY_S, WITHIN_S = 6, 10.0, 12.0
"""WITHIN_S: the interval of the image's health check, and a little. Who comes later comes after a pause."""


def probe_url(url: str, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Probe an address: if the answer is 200, and what it says. url: http://host:port/path."""
    place, _, path = url.removeprefix("http://").partition("/")
    try:
        answer = exchange_text(place, f"GET /{path} HTTP/1.0\r\nhost: {place}\r\n\r\n", timeout_s)
    except (OSError, ValueError) as error:
        return False, f"{url} does not answer: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ", 2)[1:2] == [b"200"], (body or head).decode("utf-8", "replace").strip()


def exchange_text(place: str, text: str, timeout_s: float = TIMEOUT_S, *, half_close: bool = False) -> bytes:
    """The answer to a text, up to the end of the connection. place: host:port. half_close: tell the server that nothing
    more follows, for a protocol in which it waits for the next request. Raises OSError, ValueError."""
    host, _, port = place.rpartition(":")
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect((host, int(port)))
        connection.sendall(text.encode())
        if half_close:
            connection.shutdown(_socket.SHUT_WR)
        answer = b""
        while len(answer) < MAX_ANSWER_BYTES and (chunk := connection.recv(MAX_ANSWER_BYTES)):
            answer += chunk
        return answer
    finally:
        connection.close()


def keep_probing(
    look: "Callable[[], tuple[bool, str]]",
    looks: int = LOOKS,
    every_s: float = EVERY_S,
    within_s: float = WITHIN_S,
    marks: str = MARKS,
) -> tuple[bool, str]:
    """The result of the last look. A first success is reported at once, the next when that many more looks all succeed.

    Docker calls a paused container unhealthy until a probe ends: a result that is old, or of a stay that Docker ended,
    does not count.
    """
    mark = f"{marks}/{TOLD}"
    healthy, answer_text = look()
    try:
        was_healthy = time.time() - os.stat(mark).st_mtime < within_s
        os.unlink(mark)
    except OSError:
        was_healthy = False
    if was_healthy:
        while healthy and looks > 0:
            time.sleep(every_s)
            healthy, answer_text = look()
            looks -= 1
    if healthy:
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError:
            pass  # No room for a mark: then every probe is a short one.
    return healthy, answer_text


def main(arguments: list[str]) -> int:
    """See the module."""
    port = os.environ.get("BULKHEAD_HEALTH_PORT", DEFAULT_PORT)
    urls = [argument for argument in arguments if argument != STAY]
    url = urls[0] if urls else os.environ.get("BULKHEAD_PROBE_URL", f"http://127.0.0.1:{port}/readyz")
    healthy, answer_text = keep_probing(lambda: probe_url(url)) if STAY in arguments else probe_url(url)
    print(answer_text)  # noqa: T201
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
