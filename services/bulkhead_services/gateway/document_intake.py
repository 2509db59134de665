"""Documents on their way to the document store: content is stored, authority signed, and rag asked to act.

In: documents of known people. Out: durable requests to rag, and the feeds where their outcomes appear.
"""

import hashlib
import secrets

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import GrantRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import (
    DocumentChunksReplied,
    DocumentChunksRequested,
    DocumentDeleteRequested,
    DocumentIngestRequested,
    DocumentSearchReplied,
    DocumentSearchRequested,
    DocumentsReplied,
    DocumentsRequested,
)
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway import authority
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.problems import Problem, not_stored, unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

DOCUMENTS = "documents"
"""The task of requests that are about documents and about no task."""
REFUSED_SEARCHES = {
    "no_scope": (403, "The tenant's policy does not allow this"),
    "empty_query": (422, "There is nothing to search for"),
}
"""Status and title of what rag refuses, by code."""
DOCUMENT_TIMEOUT_S = 10.0
"""Time for the broker to store a document, which may have megabytes."""


class DocumentIntake:
    """Adds, deletes, lists, shows and searches documents of a tenant."""

    def __init__(self, context: Context, feeds: InboxFeeds, writes: DurableWrites) -> None:
        self._context, self._feeds, self._writes = context, feeds, writes
        self._ids = task_view.KeyedIds(context.message_key)

    async def ingest_document(
        self, claim: RequesterClaim, name: str, media_type: str, data: bytes, key: str, token: str = ""
    ) -> InboxFeed:
        """Store a document and ask rag to take it in; returns the feed where the outcome appears. token: the caller's
        own, where he has one. Raises Problem."""
        tenant, digest = claim.tenant, hashlib.sha256(data).hexdigest()
        # Without a key each request is a new ingestion, and rag notices unchanged content: since it was sent last, it
        # may have been replaced or deleted.
        task = self._ids.ingestion_id(tenant, name, digest, key or secrets.token_hex(16))
        try:
            feed = await self._feeds.fresh_feed(tenant, task)
            if feed.view.ingested is not None:
                return feed  # The caller repeats one ingestion.
            content = await self._writes.write_within(
                # The purge removes documents that were refused.
                self._context.blobs.put(tenant, data, media_type, summary=name, may_be_gone=True),
                DOCUMENT_TIMEOUT_S,
            )
            body = DocumentIngestRequested(name=name, media_type=media_type, content=content)
            await self._send_to_rag(claim, body, task, token)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error
        return feed

    async def delete_document(
        self, claim: RequesterClaim, name: str, key: str, token: str = "", reason: str = ""
    ) -> InboxFeed:
        """Ask rag to erase a document; returns the feed where the outcome appears. Raises Problem."""
        task = self._ids.deletion_id(claim.tenant, name, key or secrets.token_hex(16))
        try:
            feed = await self._feeds.fresh_feed(claim.tenant, task)
            if feed.view.deleted is None:
                await self._send_to_rag(claim, DocumentDeleteRequested(name=name, reason=reason), task, token)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error
        return feed

    async def _send_to_rag(self, claim: RequesterClaim, body: Body, task: str, token: str) -> None:
        """Send a request to rag with the caller's authority. Raises Problem, BusError."""
        index = f"{'ingest' if isinstance(body, DocumentIngestRequested) else 'delete'}/{task}"
        grant = await self._request_grant(claim, task, index, token)
        tenant, actor = claim.tenant, claim.person
        write = self._context.publisher.send(
            "rag", body, tenant=tenant, task=task, index=index, actor=actor, grant=grant
        )
        await self._writes.write_within(write)

    async def _request_grant(self, claim: RequesterClaim, task: str, index: str, token: str) -> str:
        """Authority over the tenant's documents, as its policy has it for this caller. Raises Problem."""
        now_unix_ms = self._context.clock()
        ask = GrantRequested(requester=claim, purpose="ingest", requested_unix_ms=now_unix_ms, credential=token)
        return (await authority.request_grant(self._context, ask, task, index)).token

    async def _ask_rag(self, body: Body, claim: RequesterClaim, grant: str = "") -> Body:
        """Rag's reply. Raises Problem (503)."""
        try:
            return await self._context.publisher.request(
                "rag",
                body,
                tenant=claim.tenant,
                task=DOCUMENTS,
                index=secrets.token_hex(8),
                actor=claim.person,
                grant=grant,
                timeout_s=bounds.RPC_TIMEOUT_MS / 1000,
            )
        except RpcRefused as error:
            raise unavailable(f"the document store failed: {error}") from error
        except (BusUnavailable, PublishRefused) as error:
            raise unavailable(f"the document store does not answer: {error}") from error

    async def list_documents(self, claim: RequesterClaim, after: str, limit: int) -> DocumentsReplied:
        """A page of the tenant's documents, by name. Raises Problem (503)."""
        reply = await self._ask_rag(DocumentsRequested(after=after, limit=limit), claim)
        assert isinstance(reply, DocumentsReplied)
        _raise_failure(reply.failure)
        return reply

    async def read_chunks(self, claim: RequesterClaim, name: str, start: int, limit: int) -> DocumentChunksReplied:
        """A document and its chunks from a character on; without a document where none has the name. Raises Problem
        (503)."""
        reply = await self._ask_rag(DocumentChunksRequested(document=name, start=start, limit=limit), claim)
        assert isinstance(reply, DocumentChunksReplied)
        _raise_failure(reply.failure)
        return reply

    async def search_documents(self, claim: RequesterClaim, query: str, k: int, token: str) -> DocumentSearchReplied:
        """Chunks that a task of this caller would find. Raises Problem (403, 422, 503)."""
        grant = await self._request_grant(claim, DOCUMENTS, f"search/{secrets.token_hex(8)}", token)
        reply = await self._ask_rag(DocumentSearchRequested(query=query, k=k), claim, grant)
        assert isinstance(reply, DocumentSearchReplied)
        if (failure := reply.failure) is not None and failure.code in REFUSED_SEARCHES:
            status, title = REFUSED_SEARCHES[failure.code]
            raise Problem(status, failure.code, title, failure.message, failure.hint)
        _raise_failure(reply.failure)
        return reply


def _raise_failure(failure: Failure | None) -> None:
    """Raises Problem (503)."""
    if failure is not None:
        raise unavailable(f"{failure.code}: {failure.message}", failure.hint or "ask again")
