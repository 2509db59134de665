"""The HTTP face: OpenAI's endpoints, and admin ones when asked for. Enters: settings. Leaves: an ASGI app.

A response that is no plain JSON (a stream, silence, a cut body) marks in its log entry whether the client went away.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.offline_model.http import openai
from bulkhead_infra.offline_model.http.faults import Fault, Faults, distort
from bulkhead_infra.offline_model.http.openai import Completion, RequestRefused, chunks_of, error_body
from bulkhead_infra.offline_model.roles.reply import reply_to, role_of
from bulkhead_infra.offline_model.settings import Settings

DEFAULT_OUTPUT_TOKENS, REQUEST_BYTES_MAX, REQUESTS_LOGGED_MAX = 4_096, 16_000_000, 1_000
FOREVER_S = 3_600.0
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class _RawResponse(Response):
    """A response that sends its own ASGI messages, with status 200."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.status_code, self.background, self.entry = 200, None, entry

    async def begin(self, send: Send, headers: Mapping[str, str]) -> None:
        self.entry["status"] = 200
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})

    async def unless_gone(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Do `work` until it ends or the client goes away, whichever is first; the log entry tells which."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self.entry["client_cut"] = not working.done() or isinstance(working.exception(), OSError)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
            self.entry["finished"] = True


class StreamResponse(_RawResponse):
    """Server-sent chunks, one word or so each, paced; `x_sent_unix_ns` is stamped as each one leaves."""

    def __init__(
        self, done: Completion, body: Mapping[str, Any], fault: Fault | None, entry: dict[str, Any], delay_ms: float
    ) -> None:
        super().__init__(entry)
        self.done, self.fault, self.ended = done, fault or Fault("none"), False
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.with_usage = with_usage and self.fault.name != "missing_usage"
        slow = self.fault.name == "long_answer" and self.fault.delay_ms
        self.delay_s = (slow or delay_ms) / 1_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.begin(send, {**EVENT_STREAM, "x-request-id": f"req_{self.done.id}"})
        await self.unless_gone(self._send_all(send), receive)
        if self.ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        for number, chunk in enumerate(chunks_of(self.done, self.with_usage)):
            last = bool(chunk["choices"]) and chunk["choices"][0]["finish_reason"] is not None
            reached = number == self.fault.after_chunks or last
            if self.fault.name == "stall" and reached:
                await asyncio.sleep(self.fault.delay_ms / 1_000 or FOREVER_S)
            if self.fault.name == "cut_stream" and reached:
                # Abrupt: the body never ends and the server drops the connection; else it ends as if whole.
                self.ended = not self.fault.abrupt
                return
            chunk["x_sent_unix_ns"] = time.time_ns()
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
            self.entry["chunks_sent"] += 1
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        self.ended = True


class SilentResponse(_RawResponse):
    """Sends nothing, not even a status, until the client goes away or `delay_ms` is over; then drops the line."""

    def __init__(self, delay_ms: int, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.wait_s = delay_ms / 1_000 or FOREVER_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.unless_gone(asyncio.sleep(self.wait_s), receive)
        if not self.entry["client_cut"]:
            # A promised body that never comes makes the server drop the connection rather than send a 500.
            await self.begin(send, {"content-length": "2"})


class CutResponse(_RawResponse):
    """Half of a body whose length was promised; the server then drops the connection."""

    def __init__(self, body: bytes, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.whole = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.begin(send, {"content-type": "application/json", "content-length": str(len(self.whole))})
        await send({"type": "http.response.body", "body": self.whole[: len(self.whole) // 2], "more_body": True})
        self.entry["finished"] = True


class OfflineModel:
    """The endpoints of one server. Entries of the request log are changed in place while a request is served."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.log: deque[dict[str, Any]] = deque(maxlen=REQUESTS_LOGGED_MAX)
        self.logged = 0

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        raw, body = await self._read(request)
        stream, model = (body.get("stream"), body.get("model")) if isinstance(body, dict) else (None, None)
        self.logged += 1
        entry: dict[str, Any] = {"number": self.logged, "model": model, "stream": bool(stream)}
        entry |= dict.fromkeys(("role", "fault", "usage", "status"))
        entry |= {"chunks_sent": 0, "client_cut": False, "finished": False}
        self.log.append(entry)
        try:
            openai.check_request(body)
            fault = self.faults.take(raw, body)
            entry |= {"role": role_of(body), "fault": fault.name if fault else None}
            response = self._instead(fault, entry) if fault else None
            used = openai.prompt_tokens(body) + (body.get("max_completion_tokens") or body.get("max_tokens") or 0)
            if response is None and used > self.settings.context_tokens:
                raise self._overflow(used)
        except RequestRefused as refused:
            response = JSONResponse(refused.body, refused.status)
        response = response or await self._answer(body, fault, entry)
        if isinstance(response, JSONResponse) or response.media_type:
            entry |= {"status": response.status_code, "finished": True}
        return response

    async def _answer(self, body: dict[str, Any], fault: Fault | None, entry: dict[str, Any]) -> Response:
        # Parsing a long prompt takes long enough to stall other streams: it runs beside the event loop.
        reply = await run_in_threadpool(reply_to, body)
        if fault and fault.kind != "wire":
            reply = distort(reply, fault.name, body)
        endless = fault is not None and fault.name in ("bad_plan_huge", "long_answer")
        done = openai.complete(body, reply, 10**9 if endless else DEFAULT_OUTPUT_TOKENS)
        entry |= {"usage": done.usage, "finish_reason": done.finish_reason}
        if body.get("stream"):
            return StreamResponse(done, body, fault, entry, self.settings.token_delay_ms)
        whole = openai.body_of(done)
        if fault and fault.name == "cut_stream":
            return CutResponse(json.dumps(whole).encode(), entry)
        if fault and fault.name == "missing_usage":
            del whole["usage"]
        return JSONResponse(whole, headers={"x-request-id": f"req_{done.id}"})

    def _instead(self, fault: Fault, entry: dict[str, Any]) -> Response | None:
        """The response of a fault that answers in the model's place; None when the model answers."""
        match fault.name:
            case "429":
                seconds = f"{fault.retry_after_s:g}"
                body = error_body(f"Rate limit reached. Try again in {seconds}s.", "requests", "rate_limit_exceeded")
                return JSONResponse(body, 429, {"Retry-After": seconds})
            case "500" | "503":
                return JSONResponse(
                    error_body("The server had an error, or too much to do.", "server_error"), int(fault.name)
                )
            case "error_200":
                return JSONResponse(error_body("Something failed behind this 200.", "server_error"))
            case "malformed_json":
                return Response('{"id": "chatcmpl-broken", "choices": [{"ind', media_type="application/json")
            case "context_overflow":
                raise self._overflow(self.settings.context_tokens + 1)
            case "timeout":
                return SilentResponse(fault.delay_ms, entry)
            case "stall" if not entry["stream"]:
                return SilentResponse(fault.delay_ms, entry)
            case _:
                return None

    def _overflow(self, used: int) -> RequestRefused:
        message = (
            f"This model's maximum context length is {self.settings.context_tokens} tokens. However, your messages "
            f"resulted in {used} tokens. Please reduce the length of the messages."
        )
        return RequestRefused(400, message, "context_length_exceeded", "messages")

    async def _read(self, request: Request) -> tuple[str, Any]:
        """The body as text and as JSON; refuses a missing key, an oversize body and what is not JSON."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "You didn't provide an API key. Any bearer token is taken here."
            raise RequestRefused(401, message, "invalid_api_key")
        read = bytearray()
        async for piece in request.stream():
            read += piece
            if len(read) > REQUEST_BYTES_MAX:
                raise RequestRefused(413, f"The body is larger than {REQUEST_BYTES_MAX} bytes.")
        try:
            raw = read.decode("utf-8")
            return raw, json.loads(raw)
        except (ValueError, RecursionError):
            raise RequestRefused(400, "We could not parse the JSON body of your request.") from None

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        model = {"id": MODEL_NAME, "object": "model", "created": openai.CREATED_UNIX_S, "owned_by": "bulkhead"}
        return JSONResponse({"object": "list", "data": [model]})

    async def livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": MODEL_NAME})

    async def admin_faults(self, request: Request) -> Response:
        """POST arms a fault, DELETE clears all, GET shows them."""
        if request.method == "DELETE":
            self.faults.armed.clear()
        if request.method == "POST":
            try:
                self.faults.arm(json.loads(await request.body()))
            except (ValueError, TypeError) as wrong:
                return JSONResponse(error_body(str(wrong), "invalid_request_error"), 400)
        return JSONResponse({"armed": self.faults.view()})

    async def admin_requests(self, request: Request) -> Response:
        """GET shows the log of requests, DELETE empties it."""
        if request.method == "DELETE":
            self.log.clear()
            self.logged = 0
        return JSONResponse({"total": self.logged, "requests": list(self.log)})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return JSONResponse(error.body, error.status)


def build_app(settings: Settings) -> Starlette:
    """The ASGI app. Admin routes only with `settings.admin`."""
    model = OfflineModel(settings)
    routes = [
        Route("/v1/chat/completions", model.chat, methods=["POST"]),
        Route("/v1/models", model.models),
        Route("/livez", model.livez),
    ]
    if settings.admin:
        routes += [
            Route("/admin/faults", model.admin_faults, methods=["GET", "POST", "DELETE"]),
            Route("/admin/requests", model.admin_requests, methods=["GET", "DELETE"]),
        ]
    return Starlette(routes=routes, exception_handlers={RequestRefused: _refused})
