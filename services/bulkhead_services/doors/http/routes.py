"""The HTTP application of the doors.

In: requests of outside agents in OpenAI's or Anthropic's form. Out: answers and errors in the same form.
Everything that is known of a run stands behind the ModelCallPort.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bulkhead.bus.port import BusError
from bulkhead.callers.authentication import CallerAuthenticator, CallerKeysUnavailable, Unauthenticated
from bulkhead.callers.step_keys import StepKeys
from bulkhead.http_server.bodies import BodyReader, BodyRefused
from bulkhead.model_apis.allowed import BETAS
from bulkhead.model_apis.media import estimate_body
from bulkhead.quotas.token_estimates import TokenCounter
from bulkhead.runtime.component import Pool
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.anthropic_messages import AnthropicMessageForm
from bulkhead_services.doors.forms.chat_options import check_sizes, fit_messages
from bulkhead_services.doors.forms.fields import Fields
from bulkhead_services.doors.forms.openai_chat import ChatCompletion
from bulkhead_services.doors.forms.openai_embeddings import Embeddings
from bulkhead_services.doors.forms.openai_responses import OpenAIResponseForm as OpenAIResponse
from bulkhead_services.doors.forms.port import ApiForm
from bulkhead_services.doors.forms.sse import to_json
from bulkhead_services.doors.forms.strict_json import read_object, weigh_values
from bulkhead_services.doors.http.answers import (
    ANTHROPIC,
    JSON,
    AnswerStream,
    api_of,
    left_out_header,
    run_unless_disconnected,
    spending_headers,
)
from bulkhead_services.doors.http.caller import caller_of, check_once, holder_of, parse_task_id, step_of
from bulkhead_services.doors.http.hosts import AllowedHosts
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import Caller, DoorRefusal, ModelCallPort, StoredCall
from bulkhead_services.doors.settings import Settings

log = Log("doors.http")
MAY_ASK = frozenset({"submitter", "operator"})
EXPECTED = (
    *(DoorRefusal, BodyRefused, HTTPException, BusError, ClientDisconnect),
    *(Unauthenticated, CallerKeysUnavailable),
)
Reader = Callable[[object], ApiForm]
Handler = Callable[[Request], Awaitable[Response]]


class DoorsHttp:
    """The routes and their dependencies. ready: why no request can be taken now; "" when one can. step_keys: with which
    holders of delegated steps come."""

    def __init__(
        self,
        settings: Settings,
        credentials: CallerAuthenticator,
        desk: ModelCallPort,
        ready: Callable[[], Awaitable[str]],
        step_keys: StepKeys | None = None,
    ) -> None:
        self._credentials, self._desk, self._ready, self._step_keys = credentials, desk, ready, step_keys
        self.bodies, self.places, self.hosts = (
            BodyReader(settings),
            CallPlaces.of_calls(settings),
            AllowedHosts(settings),
        )
        self._counting = FairSemaphore(1)
        """A long text is counted in a thread, and tenants take turns."""
        self.more: list[BaseRoute] = []
        """Routes of the other doors."""
        self.started = False

    def call_pool(self) -> Pool:
        """Calls under way: how many there may be, and how many there are."""
        return self.places.call_pool()

    def build_app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/openai/v1/chat/completions", self._endpoint_for(ChatCompletion), methods=["POST"]),
            Route("/openai/v1/responses", self._endpoint_for(OpenAIResponse), methods=["POST"]),
            Route("/openai/v1/embeddings", self._endpoint_for(Embeddings), methods=["POST"]),
            Route("/openai/v1/models", self.openai_models, methods=["GET"]),
            Route("/openai/v1/models/{model:path}", self.openai_models, methods=["GET"]),
            Route("/anthropic/v1/messages", self._endpoint_for(AnthropicMessageForm), methods=["POST"]),
            Route("/anthropic/v1/messages/count_tokens", self.count_tokens, methods=["POST"]),
            Route("/anthropic/v1/models", self.anthropic_models, methods=["GET"]),
            Route("/anthropic/v1/models/{model:path}", self.anthropic_models, methods=["GET"]),
            *self.more,
            Route("/v1/runs/{task}", self.end_run, methods=["DELETE"]),
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/startupz", self.startupz, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers=dict.fromkeys((*EXPECTED, Exception), _render_failure))

    def _endpoint_for(self, read: Reader) -> Handler:
        async def serve_form(request: Request) -> Response:
            return await self._serve_call(request, read)

        return serve_form

    async def _serve_call(self, request: Request, read: Reader) -> Response:
        caller = await self.identify_model_caller(request)
        with self.places.take_place(caller.claim) as place:
            form, call = await self._begin_call(request, caller, read)
            if form.parsed_call.stream:
                return self._stream_answer(request, form, call, place)
            try:
                answer = await run_unless_disconnected(call.wait_for_answer(), request.receive)
                body = form.render_answer(answer)
            except DoorRefusal as refusal:
                return _render_refusal(request, refusal, call)
            left_out = list(dict.fromkeys((*form.parsed_call.left_out, *answer.left_out)))
            return _render_answer(request, body, spending_headers(call.run_spending) | left_out_header(left_out))

    async def _begin_call(self, request: Request, caller: Caller, read: Reader) -> tuple[ApiForm, StoredCall]:
        """A call that is stored, and its form. A body is counted until here: nothing of it stays in memory
        while the answer is waited for."""
        async with self.bodies.read(request, caller.claim, bounds.MAX_ASKED_BYTES, weigh=weigh_values) as raw:
            form = read(_body_of(request, raw))
            if len(raw) > bounds.MAX_BLOB_BYTES:
                form.parsed_call = fit_messages(form.parsed_call)
                check_sizes(form.parsed_call)
            call = await run_unless_disconnected(self._desk.begin_model_call(caller, form.parsed_call), request.receive)
        form.parsed_call = replace(form.parsed_call, messages=(), options={}, kept_as=call.kept_as)
        return form, call

    def _stream_answer(self, request: Request, form: ApiForm, call: StoredCall, place: ExitStack) -> Response:
        """A stream that gives the place back, however it ends."""
        headers = spending_headers(call.run_spending) | {
            api_of(request.url.path).request_id_header: _request_id(request),
            **left_out_header(form.parsed_call.left_out),
        }
        refused = partial(_render_refusal, request, call=call)
        return AnswerStream(call, form, headers, refused, place.pop_all().close)

    async def identify_model_caller(self, request: Request) -> Caller:
        """The caller, who may ask models. Raises DoorRefusal, Unauthenticated, CallerKeysUnavailable."""
        caller = await self.identify_caller(request)
        if caller.claim.role not in MAY_ASK:
            message = f"the role {caller.claim.role} may not ask models"
            raise DoorRefusal(403, "forbidden", message, "use a key whose role is submitter or operator")
        return caller

    async def identify_caller(self, request: Request) -> Caller:
        """The caller, in any role. Raises DoorRefusal, Unauthenticated, CallerKeysUnavailable."""
        check_once(request.headers.keys())
        if self._step_keys is not None and (step := step_of(request.headers, self._step_keys)) is not None:
            return holder_of(request.headers, step)
        claim = await self._credentials.claim(request.headers)
        return caller_of(request.headers, claim, self._credentials.token_of(request.headers))

    async def openai_models(self, request: Request) -> Response:
        """GET /openai/v1/models, and one of them."""
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "bulkhead"}
            for name in await self._list_models(request)
        ]
        if name := request.path_params.get("model"):
            return _render_answer(request, _row_of_model(rows, name))
        return _render_answer(request, {"object": "list", "data": rows})

    async def anthropic_models(self, request: Request) -> Response:
        """GET /anthropic/v1/models, and one of them."""
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
            for name in await self._list_models(request)
        ]
        if name := request.path_params.get("model"):
            return _render_answer(request, _row_of_model(rows, name))
        first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return _render_answer(request, {"data": rows, "has_more": False, "first_id": first, "last_id": last})

    async def _list_models(self, request: Request) -> tuple[str, ...]:
        return await self._desk.list_models(await self.identify_model_caller(request))

    async def count_tokens(self, request: Request) -> Response:
        """POST /anthropic/v1/messages/count_tokens"""
        caller = await self.identify_model_caller(request)
        with self.places.take_place(caller.claim):
            async with self.bodies.read(request, caller.claim, bounds.MAX_ASKED_BYTES, weigh=weigh_values) as raw:
                body = _body_of(request, raw)
                async with self._counting.hold_slot(caller.claim.tenant, caller.claim.person):
                    return _render_answer(request, await asyncio.to_thread(count_tokens_of, body))

    async def end_run(self, request: Request) -> Response:
        """DELETE /v1/runs/{task}"""
        caller = await self.identify_model_caller(request)
        task = parse_task_id(request.path_params["task"])
        await self._desk.end_run(caller, task)
        return _render_answer(request, {"task": task, "ended": True})

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


def _body_of(request: Request, raw: bytes) -> dict[str, Any]:
    """The body, with what Anthropic's API has in a header. Raises DoorRefusal."""
    body = read_object(_check_encoding(request, raw))
    if api_of(request.url.path) is ANTHROPIC and (betas := request.headers.get("anthropic-beta", "")):
        body[BETAS] = [beta.strip() for beta in betas.split(",") if beta.strip()]
    return body


def _check_encoding(request: Request, raw: bytes) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        message = f"the body is encoded as {encoding[: bounds.MAX_NAME_CHARS]!r}"
        raise DoorRefusal(415, "unsupported_encoding", message, "send it without Content-Encoding")
    return raw


def _row_of_model(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for row in rows:
        if row["id"] == name:
            return row
    model_names = ", ".join(row["id"] for row in rows[:20])
    message = f"there is no model {name[: bounds.MAX_NAME_CHARS]!r}"
    raise DoorRefusal(404, "unknown_route", message, f"the models are {model_names}", field="model")


def _render_answer(request: Request, body: dict[str, Any], more: Mapping[str, str] | None = None) -> Response:
    headers = {api_of(request.url.path).request_id_header: _request_id(request), **(more or {})}
    return Response(to_json(body).encode("utf-8", "replace"), 200, headers, JSON)


def _request_id(request: Request) -> str:
    """An id for this request alone, for the logs of its client."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = f"req_{uuid.uuid4().hex}"
    return str(request.state.request_id)


def _render_refusal(request: Request, refusal: DoorRefusal, call: StoredCall | None = None) -> Response:
    answer = api_of(request.url.path).render_refusal(refusal, _request_id(request))
    if call is not None:
        answer.headers.update(spending_headers(call.run_spending))
    return answer


async def _render_failure(request: Request, error: Exception) -> Response:
    """The answer to a failure, in the API's own form."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # Nobody reads it.
    answer = _render_refusal(request, refusal_of(request, error))
    if isinstance(error, BodyRefused | HTTPException):
        answer.headers.update(error.headers or {})
    return answer


def refusal_of(request: Request, error: Exception) -> DoorRefusal:
    """The refusal that a failure is."""
    match error:
        case DoorRefusal():
            return error
        case BodyRefused():
            wait_s = error.retry_after_s
            texts = error.code, error.detail, error.hint
            return DoorRefusal(error.status, *texts, retry=wait_s is not None, retry_after_s=wait_s)
        case Unauthenticated():
            return DoorRefusal(401, "unauthorized", str(error), error.hint)
        case CallerKeysUnavailable():
            hint = "use an API key, or ask the operator to check the JWKS setting"
            return DoorRefusal(503, "unavailable", str(error), hint, retry=True, retry_after_s=2)
        case HTTPException():
            return _unknown_path(request, error)
        case BusError():
            message, hint = f"the message broker does not answer: {error}", "send the same request again in a moment"
            return DoorRefusal(503, "unavailable", message, hint, retry=True, retry_after_s=2)
        case _:
            message, hint = (
                "an error in the doors themselves",
                "the operator finds it in their log, by the request's id",
            )
            log.error("request_failed", path=request.url.path, request_id=_request_id(request), reason=repr(error))
            return DoorRefusal(500, "internal_error", message, hint)


def _unknown_path(request: Request, error: HTTPException) -> DoorRefusal:
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"there is no {request.method} {request.url.path[: bounds.MAX_SUMMARY_CHARS]} here"
    hint = (
        "OpenAI's API is at /openai/v1 (chat/completions, responses, embeddings, models), Anthropic's at /anthropic "
        "(v1/messages, v1/messages/count_tokens, v1/models), MCP at /mcp, A2A at /a2a with its card at "
        "/.well-known/agent-card.json, delegated steps at /v1/steps"
    )
    return DoorRefusal(error.status_code, code, message, hint)


def count_tokens_of(value: object) -> dict[str, Any]:
    """The answer to a request for a count. Raises DoorRefusal."""
    body = Fields(value).as_dict()
    parsed_call = AnthropicMessageForm({**body, "max_tokens": 1, "stream": False}).parsed_call
    sent = {"messages": parsed_call.messages, **parsed_call.options}
    tokens = estimate_body(TokenCounter(parsed_call.model), to_json(sent).encode("utf-8", "replace"), {})
    return {"input_tokens": tokens}
