"""The HTTP face: OpenAI's endpoints, and admin ones when asked for. Enters: settings. Leaves: an ASGI app."""

import json
from collections import deque
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.offline_model.http import openai
from bulkhead_infra.offline_model.http.faults import Fault, Faults, distort
from bulkhead_infra.offline_model.http.openai import RequestRefused, error_body
from bulkhead_infra.offline_model.http.responses import CutResponse, SilentResponse, StreamResponse
from bulkhead_infra.offline_model.roles.reply import reply_to, role_of
from bulkhead_infra.offline_model.settings import Settings


class OfflineModel:
    """The endpoints of one server. Entries of the request log are changed in place while a request is served."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.log: deque[dict[str, Any]] = deque(maxlen=settings.requests_logged_max)
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
        done = openai.complete(body, reply, 10**9 if endless else self.settings.default_output_tokens)
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
            if len(read) > self.settings.request_bytes_max:
                raise RequestRefused(413, f"The body is larger than {self.settings.request_bytes_max} bytes.")
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
