"""The HTTP face: OpenAI's endpoints, and admin ones when asked for. Enters: settings. Leaves: an ASGI app."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.offline_model.embedding import DIMENSIONS, as_base64, embed
from bulkhead_infra.offline_model.http import openai
from bulkhead_infra.offline_model.http.faults import REPLY_FAULTS, Fault, Faults, distort
from bulkhead_infra.offline_model.http.openai import RequestRefused, error_body
from bulkhead_infra.offline_model.http.request_log import RequestLog
from bulkhead_infra.offline_model.http.responses import CutResponse, SilentResponse, StreamResponse
from bulkhead_infra.offline_model.roles.reply import reply_to, role_of
from bulkhead_infra.offline_model.settings import Settings

EMBEDDING_INPUTS_MAX = 2_048
OUTAGES = {
    "500": "The server had an error while processing your request.",
    "503": "The engine is currently overloaded, please try again later.",
}


class OfflineModel:
    """The endpoints of one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.log = RequestLog(settings.requests_logged_max)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        raw, body = await self._read(request)
        known = body if isinstance(body, dict) else {}
        entry = self.log.open(model=known.get("model"), stream=bool(known.get("stream")))
        try:
            openai.check_request(body)
            entry["role"] = role_of(body)
            fault = self.faults.take(raw, body)
            entry["fault"] = fault.name if fault else None
            early = self._instead(fault, entry) if fault else None
            if early:
                return early
            self._check_context(body)
        except RequestRefused as refused:
            return _finish(entry, JSONResponse(refused.body, refused.status))
        return await self._answer(body, fault, entry)

    async def _answer(self, body: dict[str, Any], fault: Fault | None, entry: dict[str, Any]) -> Response:
        # Parsing a long prompt takes long enough to stall other streams: it runs beside the event loop.
        reply = await run_in_threadpool(reply_to, body)
        if fault and fault.name in REPLY_FAULTS:
            reply = distort(reply, fault.name, body)
        limit = self.settings.default_output_tokens
        limit = 10**9 if fault and fault.name in ("bad_plan_huge", "long_answer") else limit
        done = openai.complete(body, reply, limit)
        entry["usage"] = done.usage
        entry["finish_reason"] = done.finish_reason
        if body.get("stream"):
            return StreamResponse(done, body, fault, entry, self.settings.token_delay_ms)
        if fault and fault.name == "cut_stream":
            return CutResponse(json.dumps(openai.body_of(done)).encode(), entry)
        whole = openai.body_of(done)
        if fault and fault.name == "missing_usage":
            del whole["usage"]
        return _finish(entry, JSONResponse(whole, headers={"x-request-id": f"req_{done.id}"}))

    def _instead(self, fault: Fault, entry: dict[str, Any]) -> Response | None:
        """The response of a fault that answers in the model's place; None when the model answers."""
        match fault.name:
            case "429":
                seconds = f"{fault.retry_after_s:g}"
                message = f"Rate limit reached. Please try again in {seconds}s."
                body = error_body(message, "requests", "rate_limit_exceeded")
                return _finish(entry, JSONResponse(body, 429, {"Retry-After": seconds}))
            case "500" | "503":
                return _finish(entry, JSONResponse(error_body(OUTAGES[fault.name], "server_error"), int(fault.name)))
            case "error_200":
                return _finish(entry, JSONResponse(error_body("Something failed behind this 200.", "server_error")))
            case "malformed_json":
                half = '{"id": "chatcmpl-broken", "choices": [{"ind'
                return _finish(entry, Response(half, media_type="application/json"))
            case "context_overflow":
                raise self._overflow(self.settings.context_tokens + 1)
            case "timeout":
                return SilentResponse(fault.delay_ms, entry)
            case "stall" if not entry["stream"]:
                return SilentResponse(fault.delay_ms, entry)
            case _:
                return None

    def _check_context(self, body: dict[str, Any]) -> None:
        used = openai.prompt_tokens(body) + (body.get("max_completion_tokens") or body.get("max_tokens") or 0)
        if used > self.settings.context_tokens:
            raise self._overflow(used)

    def _overflow(self, used: int) -> RequestRefused:
        return RequestRefused(
            400,
            f"This model's maximum context length is {self.settings.context_tokens} tokens. However, your messages "
            f"resulted in {used} tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
            "messages",
        )

    async def _read(self, request: Request) -> tuple[str, Any]:
        """The body as text and as JSON; refuses a missing key, an oversize body and what is not JSON."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "You didn't provide an API key. Any bearer token is taken here."
            raise RequestRefused(401, message, "invalid_api_key")
        taken = bytearray()
        async for piece in request.stream():
            taken += piece
            if len(taken) > self.settings.request_bytes_max:
                raise RequestRefused(413, f"The body is larger than {self.settings.request_bytes_max} bytes.")
        try:
            raw = taken.decode("utf-8")
            return raw, json.loads(raw)
        except (ValueError, RecursionError):
            raise RequestRefused(400, "We could not parse the JSON body of your request.") from None

    async def models(self, request: Request) -> Response:
        """GET /v1/models and /v1/models/{name}."""
        model = {
            "id": MODEL_NAME,
            "object": "model",
            "created": openai.CREATED_UNIX_S,
            "owned_by": "bulkhead-offline-rules",
        }
        name = request.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": [model]})
        if name != MODEL_NAME:
            raise RequestRefused(404, f"The model '{name}' does not exist", "model_not_found", "model")
        return JSONResponse(model)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings: hashed bags of words; `dimensions` and `encoding_format` are honoured."""
        _, body = await self._read(request)
        given = body.get("input") if isinstance(body, dict) else None
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            texts = []
        if not 0 < len(texts) <= EMBEDDING_INPUTS_MAX:
            raise RequestRefused(400, "'input' must be a string or up to 2048 strings.", "invalid_value", "input")
        if body.get("model") != MODEL_NAME:
            raise RequestRefused(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")
        size = body.get("dimensions", DIMENSIONS)
        if not isinstance(size, int) or not 8 <= size <= 4_096:
            raise RequestRefused(400, "'dimensions' must be from 8 to 4096.", "invalid_value", "dimensions")
        vectors = [embed(text, size) for text in texts]
        coded = [as_base64(v) for v in vectors] if body.get("encoding_format") == "base64" else vectors
        used = sum(openai.count_tokens(text) for text in texts)
        rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(coded)]
        usage = {"prompt_tokens": used, "total_tokens": used}
        return JSONResponse({"object": "list", "model": MODEL_NAME, "data": rows, "usage": usage})

    async def livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": MODEL_NAME})

    async def admin_faults(self, request: Request) -> Response:
        """POST arms a fault, DELETE clears all, GET shows them."""
        if request.method == "DELETE":
            self.faults.clear()
            return JSONResponse({"armed": []})
        if request.method == "POST":
            try:
                self.faults.arm(json.loads(await request.body()))
            except (ValueError, TypeError, AttributeError) as wrong:
                return JSONResponse(error_body(str(wrong), "invalid_request_error"), 400)
        return JSONResponse({"armed": self.faults.view()})

    async def admin_requests(self, request: Request) -> Response:
        """GET shows the log of requests, DELETE empties it."""
        if request.method == "DELETE":
            self.log.clear()
        return JSONResponse(self.log.view())


def _finish(entry: dict[str, Any], response: Response) -> Response:
    entry["status"] = response.status_code
    entry["finished"] = True
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return JSONResponse(error.body, error.status)


def build_app(settings: Settings) -> Starlette:
    """The ASGI app; `app.state.model` is the `OfflineModel` behind it. Admin routes only with `settings.admin`."""
    model = OfflineModel(settings)
    routes = [
        Route("/v1/chat/completions", model.chat, methods=["POST"]),
        Route("/v1/models", model.models),
        Route("/v1/models/{name}", model.models),
        Route("/v1/embeddings", model.embeddings, methods=["POST"]),
        Route("/livez", model.livez),
    ]
    if settings.admin:
        routes += [
            Route("/admin/faults", model.admin_faults, methods=["GET", "POST", "DELETE"]),
            Route("/admin/requests", model.admin_requests, methods=["GET", "DELETE"]),
        ]
    app = Starlette(routes=routes, exception_handlers={RequestRefused: _refused})
    app.state.model = model
    return app
