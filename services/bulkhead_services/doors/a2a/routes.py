"""HTTP of the agent door: who asks, how large a body, how many at once; the rest is the SDK's.

In: requests of A2A clients, in JSON-RPC (POST /a2a) and HTTP+JSON (/a2a/...). Out: their answers, and the agent card.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.routes import ServerCallContextBuilder, create_jsonrpc_routes, create_rest_routes
from a2a.types import DeleteTaskPushNotificationConfigRequest
from a2a.utils.constants import VERSION_HEADER
from a2a.utils.error_handlers import rest_error_handler
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.bounded_dict import BoundedDict
from bulkhead.callers.authentication import credential_of
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead_services.doors.a2a import card
from bulkhead_services.doors.a2a.card import KEYS_PATH, CardSigner
from bulkhead_services.doors.a2a.handler import ASKING, A2aHandler, A2aRequest
from bulkhead_services.doors.forms.strict_json import read_message, weigh_values
from bulkhead_services.doors.http.answers import run_unless_disconnected
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import EXPECTED, DoorsHttp, refusal_of
from bulkhead_services.doors.port import DoorRefusal
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

MAX_CARDS = 16


class _CallContextBuilder(ServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        return ServerCallContext(state={"headers": dict(request.headers), ASKING: request.state.asking})


class A2aRoutes:
    """The routes and their dependencies."""

    def __init__(self, settings: Settings, http: DoorsHttp, gateway: GatewayPool) -> None:
        self._http, self._gateway = http, gateway
        self._signer = CardSigner(settings.card_key_file, settings.public_url) if settings.card_key_file else None
        sign = self._signer.sign_card if self._signer is not None else lambda card: card
        self._cards = BoundedDict[str, dict[str, Any]](MAX_CARDS)
        """Documents by their etag: anybody may ask, and a signature takes time."""
        self._quotas = TenantQuotas(settings.tenants_file)
        self._handler = A2aHandler(self._quotas, sign, settings.call_timeout_s)

    def build_routes(self) -> list[Route]:
        """Routes for the application; none where no gateway is set."""
        if not self._gateway.url:
            return []
        builder = _CallContextBuilder()
        sdk_routes = [
            *(route for path in JSON_RPC for route in create_jsonrpc_routes(self._handler, path, builder, True)),
            *create_rest_routes(self._handler, builder, enable_v0_3_compat=True, path_prefix=card.PATH),
        ]
        routes = [
            Route(route.path, self._guard_endpoint(route.endpoint), methods=sorted(route.methods or ()))
            for route in sdk_routes
            if isinstance(route, Route)  # And not the SDK's paths with a tenant in front: a tenant comes of its key.
        ]
        # The SDK has no route for it: its own of 1.0 is at another path.
        of_push = card.PATH + "/v1/tasks/{id}/pushNotificationConfigs/{push_id}"
        routes.append(Route(of_push, self._guard_endpoint(self._delete_push_of_0_3), methods=["DELETE"]))
        keys = [Route(KEYS_PATH, self.serve_keys, methods=["GET"])] if self._signer is not None else []
        return [Route(CARD, self.serve_card, methods=["GET"]), *keys, *routes]

    def close(self) -> None:
        """End what waits and streams."""
        self._handler.close()

    async def serve_card(self, request: Request) -> Response:
        """GET /.well-known/agent-card.json"""
        try:
            address = self._http.hosts.check_host(request)
        except DoorRefusal as refusal:
            return _render_refusal(request, refusal)
        self._quotas.reload_if_changed()
        public_card = card.public_card(address, self._quotas.any_push())
        # Of what is said: each signature is another one.
        etag = f'"{hashlib.sha256(public_card.SerializeToString(deterministic=True)).hexdigest()[:32]}"'
        version = ".".join(_named_version(request).split(".")[:2])  # Patch numbers are not considered (A2A, 3.6).
        etag = f'{etag[:-1]}-{version if version in card.VERSIONS else ""}"'
        headers = {"Cache-Control": "private, max-age=300", "ETag": etag, "Vary": "A2A-Version"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        if (document := self._cards.get_refreshed(etag)) is None:
            signed = self._signer.sign_card(public_card) if self._signer is not None else public_card
            document = self._cards[etag] = card.card_document(signed, version)
        return JSONResponse(document, headers=headers)

    async def serve_keys(self, request: Request) -> Response:
        """GET /.well-known/jwks.json"""
        assert self._signer is not None
        return JSONResponse(self._signer.public_keys(), headers={"Cache-Control": "public, max-age=300"})

    async def _delete_push_of_0_3(self, request: Request) -> Response:
        """DELETE /a2a/v1/tasks/{id}/pushNotificationConfigs/{push_id}"""
        ids = request.path_params
        wish = DeleteTaskPushNotificationConfigRequest(task_id=ids["id"], id=ids["push_id"])

        @rest_error_handler
        async def delete_config() -> Response:
            await self._handler.on_delete_task_push_notification_config(wish, _CallContextBuilder().build(request))
            return Response(status_code=204)

        return await delete_config()

    def _guard_endpoint(self, endpoint: Endpoint) -> Endpoint:
        async def serve_guarded(request: Request) -> Response:
            try:
                return await self._serve_request(request, endpoint)
            except ClientDisconnect:
                return Response(status_code=400)  # Nobody reads it.
            except EXPECTED as error:
                return _render_refusal(request, refusal_of(request, error))

        return serve_guarded

    async def _serve_request(self, request: Request, endpoint: Endpoint) -> Response:
        address = self._http.hosts.check_host(request)
        caller = await self._http.identify_caller(request)
        mesh = self._gateway.client_for(credential_of(request.headers))
        asking = request.state.asking = A2aRequest(mesh, caller, address, _a2a_version(request))
        with self._http.places.take_place(caller.claim) as place:
            async with self._http.bodies.read(request, caller.claim, MAX_BODY_BYTES, weigh=weigh_values) as raw:
                if raw and not _JSON.fullmatch(request.headers.get("content-type", "")):
                    message, hint = "the Content-Type of the body is not that of JSON", "send it as application/json"
                    raise DoorRefusal(415, "content_type_not_supported", message, hint)
                read_message(raw)
                replayed = Request(request.scope, _replay_body(raw))
                response = await run_unless_disconnected(endpoint(replayed), request.receive)
            if isinstance(response, EventSourceResponse):
                return _ReleasingStream(response, place.pop_all().close)
            if asking.refusal is not None:
                response = _render_failure(request, response, asking.refusal)
            response.headers["Cache-Control"] = "no-store"
            return response


class _ReleasingStream(Response):
    """A stream that gives its place back, however it ends."""

    def __init__(self, stream: ASGIApp, release: Callable[[], None]) -> None:
        super().__init__()
        self._stream, self._release = stream, release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._stream(scope, receive, send)
        finally:
            self._release()


def _a2a_version(request: Request) -> str:
    """The version of A2A in which a client has come: the SDK takes a request without a version for one of 0.3."""
    is_before = request.url.path.startswith(card.PATH + "/v1/") or not _named_version(request).startswith("1.")
    return "0.3" if is_before else "1.0"


def _named_version(request: Request) -> str:
    return request.headers.get(VERSION_HEADER) or request.query_params.get(VERSION_HEADER, "")


def _replay_body(raw: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    return receive


def _render_failure(request: Request, response: Response, refusal: DoorRefusal) -> Response:
    """An error that A2A has no name for: JSON-RPC's own error, under the status of HTTP."""
    if request.url.path not in JSON_RPC:
        return _render_refusal(request, refusal)
    response.status_code = refusal.status
    response.headers.update(_refusal_headers(refusal))
    return response


def _render_refusal(request: Request, refusal: DoorRefusal) -> Response:
    """A refusal in the form of the binding that was asked."""
    message = f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refusal.code.upper(), "domain": "bulkhead"}
    if request.url.path in JSON_RPC:
        code = _CODES.get(refusal.status, -32600 if refusal.status < 500 else -32603)
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message, "data": [reason]}}
    else:
        name = _NAMES.get(refusal.status, "INVALID_ARGUMENT" if refusal.status < 500 else "UNAVAILABLE")
        body = {"error": {"code": refusal.status, "status": name, "message": message, "details": [reason]}}
    return JSONResponse(body, refusal.status, _refusal_headers(refusal))


def _refusal_headers(refusal: DoorRefusal) -> dict[str, str]:
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
    return headers | ({"Retry-After": str(round(refusal.retry_after_s))} if refusal.retry_after_s else {})
