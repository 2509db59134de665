"""The room of dead letters: messages that a service could not handle, why, and what people did about them.

In: visits, and forms by which a person dismisses a letter. Out: pages. To send a message again takes the operator's key
of the mesh (ADR 0043): a letter's page has the command.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Json, Query
from bulkhead_services.gateway.console.desk import KEY_FIELD, Desk, Visit, back
from bulkhead_services.gateway.http.routes.budget_requests import OPERATORS

NOTHING: Json = {"letters": [], "content": False, "next": None}


class DeadLetters:
    """The routes under /dead-letters."""

    def __init__(self, at: Desk) -> None:
        self._desk = at

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            self._desk.get("/dead-letters", self.list),
            self._desk.get("/dead-letters/{letter_id}", self.show),
            self._desk.post("/dead-letters/{letter_id}", self.dismiss),
        ]

    async def list(self, visit: Visit) -> Response:
        """GET /dead-letters"""
        everything, cursor = visit.word("all") == "true", visit.word("cursor")
        query: Query = {"all": str(everything).lower(), "limit": 50, "cursor": cursor}
        found = await visit.get_or("/v1/dead-letters", NOTHING, query)
        refused = found.get("refused")
        return visit.page("dead_letters/list.html", found=found, refused=refused, everything=everything, cursor=cursor)

    async def show(self, visit: Visit) -> Response:
        """GET /dead-letters/{letter_id}"""
        found = await visit.get(_path(visit))
        return visit.page("dead_letters/letter.html", found=found, may=visit.claim.role in OPERATORS)

    async def dismiss(self, visit: Visit) -> Response:
        """POST /dead-letters/{letter_id}"""
        form = await visit.form()
        await visit.post(f"{_path(visit)}/dismiss", {"reason": form.get("reason", "")}, form.get(KEY_FIELD, ""))
        return back(visit.request, f"/dead-letters/{visit.request.path_params['letter_id']}")


def _path(visit: Visit) -> str:
    return f"/v1/dead-letters/{visit.request.path_params['letter_id']}"
