"""A provider of models that speaks three APIs and says what a script has it say.

In: scripts by a marker that a person's message holds. Out: what reached it, as `SeenRequest`s, and `faults`: requests
that a real provider would refuse. It keeps no conversation: the turn follows from the history that a client sends, so
that titles and summaries, which clients ask for beside, disturb no script.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.e2e.clients.answers import Answer, Turn, render_stream, render_whole
from tests.e2e.clients.conversation import Api, Malformed, SeenRequest, read_request

KEY = "sk-of-the-provider"
PATHS: dict[str, Api] = {
    "/v1/chat/completions": "openai-chat",
    "/v1/messages": "anthropic",
    "/v1/responses": "openai-responses",
}
ASIDE = Turn("A short title.")
"""Said where a client asks without the tools that the script needs."""
BYTES_PER_TOKEN = 4


class ScriptedProvider:
    """`with ScriptedProvider() as provider`: listens at `url`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._scripts: dict[str, Sequence[Turn]] = {}
        self._seen: list[tuple[str, SeenRequest]] = []
        self._lock = threading.Lock()
        self.calls, self.tokens = 0, 0
        """All that it was paid for."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def play(self, marker: str, *turns: Turn) -> None:
        """From now on, whoever writes the marker gets these turns; the last one again and again."""
        self._scripts[marker] = turns

    def requests_of(self, marker: str) -> list[SeenRequest]:
        """Requests that were answered from the script of this marker, oldest first."""
        with self._lock:
            return [request for name, request in self._seen if name == marker]

    def answer(self, api: Api, body: Mapping[str, Any]) -> Answer:
        """The next turn of the script that the conversation names. Raises Malformed."""
        request = read_request(api, body)
        marker, turn = self._next_turn(request)
        with self._lock:
            self._seen.append((marker, request))
            spoken = turn.text + "".join(call.text for call in turn.calls)
            sizes = (len(json.dumps(body)) // BYTES_PER_TOKEN, len(spoken) // BYTES_PER_TOKEN + 1)
            self.calls, self.tokens = self.calls + 1, self.tokens + sum(sizes)
            return Answer(turn, self.calls, str(body["model"]), *sizes)

    def _next_turn(self, request: SeenRequest) -> tuple[str, Turn]:
        for marker, turns in self._scripts.items():
            count = request.turns_since(marker)
            if count is None:
                continue
            turn = turns[min(count, len(turns) - 1)]
            if all(call.name in request.tools for call in turn.calls):
                return marker, turn
        return "", ASIDE


class _Handler(BaseHTTPRequestHandler):
    provider: ScriptedProvider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            api, body = PATHS.get(self.path.partition("?")[0]), json.loads(raw)
            if api is None:
                raise Malformed(f"nothing is served at {self.path}")
            if KEY not in (self.headers.get("x-api-key"), (self.headers.get("Authorization") or "")[7:]):
                raise Malformed("the key is not the provider's")
            answer = self.provider.answer(api, body)
        except (KeyError, TypeError, ValueError, Malformed) as error:
            self.provider.faults.append(f"{self.path}: {type(error).__name__}: {error}: {raw[:500]!r}")
            self._send(400, "application/json", json.dumps({"error": {"message": str(error)}}).encode())
            return
        if not body.get("stream"):
            self._send(200, "application/json", json.dumps(render_whole(api, answer)).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in render_stream(api, answer, with_usage=bool(body.get("stream_options", {}).get("include_usage"))):
            self.wfile.write(event)
            self.wfile.flush()
        self.close_connection = True

    def _send(self, status: int, media_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what was seen is kept."""
