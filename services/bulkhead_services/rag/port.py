"""The port of rag to the world: core.py uses it, and effects.py implements it."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from bulkhead.blobs import Blobs
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.retrieval import StoredDocument
from bulkhead_services.rag.chunk import Chunk
from bulkhead_services.rag.rank import Candidate

if TYPE_CHECKING:
    Vector = array[float]
else:
    Vector = array
"""float32, of unit length: as it is stored."""


@dataclass(frozen=True, slots=True)
class DividedDocument:
    """A document's text and its chunks."""

    text: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document that was read and divided; vectors: one per chunk, or none at all."""

    ingestion_id: str
    scope: str
    name: str
    sha256: str
    media_type: str
    text: str
    chunks: tuple[Chunk, ...]
    now_unix_ms: int
    model: str = ""
    vectors: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestionOutcome:
    """Outcome of an ingestion. replaced: digest of the content that stood under the name until now, if any."""

    outcome: Literal["ingested", "unchanged"]
    chunks: int
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class RetrievalCandidates:
    """Candidates by words and how many terms were asked for; candidates by vector; what vectors missed."""

    words: tuple[Candidate, ...]
    terms: int
    nearest: tuple[Candidate, ...] = ()
    vectors_lost: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Vectors of unit length, in the order of the texts; tokens is None when the endpoint did not say."""

    vectors: tuple[Vector, ...]
    tokens: int | None


@dataclass(frozen=True, slots=True)
class EmbeddingFailed:
    """Why there are no vectors; called: whether the endpoint may have charged for it."""

    reason: str
    called: bool


class Library(Protocol):
    """Access to documents and vectors. Nothing expected is raised: a Failure says what happened and what to do."""

    async def close(self) -> None:
        """Close every file and connection."""
        ...

    def storage_problem(self) -> str:
        """Why no document can be kept, and what to do; "" when they can."""
        ...

    async def read_content(self, blobs: Blobs, tenant: str, ref: ContentRef) -> bytes | Failure:
        """The document itself."""
        ...

    async def divide_document(
        self, tenant: str, name: str, sha256: str, media_type: str, data: bytes
    ) -> DividedDocument | Failure:
        """Text and chunks of a document."""
        ...

    async def find_prior_ingestion(
        self, tenant: str, ingestion: str, scope: str, name: str, sha256: str
    ) -> IngestionOutcome | Failure | None:
        """The outcome of this ingestion before, or `unchanged` when the content is current; None: go on."""
        ...

    async def ingest_document(self, tenant: str, new: NewDocument) -> IngestionOutcome | Failure:
        """Durable when it returns."""
        ...

    async def delete_document(self, tenant: str, scope: str, name: str) -> int | Failure:
        """Erase a document; returns how many versions of it there were."""
        ...

    async def list_documents(
        self, tenant: str, scope: str, after: str, limit: int
    ) -> tuple[StoredDocument, ...] | Failure:
        """Current documents by name, those after `after`."""
        ...

    async def vectors_of(self, tenant: str, model: str, texts: Sequence[str]) -> dict[str, Vector] | Failure:
        """Vectors by text that some document's chunk has already."""
        ...

    async def read_passage(
        self, tenant: str, scope: str, name: str, sha256: str, start: int, end: int
    ) -> tuple[str, str] | Failure | None:
        """Characters of a version of a document, and the digest of its current one; None when there is no such."""
        ...

    async def without_vectors(self, tenant: str, scope: str, name: str, model: str) -> list[tuple[int, str]] | Failure:
        """(row, text) of a document's chunks that still lack vectors."""
        ...

    async def add_vectors(self, tenant: str, model: str, pairs: Sequence[tuple[int, bytes]]) -> Failure | None:
        """Keep vectors that came later."""
        ...

    async def search_chunks(
        self, tenant: str, scopes: Sequence[str], terms: tuple[str, ...], vector: Vector | None
    ) -> RetrievalCandidates | Failure:
        """Candidates; a tenant without documents has none."""
        ...

    async def embed_texts(self, texts: Sequence[str]) -> EmbeddedTexts | EmbeddingFailed:
        """Vectors of texts, in one call."""
        ...
