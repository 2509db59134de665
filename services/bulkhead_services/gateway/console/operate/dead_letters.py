"""The room of dead letters: messages that a service could not handle, why, and what people did about them.

In: visits, and forms by which a person dismisses a letter. Out: pages. To send a message again takes the operator's key
of the mesh (ADR 0043): a letter's page has the command.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import OPERATORS
from bulkhead_services.gateway.console.api import Json, Query
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

NOTHING: Json = {"letters": [], "content": False, "next": None}


class ConsoleDeadLetterRoutes(ConsoleRoutes):
    """The routes under /dead-letters."""

    def routes(self) -> list[Route]:
        """Routes of the dead-letter pages."""
        return [
            self.factory.get_route("/dead-letters", self.list_letters),
            self.factory.get_route("/dead-letters/{letter_id}", self.show_letter),
            self.factory.post_route("/dead-letters/{letter_id}", self.dismiss_letter),
        ]

    async def list_letters(self, visit: Visit) -> Response:
        """GET /dead-letters"""
        everything, cursor = visit.query_value("all") == "true", visit.query_value("cursor")
        query: Query = {"all": str(everything).lower(), "limit": 50, "cursor": cursor}
        page = await visit.get_or("/v1/dead-letters", NOTHING, query)
        refused = page.get("refused")
        return visit.render_page(
            "dead_letters/list.html", found=page, refused=refused, everything=everything, cursor=cursor
        )

    async def show_letter(self, visit: Visit) -> Response:
        """GET /dead-letters/{letter_id}"""
        letter = await visit.get(_letter_path(visit))
        return visit.render_page("dead_letters/letter.html", found=letter, may=visit.claim.role in OPERATORS.names)

    async def dismiss_letter(self, visit: Visit) -> Response:
        """POST /dead-letters/{letter_id}"""
        form = await visit.read_form()
        await visit.post(f"{_letter_path(visit)}/dismiss", {"reason": form.get("reason", "")}, form.get(KEY_FIELD, ""))
        path = f"/dead-letters/{visit.request.path_params['letter_id']}"
        return redirect_to(visit.request, path, "The letter is dismissed: it stays stored and is no longer open.")


def _letter_path(visit: Visit) -> str:
    return f"/v1/dead-letters/{visit.request.path_params['letter_id']}"
