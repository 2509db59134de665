"""A fake outside world for tests: a server that records what the mesh's tools really did to it.

`POST /<effect>` with a JSON object is one effect, `{"id", "effect", "repeat"}` its answer. A repeated `Idempotency-Key`
gets the first answer and changes nothing; another body under it gets 422. The server lives in the test's process, so
that it knows what happened even when parts of the mesh were killed. `held` and `misbehave` make it slow, or fail, on
purpose.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from bulkhead.testing.assertions import count_words, refute

MAX_BODY_BYTES = 64 * 1024
HELD_MAX_S = 60.0
"""A test that fails while it holds an effect must not hang the next ones."""
MODES = ("drop_before", "drop_after", "error_before", "error_after")
Mode = Literal["drop_before", "drop_after", "error_before", "error_after"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. repeat: its key was known, so nothing was changed."""

    effect: str
    body: Mapping[str, Any]
    key: str
    repeat: bool
    number: int

    def __str__(self) -> str:
        how = "a repeat, nothing changed" if self.repeat else "done"
        return f"{self.effect} {json.dumps(self.body, sort_keys=True)} under key {self.key or '(none)'}: {how}"


class EffectHold:
    """`wait` returns when one more effect stands at the gate."""

    def __init__(self, outside: "FakeWorld", effect: str) -> None:
        self._outside, self._effect = outside, effect
        self._before = outside.at_gate.get(effect, 0)

    def wait(self, timeout_s: float = 30.0) -> None:
        """Fails when none comes."""
        __tracebackhide__ = True
        with self._outside.changed:
            came = self._outside.changed.wait_for(
                lambda: self._outside.at_gate.get(self._effect, 0) > self._before, timeout_s
            )
        if not came:
            refute(
                f"effects.held({self._effect!r})",
                f"none came within {timeout_s:g} s",
                (str(arrival) for arrival in self._outside.arrivals),
            )


class FakeWorld:
    """`with FakeWorld() as outside: outside.port`."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.at_gate: dict[str, int] = {}
        """How many have come, done or not, by effect."""
        self.changed = threading.Condition()
        self._shut: dict[str, threading.Event] = {}
        self._faults: dict[str, list[str]] = {}
        self._answers: dict[tuple[str, str], tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._server = _WorldServer(("127.0.0.1", 0), _handler_of(self))
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in list(self._shut.values()):
            gate.set()
        self._server.shutdown()
        self._server.server_close()

    def handle_request(self, effect: str, body: Mapping[str, Any], key: str) -> tuple[int, dict[str, Any]] | None:
        """Status and answer of one request; None: the connection is dropped."""
        with self.changed:
            self.at_gate[effect] = self.at_gate.get(effect, 0) + 1
            self.changed.notify_all()
            gate = self._shut.get(effect)
        if gate is not None:
            gate.wait(HELD_MAX_S)
        fault = self._next_fault(effect)
        if fault.endswith("_before"):
            return None if fault == "drop_before" else (503, {"error": "told to misbehave"})
        status, answer = self._apply_effect(effect, body, key)
        if fault:
            return None if fault == "drop_after" else (503, {"error": "told to misbehave"})
        return status, answer

    def _apply_effect(self, effect: str, body: Mapping[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            earlier = self._answers.get((effect, key)) if key else None
            if earlier is not None and earlier[0] != body:
                return 422, {"error": "this Idempotency-Key stands for another body"}
            self.arrivals.append(Arrival(effect, body, key, earlier is not None, len(self.arrivals) + 1))
            answer = earlier[1] if earlier is not None else {"id": len(self.arrivals), "effect": effect}
            if key and earlier is None:
                self._answers[effect, key] = body, answer
            self.changed.notify_all()
            return 200, {**answer, "repeat": earlier is not None}

    def _next_fault(self, effect: str) -> str:
        with self.changed:
            faults = self._faults.get(effect)
            return faults.pop(0) if faults else ""

    def misbehave(self, effect: str, mode: str, times: int) -> None:
        """The next requests of this effect fail so."""
        if mode not in MODES:
            raise ValueError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
        with self.changed:
            self._faults.setdefault(effect, []).extend([mode] * times)

    def clear_faults(self) -> None:
        """Remove all faults and gates."""
        with self.changed:
            self._faults.clear()
            for gate in self._shut.values():
                gate.set()
            self._shut.clear()

    def close_gate(self, effect: str) -> threading.Event:
        """Let what comes wait until the event is set."""
        with self.changed:
            return self._shut.setdefault(effect, threading.Event())

    def open_gate(self, effect: str) -> None:
        """End of `close_gate`."""
        with self.changed:
            if (gate := self._shut.pop(effect, None)) is not None:
                gate.set()


class FakeWorldEffects:
    """Effects that came since a test began. `url`: where the services of its mesh find it."""

    def __init__(self, outside: FakeWorld, url: str) -> None:
        self.url = url
        self._outside, self._from = outside, len(outside.arrivals)

    def arrivals(self, effect: str, **body: Any) -> Sequence[Arrival]:
        """All that came, repeats too, with these members of the body among others."""
        came = self._outside.arrivals[self._from :]
        return [arrival for arrival in came if arrival.effect == effect and body.items() <= arrival.body.items()]

    def done(self, effect: str, **body: Any) -> list[Arrival]:
        """Those that changed something."""
        return [arrival for arrival in self.arrivals(effect, **body) if not arrival.repeat]

    def exactly_once(self, effect: str, **body: Any) -> Arrival:
        """It has happened, and once, however often it was sent."""
        __tracebackhide__ = True
        done = self.done(effect, **body)
        if len(done) != 1:
            finding = "it has not happened" if not done else f"it has happened {count_words(len(done))}"
            refute(
                f"effects.exactly_once({effect!r})",
                finding,
                map(str, self._outside.arrivals[self._from :]),
                "nothing else came from the mesh" if not done else "each key is another call",
            )
        return done[0]

    def never(self, effect: str, **body: Any) -> Literal[True]:
        """It has not happened."""
        __tracebackhide__ = True
        if done := self.done(effect, **body):
            refute(f"effects.never({effect!r})", f"it has happened {count_words(len(done))}", map(str, done))
        return True

    @contextmanager
    def held(self, effect: str) -> Iterator[EffectHold]:
        """Let what comes wait until the block ends: `with effects.held("refund") as refund: ...; refund.wait()`."""
        self._outside.close_gate(effect)
        try:
            yield EffectHold(self._outside, effect)
        finally:
            self._outside.open_gate(effect)

    def misbehave(self, effect: str, mode: Mode, times: int = 1) -> None:
        """The next requests lose their connection or get 503, before or after it was done."""
        self._outside.misbehave(effect, mode, times)


class _WorldServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback: who was killed on purpose does not take its answer."""


def _handler_of(outside: FakeWorld) -> type[BaseHTTPRequestHandler]:
    class BoundHandler(_EffectHandler):
        world = outside

    return BoundHandler


class _EffectHandler(BaseHTTPRequestHandler):
    world: FakeWorld
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the arrivals are what is looked at."""

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._send_json(413, {"error": f"send a content-length of at most {MAX_BODY_BYTES}"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._send_json(400, {"error": "send a JSON object"})
            return
        response = self.world.handle_request(self.path.strip("/"), body, self.headers.get("idempotency-key", ""))
        if response is None:
            self.close_connection = True
        else:
            self._send_json(*response)

    def _send_json(self, status: int, body: Mapping[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
