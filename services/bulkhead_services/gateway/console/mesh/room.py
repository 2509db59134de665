"""The part of the overview that shows the mesh: services and the messages between them, and what of it needs a person.

In: visits of operators and auditors. Out: a fragment with a drawing and a table, read anew while somebody looks.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.mesh import drawing
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

NOTHING: Json = {"services": [], "edges": [], "window_ms": 0}


class ConsoleMeshRoutes(ConsoleRoutes):
    """The route of the fragment."""

    def routes(self) -> list[Route]:
        """Route of the mesh fragment."""
        return [self.factory.get_route("/overview/mesh", self.show_mesh)]

    async def show_mesh(self, visit: Visit) -> Response:
        """GET /overview/mesh"""
        mesh = await visit.get_or("/v1/mesh", NOTHING)
        return visit.render_page(
            "overview/mesh.html",
            picture=drawing.draw_mesh(mesh),
            rows=drawing.table_rows(mesh),
            replicas=drawing.replica_text,
            refused=[mesh["refused"]] if "refused" in mesh else [],
        )


async def services_needing_person(visit: Visit) -> list[Json]:
    """Services that a person should look at; none where the API tells nothing."""
    return drawing.services_needing_person(await visit.get_or("/v1/mesh", NOTHING))
