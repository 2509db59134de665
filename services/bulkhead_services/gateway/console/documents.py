"""The room of documents: what the tenant's tasks may search and cite; what was read of each; adding and deleting.

In: visits; an upload, whose body goes on to the API unread; a form that deletes. Out: pages.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.text.document_forms import SUPPORTED_FORMS
from bulkhead_contracts import bounds
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to, sending_page

PAGE, CHUNKS = 50, 20
SEARCHED_CHUNKS = (8, bounds.MAX_PASSAGES)
"""Chunks that a search shows: as many as a task's finds unless it asks for more, and the most there are."""


class ConsoleDocumentRoutes(ConsoleRoutes):
    """The routes under /documents."""

    def routes(self) -> list[Route]:
        """Routes of the document pages."""
        return [
            self.factory.get_route("/documents", self.list_documents),
            self.factory.get_route("/documents/show", self.show_document),
            self.factory.get_route("/documents/search", self.search_documents),
            self.factory.post_route("/documents", self.add_document),
            self.factory.post_route("/documents/delete", self.delete_document),
        ]

    async def list_documents(self, visit: Visit) -> Response:
        """GET /documents"""
        page = await visit.get("/v1/documents", limit=PAGE, after=visit.query_value("after"))
        return visit.render_page(
            "documents/list.html",
            documents=page["documents"],
            next=page["next"],
            may_change=_may_change(visit),
            forms=SUPPORTED_FORMS,
            question="",
        )

    async def show_document(self, visit: Visit) -> Response:
        """GET /documents/show?name=NAME&start=CHARACTER"""
        start = visit.query_value("start") or "0"
        name = visit.query_value("name")
        page = await visit.get("/v1/documents/chunks", name=name, start=start, limit=CHUNKS)
        return visit.render_page(
            "documents/document.html", page=page, begins=start == "0", may_change=_may_change(visit)
        )

    async def search_documents(self, visit: Visit) -> Response:
        """GET /documents/search?q=QUESTION"""
        question, limit = visit.query_value("q"), SEARCHED_CHUNKS[visit.query_value("all") == "yes"]
        nothing: Json = {"chunks": [], "pruned": 0, "note": ""}
        reply = await visit.get_or("/v1/documents/search", nothing, {"query": question, "k": limit})
        return visit.render_page(
            "documents/search.html", question=question, reply=reply, refused=reply.get("refused"), shown=limit
        )

    async def add_document(self, visit: Visit) -> Response:
        """POST /documents?key=KEY: a multipart form with a file"""
        key = visit.query_value(KEY_FIELD)
        response = await visit.api.forward_upload(visit.request, visit.token, "/v1/documents", key)
        receipt = response.decode_json()
        is_added = receipt.get("outcome") != "pending"
        effect = "is added: answers from now on find and cite it." if is_added else "is stored, and added in a moment."
        flash = f"{receipt.get('name', 'The document')} {effect}"
        return redirect_to(visit.request, "/documents", flash)

    async def delete_document(self, visit: Visit) -> Response:
        """POST /documents/delete"""
        form = await visit.read_form()
        query = {"name": form.get("name", ""), "reason": form.get("reason", "")}
        if not query["reason"]:
            problem = {"title": "No reason", "detail": f"no reason was given to delete {query['name'][:80]}"}
            raise ApiRefused(422, problem | {"hint": "say why: it is kept with the request"})
        response = await visit.api.send_request(
            "DELETE", visit.token, "/v1/documents", query=query, key=form.get(KEY_FIELD, "")
        )
        response.decode_json()
        flash = f"{query['name'] or 'The document'} is deleted: no later answer finds or cites it."
        return redirect_to(visit.request, sending_page(visit.request, "/documents"), flash)


def _may_change(visit: Visit) -> bool:
    return visit.claim.role in SUBMITTERS.names
