"""A counter outside the mesh, in the test's own process: it counts the real effects of the tools counter_increment*.

`POST /increment {"name", "amount"}` -> `{"name", "value", "repeat"}`. A repeated `Idempotency-Key` gets the first
answer and counts nothing; another payload under it gets 422. `misbehave` drops or refuses the next increments.
"""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

Fault = Literal["drop_before", "drop_after", "error_before", "error_after"]


class CounterServer:
    """`with CounterServer() as counter: counter.url`. entries: all that was counted or repeated, in order."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """host: 0.0.0.0 for a mesh in containers, which reaches this machine by another address."""
        self.entries: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, 0), type("Handler", (_CounterHandler,), {"counter": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def counts(self) -> dict[str, Any]:
        """Sums by name, and how many increments and repeats there were."""
        with self._lock:
            counted = [entry for entry in self.entries if not entry["repeat"]]
            sums = {entry["name"]: entry["value"] for entry in counted}
            return {"counts": sums, "increments": len(counted), "repeats": len(self.entries) - len(counted)}

    def misbehave(self, fault: Fault, times: int = 1) -> None:
        """The next increments lose their connection or get 503, before or after they are counted."""
        with self._lock:
            self._faults += [fault] * times

    def clear_faults(self) -> None:
        """Forget what was still to fail."""
        with self._lock:
            self._faults.clear()

    def next_fault(self) -> str:
        """The fault of this increment; "" for none."""
        with self._lock:
            return self._faults.pop(0) if self._faults else ""

    def increment(self, name: str, amount: int, key: str) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        with self._lock:
            counted = [entry for entry in self.entries if not entry["repeat"]]
            first = next((entry for entry in counted if key and entry["key"] == key), None)
            if first is not None and (first["name"], first["amount"]) != (name, amount):
                return 422, {"error": "this Idempotency-Key stands for another payload"}
            before = next((entry["value"] for entry in reversed(counted) if entry["name"] == name), 0)
            value = first["value"] if first is not None else before + amount
            answer = {"name": name, "value": value, "repeat": first is not None}
            self.entries.append({**answer, "amount": amount, "key": key})
            return 200, answer


class _CounterHandler(BaseHTTPRequestHandler):
    counter: CounterServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the counts are what is looked at."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fault = self.counter.next_fault()
        status, answer = 503, {"error": "told to misbehave"}
        if not fault.endswith("_before"):
            key = self.headers.get("idempotency-key", "")
            counted = self.counter.increment(str(body["name"]), int(body.get("amount", 1)), key)
            status, answer = (status, answer) if fault else counted
        if fault.startswith("drop"):
            self.close_connection = True
        else:
            self._send_json(status, answer)

    def _send_json(self, status: int, body: Mapping[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
