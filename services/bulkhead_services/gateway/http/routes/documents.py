"""The routes under /v1/documents: add, show, list, search and delete documents of a tenant.

In: requests of people and programs. Out: receipts and problem details. The outcome comes from rag as a message; until
then the answer is `pending`.
"""

import asyncio
import hashlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.documents import (
    DocumentChunkPage,
    DocumentChunkQuery,
    DocumentListQuery,
    DocumentPage,
    DocumentSearchPage,
    DocumentSearchQuery,
)
from bulkhead.gateway_api.query import EVERY_ROLE, SUBMITTERS
from bulkhead.text.document_forms import SUPPORTED_FORMS, find_misfit
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.document_intake import DocumentIntake
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read, may_read_sources
from bulkhead_services.gateway.http.query_routes import parse_query, query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import check_id, idempotency_key, json_response
from bulkhead_services.gateway.http.schemas import DeletionReceipt, DocumentReceipt
from bulkhead_services.gateway.http.upload import UploadedDocument, checked_name, read_document
from bulkhead_services.gateway.problems import Problem, invalid_query, not_found
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.settings import Settings

FORM_BYTES = 64 * 1024
"""Room for the framing of a form."""


class DocumentRoutes:
    """The routes under /v1/documents."""

    def __init__(
        self,
        auth: GatewayAuthenticator,
        intake: DocumentIntake,
        feeds: InboxFeeds,
        bodies: GatewayRequestBodies,
        settings: Settings,
    ) -> None:
        self._auth, self._intake, self._feeds, self._bodies, self._settings = auth, intake, feeds, bodies, settings

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(DocumentListQuery, self._auth, self.list_documents),
            query_route(DocumentChunkQuery, self._auth, self.list_chunks),
            Route(DocumentSearchQuery.PATH, self.search_documents, methods=["GET"]),
            Route("/v1/documents", self.add_document, methods=["POST"]),
            Route("/v1/documents", self.delete_document, methods=["DELETE"]),
            Route("/v1/documents/{ingest_id}", self.show_document, methods=["GET"]),
        ]

    async def add_document(self, request: Request) -> Response:
        """POST /v1/documents"""
        claim = await self._auth.require_role(request, SUBMITTERS, "add documents")
        key = idempotency_key(request, required=False)
        token = self._auth.token_of(request)
        async with self._bodies.read_body(request, claim, bounds.MAX_BLOB_BYTES, FORM_BYTES, "document") as raw:
            document: UploadedDocument = read_document(request, raw)
            # Before it is stored: what no reader takes is kept nowhere.
            if (misfit := find_misfit(document.data, document.media_type, document.name)) is not None:
                raise _refused_problem("The document was rejected", misfit)
            feed = await self._intake.ingest_document(
                claim, document.name, document.media_type, document.data, key, token
            )
        await self._wait_for_outcome(feed, lambda: feed.view.ingested is not None)
        return _receipt_response(feed, document.name, hashlib.sha256(document.data).hexdigest())

    async def show_document(self, request: Request) -> Response:
        """GET /v1/documents/{ingest_id}"""
        claim = await self._auth.require_role(request, EVERY_ROLE, "read documents")
        ingest = check_id(request.path_params["ingest_id"], "ingestion")
        feed = await self._feeds.fresh_feed(claim.tenant, ingest)
        if feed.view.ingested is None:
            hint = "it may still be under way: ask again in a moment; posting it again is harmless"
            raise not_found("finished ingestion", ingest, hint)
        return _receipt_response(feed, "", "")

    async def list_documents(self, claim: RequesterClaim, query: DocumentListQuery) -> DocumentPage:
        """A page of the tenant's documents, by name."""
        if query.after:
            checked_name(query.after)
        page = await self._intake.list_documents(claim, query.after, query.limit)
        last = page.documents[-1].name if page.more and page.documents else None
        return DocumentPage(documents=page.documents, next=last)

    async def list_chunks(self, claim: RequesterClaim, query: DocumentChunkQuery) -> DocumentChunkPage:
        """A document with a page of its chunks."""
        name = checked_name(query.name)
        part = await self._intake.read_chunks(claim, name, query.start, query.limit)
        if part.document is None:
            raise not_found("document", name, "GET /v1/documents lists the names; they must match exactly")
        chunks, content = part.chunks, may_read_sources(claim)
        if not content:
            chunks = tuple(chunk.model_copy(update={"title": "", "text": ""}) for chunk in chunks)
        elif chunks:
            log_content_read(claim, f"document {part.document.sha256[:12]}")
        return DocumentChunkPage(
            document=part.document,
            chars=part.chars,
            lost_pages=part.lost_pages,
            chunks=chunks,
            content=content,
            next=part.next,
        )

    async def search_documents(self, request: Request) -> Response:
        """GET /v1/documents/search: not a `query_route`, because the signer wants the caller's own token."""
        claim = await self._auth.require_role(request, DocumentSearchQuery.ALLOWED, DocumentSearchQuery.ACTION)
        query = parse_query(DocumentSearchQuery, request)
        if not query.query.strip():
            raise invalid_query("query", query.query, "send a question with words that documents have")
        reply = await self._intake.search_documents(claim, query.query, query.k, self._auth.token_of(request))
        if reply.chunks:
            log_content_read(claim, "document search")
        return json_response(
            DocumentSearchPage(query=query.query, chunks=reply.chunks, pruned=reply.pruned, note=reply.note)
        )

    async def delete_document(self, request: Request) -> Response:
        """DELETE /v1/documents"""
        claim = await self._auth.require_role(request, SUBMITTERS, "delete documents")
        key = idempotency_key(request, required=False)
        name = checked_name(request.query_params.get("name", ""))
        reason = " ".join(request.query_params.get("reason", "").split())  # On one line, as everywhere.
        if len(reason) > bounds.MAX_REASON_CHARS:
            hint = f"send at most {bounds.MAX_REASON_CHARS} characters"
            raise invalid_query("reason", reason, hint, bounds.MAX_REASON_CHARS)
        feed = await self._intake.delete_document(claim, name, key, self._auth.token_of(request), reason)
        await self._wait_for_outcome(feed, lambda: feed.view.deleted is not None)
        ended = feed.view.deleted
        if ended is None:
            return json_response(DeletionReceipt(name=name, outcome="pending"), 202, {"Retry-After": "1"})
        if ended.outcome == "rejected":
            raise _refused_problem("The document cannot be deleted", ended.failure)
        if ended.outcome == "absent":
            raise not_found("document", name, "GET /v1/documents lists the names; they must match exactly")
        return json_response(DeletionReceipt(name=name, outcome=ended.outcome, versions=ended.versions))

    async def _wait_for_outcome(self, feed: InboxFeed, told: Callable[[], bool]) -> None:
        """Wait for the outcome, at most `ingest_wait_s`."""
        with self._feeds.watch_feed(feed):
            await feed.refresh()
            try:
                async with asyncio.timeout(self._settings.ingest_wait_s):
                    while not told():
                        await feed.wait_for_change(feed.version)
            except TimeoutError:
                pass


def _receipt_response(feed: InboxFeed, name: str, sha256: str) -> Response:
    url = f"/v1/documents/{feed.task}"
    ended = feed.view.ingested
    if ended is None:
        receipt = DocumentReceipt(ingest_id=feed.task, name=name, sha256=sha256, outcome="pending", status_url=url)
        return json_response(receipt, 202, {"Location": url, "Retry-After": "1"})
    if ended.outcome == "rejected":
        raise _refused_problem("The document was rejected", ended.failure, ended.detail)
    same = {name: getattr(ended, name) for name in DocumentReceipt.model_fields.keys() & type(ended).model_fields}
    receipt = DocumentReceipt(ingest_id=feed.task, status_url=url, **same)
    return json_response(receipt, 201 if ended.outcome == "ingested" else 200, {"Location": url})


def _refused_problem(title: str, failure: Failure | None, detail: str = "") -> Problem:
    reason = failure.message if failure else detail or "the document store rejected it"
    hint = (failure.hint if failure else "") or f"send {SUPPORTED_FORMS}, with content"
    return Problem(422, failure.code if failure else "rejected", title, reason, hint)
