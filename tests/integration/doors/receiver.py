"""A client's own receiver of push notifications: a real HTTP server on a port of this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """came: what was posted, with its headers in small letters, taken or not; status: how it answers."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.status = 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"localhost:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/pushed?of=ann"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def states(self) -> list[str]:
        """States that were told, in either form, each once where it came again."""
        found = [one for *_, body in self.came if (one := state(body))]
        return [one for number, one in enumerate(found) if not number or found[number - 1] != one]


def state(body: dict[str, Any]) -> str:
    """The state that a post tells; "" for an artifact."""
    told = body if "kind" in body else body.get("statusUpdate", {})
    return str(told.get("status", {}).get("state", ""))


@contextmanager
def receiving() -> Iterator[Receiver]:
    """One that runs."""
    found = Receiver()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
