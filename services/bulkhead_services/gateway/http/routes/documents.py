"""The routes under /v1/documents: add, show, list and delete documents of a tenant.

In: requests of people and programs. Out: receipts and problem details. The outcome comes from rag as a message; until
then the answer is `pending`.
"""

import asyncio
import hashlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_services.gateway.document_intake import DocumentIntake
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, idempotency_key, size_of
from bulkhead_services.gateway.http.request_values import token as token_in
from bulkhead_services.gateway.http.schemas import DeletionReceipt, DocumentPage, DocumentReceipt
from bulkhead_services.gateway.http.upload import Document, checked_name, read_document
from bulkhead_services.gateway.problems import Problem, not_found
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import Feed, Feeds
from bulkhead_services.gateway.settings import Settings

FORM_BYTES = 64 * 1024
"""Room for the framing of a form."""


class Documents:
    """The routes under /v1/documents."""

    def __init__(
        self, auth: Authenticator, intake: DocumentIntake, feeds: Feeds, bodies: Bodies, settings: Settings
    ) -> None:
        self._auth, self._intake, self._feeds, self._bodies, self._settings = auth, intake, feeds, bodies, settings

    async def add(self, request: Request) -> Response:
        """POST /v1/documents"""
        claim = await self._auth.allowed(request, task_view.MAY_SUBMIT, "add documents", "submitter or operator")
        key = idempotency_key(request, required=False)
        token = self._auth.token_of(request)
        async with self._bodies.read(request, claim, bounds.MAX_BLOB_BYTES, FORM_BYTES, "document") as raw:
            found: Document = read_document(request, raw)
            feed = await self._intake.ingest(claim, found.name, found.media_type, found.data, key, token)
        await self._wait(feed, lambda: feed.view.ingested is not None)
        return _receipt(feed, found.name, hashlib.sha256(found.data).hexdigest())

    async def show(self, request: Request) -> Response:
        """GET /v1/documents/{ingest_id}"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read documents", "submitter")
        ingest = token_in(request, "ingest_id", "ingestion")
        feed = await self._feeds.fresh(claim.tenant, ingest)
        if feed.view.ingested is None:
            hint = "it may still be under way: ask again in a moment; posting it again is harmless"
            raise not_found("finished ingestion", ingest, hint)
        return _receipt(feed, "", "")

    async def list(self, request: Request) -> Response:
        """GET /v1/documents"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read documents", "submitter")
        size = size_of(request)
        after = request.query_params.get("after", "")
        if after:
            checked_name(after)
        found = await self._intake.documents(claim, after, size)
        last = found.documents[-1].name if found.more and found.documents else None
        return answered(DocumentPage(documents=found.documents, next=last))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/documents"""
        claim = await self._auth.allowed(request, task_view.MAY_SUBMIT, "delete documents", "submitter or operator")
        key = idempotency_key(request, required=False)
        name = checked_name(request.query_params.get("name", ""))
        feed = await self._intake.delete(claim, name, key, self._auth.token_of(request))
        await self._wait(feed, lambda: feed.view.deleted is not None)
        ended = feed.view.deleted
        if ended is None:
            return answered(DeletionReceipt(name=name, outcome="pending"), 202, {"Retry-After": "1"})
        if ended.outcome == "rejected":
            raise _refused("The document cannot be deleted", ended.failure)
        if ended.outcome == "absent":
            raise not_found("document", name, "GET /v1/documents lists the names; they must match exactly")
        return answered(DeletionReceipt(name=name, outcome=ended.outcome, versions=ended.versions))

    async def _wait(self, feed: Feed, told: Callable[[], bool]) -> None:
        """Wait for the outcome, at most `ingest_wait_s`."""
        with self._feeds.watching(feed):
            await feed.refresh()
            try:
                async with asyncio.timeout(self._settings.ingest_wait_s):
                    while not told():
                        await feed.changed(feed.version)
            except TimeoutError:
                pass


def _receipt(feed: Feed, name: str, sha256: str) -> Response:
    url = f"/v1/documents/{feed.task}"
    ended = feed.view.ingested
    if ended is None:
        receipt = DocumentReceipt(ingest_id=feed.task, name=name, sha256=sha256, outcome="pending", status_url=url)
        return answered(receipt, 202, {"Location": url, "Retry-After": "1"})
    if ended.outcome == "rejected":
        raise _refused("The document was rejected", ended.failure, ended.detail)
    same = {name: getattr(ended, name) for name in DocumentReceipt.model_fields.keys() & type(ended).model_fields}
    receipt = DocumentReceipt(ingest_id=feed.task, status_url=url, **same)
    return answered(receipt, 201 if ended.outcome == "ingested" else 200, {"Location": url})


def _refused(title: str, failure: Failure | None, detail: str = "") -> Problem:
    what = failure.message if failure else detail or "the document store rejected it"
    hint = (failure.hint if failure else "") or "send text, Markdown, HTML or PDF with content"
    return Problem(422, failure.code if failure else "rejected", title, what, hint)
