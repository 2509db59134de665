"""`/mcp`: streamable HTTP. In: requests with a key or a token. Out: what the SDK answers, or a refusal before it.

A caller is known and a body bounded before the SDK sees either. Clients of a protocol with sessions are given a session
id by which their requests can be told from those of others; nothing is kept under it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from bulkhead.callers.authentication import Unauthenticated
from bulkhead.http_server.bodies import BodyReader
from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.strict_json import read_message, weigh_values
from bulkhead_services.doors.http.hosts import AllowedHosts
from bulkhead_services.doors.mcp.server import SESSION_HEADER, McpMethods
from bulkhead_services.doors.mcp.sessions import SessionIds
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import Caller, DoorRefusal

PATH = "/mcp"
METADATA = "/.well-known/oauth-protected-resource"
MAX_BODY_BYTES = 4 * bounds.MAX_ARGUMENTS_BYTES
IdentifyCaller = Callable[[Request], Awaitable[Caller]]


class McpHttp:
    """The endpoint. issuer: of JWTs, where there is one: clients learn by it where to log in."""

    def __init__(
        self,
        methods: McpMethods,
        identify_caller: IdentifyCaller,
        bodies: BodyReader,
        places: CallPlaces,
        hosts: AllowedHosts,
        issuer: str,
        sessions: SessionIds,
    ) -> None:
        self._identify_caller, self._bodies, self._places = identify_caller, bodies, places
        self._hosts, self._issuer, self._sessions = hosts, issuer, sessions
        self._manager = StreamableHTTPSessionManager(
            methods.server, stateless=True, max_request_body_size=MAX_BODY_BYTES, session_idle_timeout=None
        )

    def build_routes(self) -> list[BaseRoute]:
        """Routes for the application."""
        return [
            Route(PATH, self),
            Route(METADATA, self.serve_metadata, methods=["GET"]),
            Route(METADATA + PATH, self.serve_metadata, methods=["GET"]),
        ]

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._manager.run():
            await asyncio.Event().wait()

    async def serve_metadata(self, request: Request) -> Response:
        """The place to log in for this resource (RFC 9728)."""
        if not self._issuer:
            raise DoorRefusal(404, "no_issuer", "this mesh takes API keys alone", "send one as a bearer")
        return JSONResponse(
            {
                "resource": f"{self._hosts.check_host(request)}{PATH}",
                "resource_name": "Bulkhead",
                "authorization_servers": [self._issuer],
                "bearer_methods_supported": ["header"],
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        request = Request(scope, receive)
        self._hosts.check_host(request)
        self._hosts.check_origin(request)
        if request.method != "POST":
            # Nothing is sent but in answers, and there is no session to end.
            await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
            return
        try:
            caller = await self._identify_caller(request)
        except Unauthenticated as error:
            await self._render_unauthenticated(request, error)(scope, receive, send)
            return
        session = request.headers.get(SESSION_HEADER)
        if session is not None and not self._sessions.belongs_to(session, caller.claim):
            # Clients begin another session after a 404, the protocol says.
            raise DoorRefusal(
                404, "no_such_session", f"{SESSION_HEADER} is no session of yours here", "initialize anew"
            )
        with self._places.take_place(caller.claim):
            async with self._bodies.read(request, caller.claim, MAX_BODY_BYTES, weigh=weigh_values) as raw:
                disconnected = asyncio.Event()
                scope.setdefault("state", {}).update(caller=caller, gone=disconnected)
                opens = read_message(raw).get("method") == "initialize" and session is None
                watch = asyncio.create_task(_set_when_gone(receive, disconnected))
                try:
                    await self._manager.handle_request(
                        scope, _replay_body(raw, receive), self._send_with_session(caller, send) if opens else send
                    )
                finally:
                    watch.cancel()

    def _send_with_session(self, caller: Caller, send: Send) -> Send:
        """Adds a session id to the answer's head."""

        async def with_session(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                session_header = (SESSION_HEADER.encode(), self._sessions.new_session_id(caller.claim).encode())
                message = {**message, "headers": [*message.get("headers", ()), session_header]}
            await send(message)

        return with_session

    def _render_unauthenticated(self, request: Request, error: Unauthenticated) -> Response:
        where = f', resource_metadata="{self._hosts.check_host(request)}{METADATA}{PATH}"' if self._issuer else ""
        body = {"error": "invalid_token", "error_description": f"{error}; {error.hint}"}
        return JSONResponse(body, 401, {"WWW-Authenticate": f'Bearer error="invalid_token"{where}'})


async def _set_when_gone(receive: Receive, gone: asyncio.Event) -> None:
    """Set the event once the client has closed its connection, or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _replay_body(raw: bytes, receive: Receive) -> Receive:
    """The body that was read, then what comes after it."""
    was_replayed = False

    async def receive_replayed() -> Message:
        nonlocal was_replayed
        if not was_replayed:
            was_replayed = True
            return {"type": "http.request", "body": raw, "more_body": False}
        return await receive()

    return receive_replayed
