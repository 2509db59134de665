"""The routes under /v1/tasks/{task_id}/citations: what stands behind the markers of an answer.

In: requests of people and programs who may read the task. Out: documents, characters, tools and texts; what was erased
or has expired is said as such. Nothing of another tenant is read: task, content and document store are asked under the
caller's own. Each look at a text is logged; an auditor gets none.
"""

import secrets

from starlette.routing import Route

from bulkhead.blobs import BlobCorrupt, BlobMissing, reference
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.tasks import CitationDocument, CitationListQuery, CitationPage, CitationQuery, CitationRow
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.retrieval import PassageReplied, PassageRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import CitedCallReplied, CitedCallRequested
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read, may_read_sources
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_values import existing_task
from bulkhead_services.gateway.problems import not_found, unavailable
from bulkhead_services.gateway.read_model.citations import MARKER, CitedSource, collect_sources, find_markers
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

EXPIRED = "its content has expired or was removed: only its digest is left"
LEFT_OUT = "texts are left out for an auditor"
ERASED = "the document, or this version of it, was erased from the store, and its text with it"


class CitationRoutes:
    """The routes; each answer is bounded by MAX_CITATIONS rows and MAX_CITED_CHARS of text."""

    def __init__(self, context: Context, auth: GatewayAuthenticator, feeds: InboxFeeds) -> None:
        self._context, self._auth, self._feeds = context, auth, feeds

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(CitationListQuery, self._auth, self.list_citations),
            query_route(CitationQuery, self._auth, self.show_citation),
        ]

    async def list_citations(self, claim: RequesterClaim, query: CitationListQuery) -> CitationPage:
        """Citations of the answer."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        by_marker = collect_sources(await feed.read_bodies(bounds.MAX_CITED_MESSAGES))
        named = await self._answer_markers(feed)
        rows = tuple(
            _citation_row(by_marker.get(marker) or CitedSource(marker)) for marker in named[: bounds.MAX_CITATIONS]
        )
        return CitationPage(task_id=feed.task, citations=rows, more=len(named) - len(rows))

    async def _answer_markers(self, feed: InboxFeed) -> tuple[str, ...]:
        """The markers that the answer makes; of an answer that cannot be read, those that its result tells."""
        result = feed.view.result
        if result is None:
            return ()
        if result.content is not None:
            try:
                return find_markers(await self._context.blobs.get_text(feed.tenant, result.content))
            except (BlobMissing, BlobCorrupt):
                pass
        return tuple(dict.fromkeys(citation.marker for citation in result.citations))

    async def show_citation(self, claim: RequesterClaim, query: CitationQuery) -> CitationDocument:
        """The source behind a marker."""
        feed = await existing_task(query.task_id, self._feeds, claim)
        marker = query.marker.lower()
        source = collect_sources(await feed.read_bodies(bounds.MAX_CITED_MESSAGES)).get(marker)
        if not MARKER.fullmatch(f"[#{marker}]") or source is None:
            hint = f"GET /v1/tasks/{feed.task}/citations lists those of its answer; a marker is the 12 digits in [#...]"
            raise not_found("citation", marker[: bounds.MAX_NAME_CHARS], hint)
        document = await self._cited_document(feed, claim, source)
        if not may_read_sources(claim):
            document = _without_texts(document)
        elif document.text is not None or document.call is not None:
            log_content_read(claim, f"citation {marker}", feed.task)
        return document

    async def _cited_document(self, feed: InboxFeed, claim: RequesterClaim, source: CitedSource) -> CitationDocument:
        row = _citation_row(source).model_dump()
        if source.citation is not None:
            return await self._cited_passage(feed, claim, source, row)
        text = source.text if source.text is not None else await self._read_content(feed, source)
        if source.kind == "tool_result":
            request = CitedCallRequested(sha256=source.sha256)
            reply = await self._ask_service("budget", request, feed, claim, bounds.WRITES_TIMEOUT_MS)
            assert isinstance(reply, CitedCallReplied)
            _raise_failure(reply.failure)
            # A fork's call was made in the task that it forks.
            call = reply.call
            if call is not None and feed.view.delivery != "draft":
                call = call.model_copy(update={"arguments_json": ""})  # A model's words, which no checker has read.
            row |= {"call": call, "step_id": call.step_id if call else source.step_id}
        return _build_document(
            row, "kept" if text is not None else "expired", text, "" if text is not None else EXPIRED
        )

    async def _cited_passage(
        self, feed: InboxFeed, claim: RequesterClaim, source: CitedSource, row: dict[str, object]
    ) -> CitationDocument:
        """The characters as the cited version has them: the store keeps it for as long as its document is there."""
        cited = source.citation
        assert cited is not None
        request = PassageRequested(
            document=cited.document, sha256=cited.document_sha256, start=cited.start, end=cited.end
        )
        reply = await self._ask_service("rag", request, feed, claim, bounds.RPC_TIMEOUT_MS)
        assert isinstance(reply, PassageReplied)
        _raise_failure(reply.failure)
        if reply.state == "erased":
            return _build_document(row, "erased", None, ERASED)
        text = reply.text
        if reference("rag", text.encode()).marker != source.marker:
            # Another release may divide a document otherwise: the very words are in the content, if it is still there.
            text = await self._read_content(feed, source) or text
        note = ""
        if reply.state == "superseded":
            row |= {"superseded_by": reply.current_sha256}
            note = (
                f"superseded by version {(reply.current_sha256 or '')[:12]} of {cited.document}: this is what was cited"
            )
        return _build_document(row, reply.state, text, note)

    async def _read_content(self, feed: InboxFeed, source: CitedSource) -> str | None:
        if not source.sha256:
            return None
        ref = ContentRef(author=source.author, sha256=source.sha256, size_bytes=0)
        try:
            return await self._context.blobs.get_text(feed.tenant, ref)
        except (BlobMissing, BlobCorrupt):
            return None

    async def _ask_service(
        self, service: str, body: Body, feed: InboxFeed, claim: RequesterClaim, timeout_ms: int
    ) -> Body:
        """Ask another service. Raises Problem (503)."""
        try:
            return await self._context.publisher.request(
                service,
                body,
                tenant=feed.tenant,
                task=feed.task,
                index=f"cited/{secrets.token_hex(8)}",
                actor=claim.person,
                timeout_s=timeout_ms / 1_000,
            )
        except (BusUnavailable, PublishRefused, RpcRefused) as error:
            raise unavailable(f"{service} does not answer: {error}", "ask again in a moment") from error


def _raise_failure(failure: Failure | None) -> None:
    if failure is not None:
        raise unavailable(f"{failure.code}: {failure.message}", failure.hint or "ask again in a moment")


def _citation_row(source: CitedSource) -> CitationRow:
    cited = source.citation
    return CitationRow(
        marker=source.marker,
        kind=source.kind,
        source=source.source,
        sha256=source.sha256,
        document_sha256=cited.document_sha256 if cited else None,
        start=cited.start if cited else None,
        end=cited.end if cited else None,
        step_id=source.step_id,
    )


def _without_texts(found: CitationDocument) -> CitationDocument:
    call = found.call.model_copy(update={"arguments_json": ""}) if found.call is not None else None
    note = "; ".join(filter(None, (found.note, LEFT_OUT)))
    return found.model_copy(update={"text": None, "cut": False, "call": call, "note": note})


def _build_document(row: dict[str, object], state: str, text: str | None, note: str) -> CitationDocument:
    cut = text is not None and len(text) > bounds.MAX_CITED_CHARS
    text = text[: bounds.MAX_CITED_CHARS] if text is not None else None
    return CitationDocument.model_validate({**row, "state": state, "text": text, "cut": cut, "note": note})
