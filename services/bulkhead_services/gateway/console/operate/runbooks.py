"""The room of runbooks: what to do about each alert, as docs/how-to/runbooks.md has it.

In: visits. Out: one page with a section per alert, to which other pages link.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit


class ConsoleRunbookRoutes(ConsoleRoutes):
    """The route /runbooks."""

    def routes(self) -> list[Route]:
        """Route of the page."""
        return [self.factory.get_route("/runbooks", self.show_runbooks)]

    async def show_runbooks(self, visit: Visit) -> Response:
        """GET /runbooks"""
        return visit.render_page("runbooks/page.html")
