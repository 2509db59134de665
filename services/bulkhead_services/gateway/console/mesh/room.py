"""The part of the overview that shows the mesh: services and the messages between them, and what of it needs a person.

In: visits of operators and auditors. Out: a fragment with a drawing and a table, read anew while somebody looks.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.desk import Desk, Visit
from bulkhead_services.gateway.console.mesh import drawing

NOTHING: Json = {"services": [], "edges": [], "window_ms": 0}


class MeshPart:
    """The route of the fragment."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._desk.get("/overview/mesh", self.show)]

    async def show(self, visit: Visit) -> Response:
        """GET /overview/mesh"""
        told = await visit.get_or("/v1/mesh", NOTHING)
        return visit.page(
            "overview/mesh.html",
            picture=drawing.picture(told),
            rows=drawing.rows(told),
            replicas=drawing.replicas,
            refused=[told["refused"]] if "refused" in told else [],
        )


async def needs(visit: Visit) -> list[Json]:
    """Services that a person should look at; none where the API tells nothing."""
    return drawing.needs_person(await visit.get_or("/v1/mesh", NOTHING))
