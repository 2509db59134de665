"""The room of documents: what the tenant's squads may search and cite; adding and deleting.

In: visits; an upload, whose body goes on to the API unread; a form that deletes. Out: pages.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.text.document_forms import SUPPORTED_FORMS
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

PAGE = 50


class ConsoleDocumentRoutes(ConsoleRoutes):
    """The routes under /documents."""

    def routes(self) -> list[Route]:
        """Routes of the document pages."""
        return [
            self.factory.get_route("/documents", self.list_documents),
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
            may_change=visit.claim.role in SUBMITTERS.names,
            forms=SUPPORTED_FORMS,
        )

    async def add_document(self, visit: Visit) -> Response:
        """POST /documents?key=KEY: a multipart form with a file"""
        key = visit.query_value(KEY_FIELD)
        response = await visit.api.forward_upload(visit.request, visit.token, "/v1/documents", key)
        response.decode_json()
        return redirect_to(visit.request, "/documents")

    async def delete_document(self, visit: Visit) -> Response:
        """POST /documents/delete"""
        form = await visit.read_form()
        response = await visit.api.send_request(
            "DELETE", visit.token, "/v1/documents", query={"name": form.get("name", "")}, key=form.get(KEY_FIELD, "")
        )
        response.decode_json()
        return redirect_to(visit.request, "/documents")
