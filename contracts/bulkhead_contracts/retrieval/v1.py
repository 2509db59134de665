"""Documents in, passages out."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Citation, Completeness, ContentRef, Failure, Label, Standing, Usage
from ..settlement import DoerReply
from ..types import Body, Contract, Count, MediaType, Name, Reason, Sha256, Summary, Token, UnixMs

AHEAD_CALL_ID_PREFIX = "ahead-"
"""Begin of the ids of calls that are asked ahead, also in the ledger."""
PageCount = Annotated[Count, Field(exclude_if=operator.not_)]


class RetrievalRequested(Body, type="mesh.retrieval.requested"):
    """Search the tenant's documents. At most `k` passages and `max_chars` of text come back.

    asked_ahead: nothing is searched; the query is embedded for this step, which has not begun.
    """

    call_id: Token
    step_id: Token
    attempt: Count
    query: Annotated[str, Field(min_length=1, max_length=bounds.MAX_QUERY_CHARS)]
    k: Annotated[int, Field(ge=1, le=bounds.MAX_PASSAGES)] = 8
    max_chars: Annotated[int, Field(ge=200, le=bounds.MAX_TOOL_OUTPUT_BYTES)] = 16_000
    deadline_unix_ms: UnixMs
    asked_ahead: Annotated[bool, Field(exclude_if=operator.not_)] = False


class RetrievalForeseen(Body, type="mesh.retrieval.foreseen"):
    """A step that is likely to come next will make this search: the worker asks it ahead. The envelope's grant is that
    step's, for its search alone."""

    request: RetrievalRequested


class Passage(Contract):
    """One chunk: its text as a blob of rag's, where it stands in which document, and its rank score."""

    content: ContentRef
    citation: Citation
    title: Summary = ""
    score: float = 0.0


class RetrievalReplied(Body, DoerReply, type="mesh.retrieval.replied"):
    """The passages, best first; completeness says what was cut.

    asked_ahead: of such a request; there are no passages. saved_ms: the query was embedded ahead, so much earlier; None
    where it was not. `usage` holds what that cost, which was settled then.
    """

    call_id: Token
    step_id: Token
    outcome: Literal["found", "refused", "failed"]
    failure: Failure | None = None
    passages: Annotated[tuple[Passage, ...], Field(max_length=bounds.MAX_PASSAGES)] = ()
    standing: Standing = "ok"
    standing_reason: Summary = ""
    completeness: Completeness = Completeness()
    provenance: Annotated[tuple[Label, ...], Field(max_length=bounds.MAX_PASSAGES)] = ()
    usage: Usage = Usage()
    duration_ms: Count = 0
    asked_ahead: Annotated[bool, Field(exclude_if=operator.not_)] = False
    saved_ms: Annotated[int | None, Field(ge=0, exclude_if=lambda saved: saved is None)] = None


class DocumentIngestRequested(Body, type="mesh.retrieval.ingest_requested"):
    """Take a document into the tenant's store. The subject's task token is the ingestion's id."""

    name: Name
    media_type: MediaType
    content: ContentRef


class DocumentIngested(Body, DoerReply, type="mesh.retrieval.ingested"):
    """End of an ingestion: `unchanged` when the same content under this name was there already.

    replaced_sha256: what stood under this name until now, when that was other content. pages, sparse_pages: of a PDF;
    those that hold almost no text are probably scans.
    """

    name: Name
    sha256: Sha256
    outcome: Literal["ingested", "unchanged", "rejected"]
    chunks: Count = 0
    failure: Failure | None = None
    detail: Reason = ""
    replaced_sha256: Sha256 | None = None
    pages: PageCount = 0
    sparse_pages: PageCount = 0


class DocumentDeleteRequested(Body, type="mesh.retrieval.delete_requested"):
    """Erase a document with every version of it. The subject's task token is the deletion's id. reason: of who asks."""

    name: Name
    reason: Annotated[Reason, Field(exclude_if=operator.not_)] = ""


class DocumentDeleted(Body, DoerReply, type="mesh.retrieval.deleted"):
    """End of a deletion: `absent` when nothing stood under this name."""

    name: Name
    outcome: Literal["deleted", "absent", "rejected"]
    versions: Count = 0
    failure: Failure | None = None


class DocumentsRequested(Body, type="mesh.retrieval.documents_requested"):
    """Ask which documents the tenant of the subject has, by name, those after `after`."""

    after: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    limit: Annotated[int, Field(ge=1, le=bounds.MAX_LISTED_DOCUMENTS)] = 100


class StoredDocument(Contract):
    """A document as it stands. versions: how many contents of this name are kept, for old citations to resolve. pages,
    sparse_pages: as in `DocumentIngested`."""

    name: Name
    sha256: Sha256
    media_type: MediaType
    chunks: Count
    versions: Count
    ingested_unix_ms: UnixMs
    pages: Count = 0
    sparse_pages: Count = 0


class DocumentsReplied(Body, type="mesh.retrieval.documents_replied"):
    """A page of documents; `more` when others follow the last. failure: the store cannot be read."""

    documents: Annotated[tuple[StoredDocument, ...], Field(max_length=bounds.MAX_LISTED_DOCUMENTS)] = ()
    more: bool = False
    failure: Failure | None = None


class PassageRequested(Body, type="mesh.retrieval.passage_requested"):
    """Ask for characters [start, end) of a version of the tenant's document, current or not (rpc)."""

    document: Name
    sha256: Sha256
    start: Count
    end: Count


class PassageReplied(Body, type="mesh.retrieval.passage_replied"):
    """The text as that version has it. `superseded`: another version (current_sha256) is the document's current one.

    `erased`: the store has no such version any more, and no text. failure: the store cannot be read.
    """

    state: Literal["current", "superseded", "erased"] = "erased"
    text: Annotated[str, Field(max_length=bounds.MAX_CITED_CHARS)] = ""
    current_sha256: Sha256 | None = None
    failure: Failure | None = None


class LostPage(Contract):
    """A page of which nothing, or almost nothing, can be found.

    `unreadable`: the parser failed at it; `almost_no_text`: it is probably a scan, or blank.
    """

    page: Annotated[int, Field(ge=1, le=bounds.MAX_PDF_PAGES)]
    code: Literal["unreadable", "almost_no_text"]
    reason: Summary = ""


class StoredChunk(Contract):
    """A chunk of a document's current version: characters [start, end) of its text; title: the headings above it.

    text: "" where the reader may not have it; cut at MAX_CHUNK_CHARS.
    """

    chunk_id: Token
    start: Count
    end: Count
    title: Summary = ""
    text: Annotated[str, Field(max_length=bounds.MAX_CHUNK_CHARS)] = ""


class DocumentChunksRequested(Body, type="mesh.retrieval.chunks_requested"):
    """Ask for a document of the subject's tenant and its chunks from a character on (rpc)."""

    document: Name
    start: Count = 0
    limit: Annotated[int, Field(ge=1, le=bounds.MAX_LISTED_CHUNKS)] = 20


class DocumentChunksReplied(Body, type="mesh.retrieval.chunks_replied"):
    """A page of chunks in the order of the text. document: None where no current document has the name.

    chars: length of the text. next: the start of the first chunk that follows. lost_pages: the first ones. failure: the
    store cannot be read.
    """

    document: StoredDocument | None = None
    chars: Count = 0
    lost_pages: Annotated[tuple[LostPage, ...], Field(max_length=bounds.MAX_LOST_PAGES)] = ()
    chunks: Annotated[tuple[StoredChunk, ...], Field(max_length=bounds.MAX_LISTED_CHUNKS)] = ()
    next: Count | None = None
    failure: Failure | None = None


class DocumentSearchRequested(Body, type="mesh.retrieval.search_requested"):
    """Ask what a retrieval of the envelope's grant would find (rpc). Nothing is spent on it."""

    query: Annotated[str, Field(min_length=1, max_length=bounds.MAX_QUERY_CHARS)]
    k: Annotated[int, Field(ge=1, le=bounds.MAX_PASSAGES)] = 8


class RankedChunk(StoredChunk):
    """A chunk that was found, in which document and version, and its rank score."""

    document: Name
    document_sha256: Sha256
    score: float


class DocumentSearchReplied(Body, type="mesh.retrieval.search_replied"):
    """Chunks, best first. pruned: how many others match about as well. note: how the search differs from a task's.

    failure: it was refused, or the store cannot be read.
    """

    chunks: Annotated[tuple[RankedChunk, ...], Field(max_length=bounds.MAX_PASSAGES)] = ()
    pruned: Count = 0
    note: Reason = ""
    failure: Failure | None = None
