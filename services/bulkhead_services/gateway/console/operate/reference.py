"""The reference of the HTTP API in a browser, drawn from /openapi.json; it needs no session.

In: GET /docs. Out: a page with the vendored reader, in the frame of whoever is signed in.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.visits import token_of
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.problems import Problem

# Icons of the reader's style sheet are images inside it.
CSP = pages.CSP.replace("img-src 'self'", "img-src 'self' data:")


class ConsoleReferenceRoutes:
    """The route /docs."""

    def __init__(self, auth: GatewayAuthenticator) -> None:
        self._auth = auth

    def routes(self) -> list[Route]:
        """Route of the page."""
        return [Route("/docs", self.show_reference, methods=["GET"])]

    async def show_reference(self, request: Request) -> Response:
        """GET /docs"""
        try:
            claim = await self._auth.authenticate_caller({"authorization": f"Bearer {token_of(request)}"})
        except Problem:
            claim = None
        page = pages.render_page(request, "reference.html", claim=claim, url="/docs")
        page.headers["Content-Security-Policy"] = CSP
        return page
