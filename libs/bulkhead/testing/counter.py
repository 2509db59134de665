"""An external counter for tests: it counts real effects, independently of the mesh.

`python -m bulkhead.testing.counter --port N --file F` (port 0: any; the address is the first line of stdout).
`POST /increment {"name", "amount"}` -> `{"name", "value", "repeat"}`. With `Idempotency-Key` a repeated key gets
the first answer, counts nothing, and is counted in `repeats`; another payload under it gets 422. Every increment
is fsynced to the file before its answer, so counts survive a kill -9.
`GET /counts` -> `{"counts": {name: value}, "increments": n, "repeats": n}`.
`POST /misbehave {"mode": "drop_before"|"drop_after"|"error_before"|"error_after"|"stall", "times": n}`: the next n
increments lose their connection, answer 503 or hang, before or after counting.
"""

import argparse
import json
import os
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

MAX_BODY_BYTES = 64 * 1024
MODES = ("drop_before", "drop_after", "error_before", "error_after", "stall")


@dataclass
class CountLedger:
    """Counts and keys; every change is a line of the file."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    increments: int = 0
    repeats: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        raw = self.path.read_bytes() if self.path.exists() else b""
        complete = raw[: raw.rfind(b"\n") + 1]
        for line in complete.splitlines():
            self._apply_entry(json.loads(line))
        # Buffering off: a line is with the kernel when write returns, and on disk after fsync.
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        # A line that a kill cut short was never answered for.
        self._file.truncate(len(complete))
        self._file.seek(0, os.SEEK_END)

    def _apply_entry(self, entry: dict[str, Any]) -> None:
        if entry["repeat"]:
            self.repeats += 1
            return
        self.increments += 1
        self.counts[entry["name"]] = entry["value"]
        if entry["key"]:
            self.keys[entry["key"]] = entry

    def increment(self, name: str, amount: int, key: str) -> dict[str, Any] | None:
        """The answer; None when the key stands for another payload."""
        with self._lock:
            first = self.keys.get(key) if key else None
            if first is not None and (first["name"], first["amount"]) != (name, amount):
                return None
            value = first["value"] if first is not None else self.counts.get(name, 0) + amount
            entry = {"name": name, "amount": amount, "key": key, "value": value, "repeat": first is not None}
            self._file.write(json.dumps(entry).encode() + b"\n")
            os.fsync(self._file.fileno())
            self._apply_entry(entry)
            return {"name": name, "value": value, "repeat": entry["repeat"]}

    def read(self) -> dict[str, Any]:
        """Body of `GET /counts`."""
        with self._lock:
            return {"counts": dict(self.counts), "increments": self.increments, "repeats": self.repeats}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class CounterServer:
    """The counter in a thread of this process: `with CounterServer(path) as counter: counter.url`."""

    def __init__(self, path: Path, port: int = 0, host: str = "127.0.0.1") -> None:
        """host: 0.0.0.0 for a mesh in containers, which reaches this machine by another address."""
        self.ledger = CountLedger(path)
        self._faults: list[str] = []
        self._faults_lock = threading.Lock()
        self._stalled = threading.Event()
        self._server = ThreadingHTTPServer((host, port), self._handler_class())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stalled.set()
        self._server.shutdown()
        self._server.server_close()
        self.ledger.close()

    def serve_forever(self) -> None:
        """Serve in this thread until the process ends."""
        self._server.serve_forever()

    def counts(self) -> dict[str, Any]:
        """Counts, as `GET /counts`."""
        return self.ledger.read()

    def misbehave(self, mode: str, times: int = 1) -> None:
        """The next increments fail in this mode."""
        if mode not in MODES:
            raise ValueError(f"no mode {mode!r}; use one of {', '.join(MODES)}")
        with self._faults_lock:
            self._faults.extend([mode] * times)

    def next_fault(self) -> str:
        """The mode of this increment, "" for none."""
        with self._faults_lock:
            return self._faults.pop(0) if self._faults else ""

    def clear_faults(self) -> None:
        """Forget what was still to fail."""
        with self._faults_lock:
            self._faults.clear()

    def faults_left(self) -> int:
        """Number of faults that no increment has met yet."""
        with self._faults_lock:
            return len(self._faults)

    def wait_stalled(self) -> None:
        """Hang until the server stops."""
        self._stalled.wait()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        counter = self

        class BoundHandler(_CounterHandler):
            server_counter = counter

        return BoundHandler


class _CounterHandler(BaseHTTPRequestHandler):
    server_counter: CounterServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the counts are what is looked at."""

    def do_GET(self) -> None:
        if self.path == "/counts":
            self._send_json(200, self.server_counter.counts())
        else:
            self._send_json(404, {"error": "there are /counts, /increment and /misbehave"})

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._send_json(413, {"error": f"send a content-length of at most {MAX_BODY_BYTES}"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            if self.path == "/misbehave":
                self.server_counter.misbehave(body["mode"], int(body.get("times", 1)))
                self._send_json(200, {})
            elif self.path == "/increment":
                self._serve_increment(str(body["name"]), int(body.get("amount", 1)))
            else:
                self._send_json(404, {"error": "there are /counts, /increment and /misbehave"})
        except (ValueError, KeyError, TypeError) as error:
            self._send_json(400, {"error": f"malformed: {error}"})

    def _serve_increment(self, name: str, amount: int) -> None:
        fault = self.server_counter.next_fault()
        if fault == "stall":
            self.server_counter.wait_stalled()
            self.close_connection = True
            return
        if fault == "drop_before":
            self.close_connection = True
            return
        if fault == "error_before":
            self._send_json(503, {"error": "told to misbehave"})
            return
        answer = self.server_counter.ledger.increment(name, amount, self.headers.get("idempotency-key", ""))
        if fault == "drop_after":
            self.close_connection = True
        elif fault == "error_after":
            self._send_json(503, {"error": "told to misbehave"})
        elif answer is None:
            self._send_json(422, {"error": "this Idempotency-Key stands for another payload"})
        else:
            self._send_json(200, answer)

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description="An external counter for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", type=Path, required=True)
    arguments = parser.parse_args()
    counter = CounterServer(arguments.file, arguments.port)
    sys.stdout.write(counter.url + "\n")
    sys.stdout.flush()
    counter.serve_forever()


if __name__ == "__main__":
    main()
