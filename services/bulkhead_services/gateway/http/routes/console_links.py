"""Links that sign a person in at the console, once.

In: a request under the person's API key. Out: a path with a token behind its `#`: no server, proxy or Referer sees it.
"""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.telemetry.log import Log
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import json_response, parse_body
from bulkhead_services.gateway.http.schemas import ConsoleLink, ConsoleLinkSubmission

MAX_BODY_BYTES = 4 * 1024
log = Log("gateway.console")


class ConsoleLinkRoutes:
    """POST /v1/console-links."""

    def __init__(self, auth: GatewayAuthenticator, bodies: GatewayRequestBodies) -> None:
        self._auth, self._bodies = auth, bodies

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [Route("/v1/console-links", self.make_link, methods=["POST"])]

    async def make_link(self, request: Request) -> Response:
        """POST /v1/console-links"""
        claim, token, expires_unix_ms = await self._auth.make_link(request)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(ConsoleLinkSubmission, raw or b"{}")
        log.info("login_link_made", tenant=claim.tenant, person=claim.person, role=claim.role)
        path = f"/login?next={quote(body.path)}#{token}"
        headers = {"Cache-Control": "no-store"}
        return json_response(ConsoleLink(path=path, expires_unix_ms=expires_unix_ms), 201, headers)
