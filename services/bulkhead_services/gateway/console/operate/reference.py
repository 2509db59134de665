"""The reference of the HTTP API in a browser, drawn from /openapi.json; it needs no session.

In: GET /docs. Out: a page with the vendored reader.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console import pages

# Icons of the reader's style sheet are images inside it.
CSP = pages.CSP.replace("img-src 'self'", "img-src 'self' data:")


def reference_routes() -> list[Route]:
    """Routes for the application."""
    return [Route("/docs", show_reference)]


async def show_reference(request: Request) -> Response:
    """GET /docs"""
    page = pages.render_page(request, "reference.html")
    page.headers["Content-Security-Policy"] = CSP
    return page
