"""The HTTP application of the doors.

In: requests of outside agents in OpenAI's or Anthropic's form. Out: answers and errors in the same form. Everything
that is known of a run stands behind the Desk.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bulkhead.bus.port import BusError
from bulkhead.callers.authentication import KeysUnavailable, Unauthenticated
from bulkhead.callers.step_keys import StepKeys
from bulkhead.http_server.bodies import Bodies, BodyRefused
from bulkhead.runtime.component import Pool
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.forms.anthropic_messages import Message
from bulkhead_services.doors.forms.chat_options import check_sizes
from bulkhead_services.doors.forms.openai_chat import ChatCompletion
from bulkhead_services.doors.forms.openai_embeddings import Embeddings
from bulkhead_services.doors.forms.openai_responses import Response as OpenAIResponse
from bulkhead_services.doors.forms.port import Form
from bulkhead_services.doors.forms.sse import to_json
from bulkhead_services.doors.forms.strict_json import read_object
from bulkhead_services.doors.http.answers import AnswerStream, standing_headers, unless_gone, whole
from bulkhead_services.doors.http.apis import JSON, api_of
from bulkhead_services.doors.http.caller import caller_of, check_once, holder_of, step_of, task_id
from bulkhead_services.doors.http.hosts import Hosts
from bulkhead_services.doors.http.places import Places
from bulkhead_services.doors.http.token_count import count_of
from bulkhead_services.doors.port import Call, Caller, Desk, Refusal
from bulkhead_services.doors.settings import Settings

log = Log("doors.http")
MAY_ASK = frozenset({"submitter", "operator"})
EXPECTED = (*(Refusal, BodyRefused, HTTPException, BusError, ClientDisconnect), *(Unauthenticated, KeysUnavailable))
Reader = Callable[[object], Form]
Handler = Callable[[Request], Awaitable[Response]]


class Credentials(Protocol):
    """Checks keys and tokens; `Authenticator` does."""

    async def claim(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller. Raises Unauthenticated, KeysUnavailable."""
        ...

    def token_of(self, headers: Mapping[str, str]) -> str:
        """The caller's own token; "" for an API key."""
        ...


class Http:
    """The routes and their dependencies. ready: why no request can be taken now; "" when one can. step_keys: with which
    holders of delegated steps come."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        desk: Desk,
        ready: Callable[[], Awaitable[str]],
        step_keys: StepKeys | None = None,
    ) -> None:
        self._credentials, self._desk, self._ready, self._step_keys = credentials, desk, ready, step_keys
        self.bodies, self.places, self.hosts = Bodies(settings), Places.of_calls(settings), Hosts(settings)
        self.more: list[BaseRoute] = []
        """Routes of the other doors."""
        self.started = False

    def pool(self) -> Pool:
        """Calls under way: how many there may be, and how many there are."""
        return self.places.pool()

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/openai/v1/chat/completions", self._asking(ChatCompletion), methods=["POST"]),
            Route("/openai/v1/responses", self._asking(OpenAIResponse), methods=["POST"]),
            Route("/openai/v1/embeddings", self._asking(Embeddings), methods=["POST"]),
            Route("/openai/v1/models", self.openai_models, methods=["GET"]),
            Route("/openai/v1/models/{model:path}", self.openai_models, methods=["GET"]),
            Route("/anthropic/v1/messages", self._asking(Message), methods=["POST"]),
            Route("/anthropic/v1/messages/count_tokens", self.count_tokens, methods=["POST"]),
            Route("/anthropic/v1/models", self.anthropic_models, methods=["GET"]),
            Route("/anthropic/v1/models/{model:path}", self.anthropic_models, methods=["GET"]),
            *self.more,
            Route("/v1/runs/{task}", self.end_run, methods=["DELETE"]),
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/startupz", self.startupz, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers=dict.fromkeys((*EXPECTED, Exception), _failed))

    def _asking(self, read: Reader) -> Handler:
        async def ask(request: Request) -> Response:
            return await self._ask(request, read)

        return ask

    async def _ask(self, request: Request, read: Reader) -> Response:
        caller = await self.caller(request)
        release = self.places.take(caller.claim)
        try:
            form, call = await self._begin(request, caller, read)
            if form.asked.stream:
                # From here on the stream gives the place back.
                stream, release = self._stream(request, form, call, release), _kept
                return stream
            try:
                body = await whole(call, form, request.receive)
            except Refusal as refusal:
                return _refused(request, refusal, call)
            return _answered(request, body, standing_headers(call.standing))
        finally:
            release()

    async def _begin(self, request: Request, caller: Caller, read: Reader) -> tuple[Form, Call]:
        """A call that is stored, and its form. A body is counted until here: nothing of it stays in memory
        while the answer is waited for."""
        async with self.bodies.read(request, caller.claim, bounds.MAX_ASKED_BYTES) as raw:
            form = read(read_object(_plain(request, raw)))
            if len(raw) > bounds.MAX_BLOB_BYTES:
                check_sizes(form.asked)
            call = await unless_gone(self._desk.ask(caller, form.asked), request.receive)
        form.asked = replace(form.asked, messages=(), options={}, kept_as=call.kept_as)
        return form, call

    def _stream(self, request: Request, form: Form, call: Call, release: Callable[[], None]) -> Response:
        headers = standing_headers(call.standing) | {api_of(request.url.path).request_id_header: _request_id(request)}
        return AnswerStream(call, form, headers, lambda refusal: _refused(request, refusal, call), release)

    async def caller(self, request: Request) -> Caller:
        """Who asks. Raises Refusal, Unauthenticated, KeysUnavailable."""
        caller = await self.anybody(request)
        if caller.claim.role not in MAY_ASK:
            what = f"the role {caller.claim.role} may not ask models"
            raise Refusal(403, "forbidden", what, "use a key whose role is submitter or operator")
        return caller

    async def anybody(self, request: Request) -> Caller:
        """Who asks, in any role. Raises Refusal, Unauthenticated, KeysUnavailable."""
        check_once(request.headers.keys())
        if self._step_keys is not None and (step := step_of(request.headers, self._step_keys)) is not None:
            return holder_of(request.headers, step)
        claim = await self._credentials.claim(request.headers)
        return caller_of(request.headers, claim, self._credentials.token_of(request.headers))

    async def openai_models(self, request: Request) -> Response:
        """GET /openai/v1/models, and one of them."""
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "bulkhead"}
            for name in await self._models(request)
        ]
        if name := request.path_params.get("model"):
            return _answered(request, _one(rows, name))
        return _answered(request, {"object": "list", "data": rows})

    async def anthropic_models(self, request: Request) -> Response:
        """GET /anthropic/v1/models, and one of them."""
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
            for name in await self._models(request)
        ]
        if name := request.path_params.get("model"):
            return _answered(request, _one(rows, name))
        first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return _answered(request, {"data": rows, "has_more": False, "first_id": first, "last_id": last})

    async def _models(self, request: Request) -> tuple[str, ...]:
        return await self._desk.models(await self.caller(request))

    async def count_tokens(self, request: Request) -> Response:
        """POST /anthropic/v1/messages/count_tokens"""
        caller = await self.caller(request)
        release = self.places.take(caller.claim)
        try:
            async with self.bodies.read(request, caller.claim, bounds.MAX_ASKED_BYTES) as raw:
                return _answered(request, count_of(read_object(_plain(request, raw))))
        finally:
            release()

    async def end_run(self, request: Request) -> Response:
        """DELETE /v1/runs/{task}"""
        caller = await self.caller(request)
        task = task_id(request.path_params["task"])
        await self._desk.end(caller, task)
        return _answered(request, {"task": task, "ended": True})

    async def livez(self, _: Request) -> Response:
        """GET /livez: whether the process runs."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: whether requests can be taken now."""
        reason = await self._ready()
        return JSONResponse(
            {"status": "unready", "reason": reason} if reason else {"status": "ok"}, 503 if reason else 200
        )

    async def startupz(self, _: Request) -> Response:
        """GET /startupz: whether the start has finished."""
        return JSONResponse({"status": "ok" if self.started else "starting"}, 200 if self.started else 503)


def _kept() -> None:
    """The place is not given back here."""


def _plain(request: Request, raw: bytes) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        what = f"the body is encoded as {encoding[: bounds.MAX_NAME_CHARS]!r}"
        raise Refusal(415, "unsupported_encoding", what, "send it without Content-Encoding")
    return raw


def _one(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for row in rows:
        if row["id"] == name:
            return row
    known = ", ".join(row["id"] for row in rows[:20])
    what = f"there is no model {name[: bounds.MAX_NAME_CHARS]!r}"
    raise Refusal(404, "unknown_route", what, f"the models are {known}", field="model")


def _answered(request: Request, body: dict[str, Any], more: Mapping[str, str] | None = None) -> Response:
    headers = {api_of(request.url.path).request_id_header: _request_id(request), **(more or {})}
    return Response(to_json(body).encode("utf-8", "replace"), 200, headers, JSON)


def _request_id(request: Request) -> str:
    """An id for this request alone, for the logs of its client."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = f"req_{uuid.uuid4().hex}"
    return str(request.state.request_id)


def _refused(request: Request, refusal: Refusal, call: Call | None = None) -> Response:
    answer = api_of(request.url.path).refused(refusal, _request_id(request))
    if call is not None:
        answer.headers.update(standing_headers(call.standing))
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    """The answer to a failure, in the API's own form."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # Nobody reads it.
    answer = _refused(request, refusal_of(request, error))
    if isinstance(error, BodyRefused | HTTPException):
        answer.headers.update(error.headers or {})
    return answer


def refusal_of(request: Request, error: Exception) -> Refusal:
    """The refusal that a failure is."""
    match error:
        case Refusal():
            return error
        case BodyRefused():
            wait_s = error.retry_after_s
            texts = error.code, error.detail, error.hint
            return Refusal(error.status, *texts, retry=wait_s is not None, retry_after_s=wait_s)
        case Unauthenticated():
            return Refusal(401, "unauthorized", str(error), error.hint)
        case KeysUnavailable():
            hint = "use an API key, or ask the operator to check the JWKS setting"
            return Refusal(503, "unavailable", str(error), hint, retry=True, retry_after_s=2)
        case HTTPException():
            return _no_route(request, error)
        case BusError():
            what, hint = f"the message broker does not answer: {error}", "send the same request again in a moment"
            return Refusal(503, "unavailable", what, hint, retry=True, retry_after_s=2)
        case _:
            what, hint = "an error in the doors themselves", "the operator finds it in their log, by the request's id"
            log.error("request_failed", path=request.url.path, request_id=_request_id(request), reason=repr(error))
            return Refusal(500, "internal_error", what, hint)


def _no_route(request: Request, error: HTTPException) -> Refusal:
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    what = f"there is no {request.method} {request.url.path[: bounds.MAX_SUMMARY_CHARS]} here"
    hint = (
        "OpenAI's API is at /openai/v1 (chat/completions, responses, embeddings, models), Anthropic's at /anthropic "
        "(v1/messages, v1/messages/count_tokens, v1/models), MCP at /mcp, A2A at /a2a with its card at "
        "/.well-known/agent-card.json, delegated steps at /v1/steps"
    )
    return Refusal(error.status_code, code, what, hint)
