"""Reads of a tenant's documents."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.query import SUBMITTERS, PageSize, Query, Remedy, Whole
from bulkhead_contracts import bounds
from bulkhead_contracts.retrieval import LostPage, RankedChunk, StoredChunk, StoredDocument
from bulkhead_contracts.types import Contract, Count, Reason

NAME_SCHEMA = {"minLength": 1, "maxLength": bounds.MAX_NAME_CHARS, "pattern": "^[ -~]+$"}


class DocumentPage(Contract):
    """Documents by name; `next` leads to the next page and is null on the last one."""

    documents: tuple[StoredDocument, ...]
    next: str | None = None


class DocumentChunkPage(Contract):
    """A document and its chunks, in the order of its text; `next` is the `start` of the next page, null on the last.

    chars: length of the text. lost_pages: pages of which no text, or almost none, was read, and why; the first of the
    document's sparse_pages, none for a document that was added before they were kept. content: this caller may read the
    text of chunks.
    """

    document: StoredDocument
    chars: Count
    lost_pages: Annotated[tuple[LostPage, ...], Field(max_length=bounds.MAX_LOST_PAGES)]
    chunks: Annotated[tuple[StoredChunk, ...], Field(max_length=bounds.MAX_LISTED_CHUNKS)]
    content: bool
    next: Count | None = None


class DocumentSearchPage(Contract):
    """Chunks that a task of the caller would find for a question, the best first.

    pruned: others that match about as well. note: how this search differs from a task's; empty where it does not.
    """

    query: str
    chunks: Annotated[tuple[RankedChunk, ...], Field(max_length=bounds.MAX_PASSAGES)]
    pruned: Count
    note: Reason


class DocumentListQuery(Query[DocumentPage], name="listDocuments", path="/v1/documents", action="read documents"):
    """List the tenant's documents, by name."""

    limit: PageSize = 20
    after: Annotated[str, Field(description="`next` of the previous page", json_schema_extra=NAME_SCHEMA)] = ""


class DocumentChunkQuery(
    Query[DocumentChunkPage], name="listChunks", path="/v1/documents/chunks", action="read documents", problems=(404,)
):
    """Show a document, its chunks with text and place, and the pages that could not be read.

    An auditor sees places and sizes, and no text. Each look at texts is logged.
    """

    name: Annotated[str, Field(description="The document's name", json_schema_extra=NAME_SCHEMA)] = ""
    start: Annotated[
        int,
        Field(
            ge=0,
            le=bounds.MAX_DOCUMENT_TEXT_CHARS,
            description="`next` of the previous page, or a character to begin at",
        ),
        Whole,
        Remedy("send `next` of the previous page"),
    ] = 0
    limit: Annotated[
        int,
        Field(ge=1, le=bounds.MAX_LISTED_CHUNKS, description="Chunks per page"),
        Whole,
        Remedy(f"send a number from 1 to {bounds.MAX_LISTED_CHUNKS}", bounds.MAX_LISTED_CHUNKS),
    ] = 20


class DocumentSearchQuery(
    Query[DocumentSearchPage],
    name="searchDocuments",
    path="/v1/documents/search",
    action="search documents",
    allowed=SUBMITTERS,
):
    """Show what a task of yours would find for a question: chunks with score, document and place.

    The signer's grant for the caller decides which documents are searched, as for a task. Nothing is spent: where
    embeddings are on and no task has asked this question yet, the search is by words alone, and `note` says so. Each
    look is logged.
    """

    query: Annotated[
        str,
        Field(max_length=bounds.MAX_QUERY_CHARS, description="The question", json_schema_extra={"minLength": 1}),
        Remedy(f"send at most {bounds.MAX_QUERY_CHARS} characters", bounds.MAX_QUERY_CHARS),
    ] = ""
    k: Annotated[
        int,
        Field(ge=1, le=bounds.MAX_PASSAGES, description="Chunks at most"),
        Whole,
        Remedy(f"send a number from 1 to {bounds.MAX_PASSAGES}", bounds.MAX_PASSAGES),
    ] = 8
