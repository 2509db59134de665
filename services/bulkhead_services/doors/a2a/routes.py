"""HTTP of the agent door: who asks, how large a body, how many at once; the rest is the SDK's.

In: requests of A2A clients, in JSON-RPC (POST /a2a) and HTTP+JSON (/a2a/...). Out: their answers, and the agent card.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes import ServerCallContextBuilder, create_jsonrpc_routes, create_rest_routes
from a2a.types import DeleteTaskPushNotificationConfigRequest
from a2a.utils.constants import VERSION_HEADER
from a2a.utils.error_handlers import rest_error_handler
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.callers.authentication import credential_of
from bulkhead.tenant_quotas import TenantQuotas
from bulkhead_services.doors.a2a import card
from bulkhead_services.doors.a2a.handler import ASKING, Asking, Handler
from bulkhead_services.doors.a2a.signatures import PATH as KEYS
from bulkhead_services.doors.a2a.signatures import CardSigner
from bulkhead_services.doors.http.answers import unless_gone
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import EXPECTED, Http, refusal_of
from bulkhead_services.doors.port import Refusal
from bulkhead_services.doors.settings import Settings

# The SDK's warnings quote what clients have sent, with a traceback for each body that does not fit.
logging.getLogger("a2a").setLevel(logging.CRITICAL)
MAX_BODY_BYTES = 256 * 1024
CARD = "/.well-known/agent-card.json"
JSON_RPC = (card.PATH, card.PATH + "/")
"""Clients that take an address for a folder ask at the second."""
_JSON = re.compile(r"application/(a2a\+)?json(\s*;.*)?", re.IGNORECASE)
_CODES = {415: -32005}
_NAMES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class _Context(ServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        return ServerCallContext(state={"headers": dict(request.headers), ASKING: request.state.asking})


class A2a:
    """The routes and their dependencies."""

    def __init__(self, settings: Settings, http: Http, gateway: GatewayPool) -> None:
        self._http, self._gateway = http, gateway
        self._signer = CardSigner(settings.card_key_file, settings.public_url) if settings.card_key_file else None
        sign = self._signer.sign if self._signer is not None else lambda card: card
        self._quotas = TenantQuotas(settings.tenants_file)
        self._handler = Handler(self._quotas, sign, settings.call_timeout_s)

    def routes(self) -> list[Route]:
        """Routes for the application; none where no gateway is set."""
        if not self._gateway.url:
            return []
        builder = _Context()
        found = [
            *(one for path in JSON_RPC for one in create_jsonrpc_routes(self._handler, path, builder, True)),
            *create_rest_routes(self._handler, builder, enable_v0_3_compat=True, path_prefix=card.PATH),
        ]
        own = [
            Route(one.path, self._guarded(one.endpoint), methods=sorted(one.methods or ()))
            for one in found
            if isinstance(one, Route)  # And not the SDK's paths with a tenant in front: a tenant comes of its key.
        ]
        # The SDK has no route for it: its own of 1.0 is at another path.
        of_push = card.PATH + "/v1/tasks/{id}/pushNotificationConfigs/{push_id}"
        own.append(Route(of_push, self._guarded(self._delete_push_of_0_3), methods=["DELETE"]))
        keys = [Route(KEYS, self.keys, methods=["GET"])] if self._signer is not None else []
        return [Route(CARD, self.card, methods=["GET"]), *keys, *own]

    def close(self) -> None:
        """End what waits and streams."""
        self._handler.close()

    async def card(self, request: Request) -> Response:
        """GET /.well-known/agent-card.json"""
        try:
            address = self._http.hosts.check(request)
        except Refusal as refusal:
            return _answer(request, refusal)
        self._quotas.look()
        found = card.public(address, self._quotas.any_push())
        # Of what is said: each signature is another one.
        etag = f'"{hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest()[:32]}"'
        headers = {"Cache-Control": "private, max-age=300", "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        signed = self._signer.sign(found) if self._signer is not None else found
        return JSONResponse(agent_card_to_dict(signed), headers=headers)

    async def keys(self, request: Request) -> Response:
        """GET /.well-known/jwks.json"""
        assert self._signer is not None
        return JSONResponse(self._signer.keys(), headers={"Cache-Control": "public, max-age=300"})

    async def _delete_push_of_0_3(self, request: Request) -> Response:
        """DELETE /a2a/v1/tasks/{id}/pushNotificationConfigs/{push_id}"""
        ids = request.path_params
        wish = DeleteTaskPushNotificationConfigRequest(task_id=ids["id"], id=ids["push_id"])

        @rest_error_handler
        async def answer() -> Response:
            await self._handler.on_delete_task_push_notification_config(wish, _Context().build(request))
            return Response(status_code=204)

        return await answer()

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return await self._answer(request, endpoint)
            except ClientDisconnect:
                return Response(status_code=400)  # Nobody reads it.
            except EXPECTED as error:
                return _answer(request, refusal_of(request, error))

        return answer

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        address = self._http.hosts.check(request)
        caller = await self._http.anybody(request)
        mesh = self._gateway.client(credential_of(request.headers))
        asking = request.state.asking = Asking(mesh, caller, address, _form(request))
        release = self._http.places.take(caller.claim)
        try:
            async with self._http.bodies.read(request, caller.claim, MAX_BODY_BYTES) as raw:
                if raw and not _JSON.fullmatch(request.headers.get("content-type", "")):
                    what, hint = "the Content-Type of the body is not that of JSON", "send it as application/json"
                    raise Refusal(415, "content_type_not_supported", what, hint)
                whole = Request(request.scope, _replay(raw))
                response = await unless_gone(endpoint(whole), request.receive)
            if isinstance(response, EventSourceResponse):
                stream, release = _Released(response, release), _kept
                return stream
            elif asking.refusal is not None:
                response = _failed(request, response, asking.refusal)
            response.headers["Cache-Control"] = "no-store"
            return response
        finally:
            release()


class _Released(Response):
    """A stream that gives its place back, however it ends."""

    def __init__(self, stream: ASGIApp, release: Callable[[], None]) -> None:
        super().__init__()
        self._stream, self._release = stream, release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._stream(scope, receive, send)
        finally:
            self._release()


def _form(request: Request) -> str:
    """The version of A2A in which a client has come: the SDK takes a request without a version for one of 0.3."""
    version = request.headers.get(VERSION_HEADER) or request.query_params.get(VERSION_HEADER, "")
    return "0.3" if request.url.path.startswith(card.PATH + "/v1/") or not version.startswith("1.") else "1.0"


def _kept() -> None:
    """The place is not given back here."""


def _replay(raw: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    return receive


def _failed(request: Request, response: Response, refusal: Refusal) -> Response:
    """An error that A2A has no name for: JSON-RPC's own error, under the status of HTTP."""
    if request.url.path not in JSON_RPC:
        return _answer(request, refusal)
    response.status_code = refusal.status
    response.headers.update(_headers(refusal))
    return response


def _answer(request: Request, refusal: Refusal) -> Response:
    """A refusal in the form of the binding that was asked."""
    told = f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refusal.code.upper(), "domain": "bulkhead"}
    if request.url.path in JSON_RPC:
        code = _CODES.get(refusal.status, -32600 if refusal.status < 500 else -32603)
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": told, "data": [reason]}}
    else:
        name = _NAMES.get(refusal.status, "INVALID_ARGUMENT" if refusal.status < 500 else "UNAVAILABLE")
        body = {"error": {"code": refusal.status, "status": name, "message": told, "details": [reason]}}
    return JSONResponse(body, refusal.status, _headers(refusal))


def _headers(refusal: Refusal) -> dict[str, str]:
    found = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
    return found | ({"Retry-After": str(round(refusal.retry_after_s))} if refusal.retry_after_s else {})
