"""Values that core.py and effects.py of rag exchange."""

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bulkhead_contracts.retrieval import LostPage, StoredChunk, StoredDocument
from bulkhead_services.rag.chunk import Chunk
from bulkhead_services.rag.rank import Candidate

if TYPE_CHECKING:
    Vector = array[float]
else:
    Vector = array
"""float32, of unit length: as it is stored."""


@dataclass(frozen=True, slots=True)
class PageCounts:
    """Pages of a document, and those of them that hold almost no text.

    lost: the first of these, with reasons, where the document was just read.
    """

    pages: int = 0
    sparse: int = 0
    lost: tuple[LostPage, ...] = ()


NO_PAGES = PageCounts()


@dataclass(frozen=True, slots=True)
class DividedDocument:
    """A document's text and its chunks."""

    text: str
    chunks: tuple[Chunk, ...]
    pages: PageCounts = NO_PAGES


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
    pages: PageCounts = NO_PAGES


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A current document, with some of its chunks in the order of the text. chars: length of the text."""

    document: StoredDocument
    chars: int
    lost: tuple[LostPage, ...]
    chunks: tuple[StoredChunk, ...]


@dataclass(frozen=True, slots=True)
class IngestionOutcome:
    """Outcome of an ingestion. replaced_sha256: digest of the content that stood under the name until now, if any."""

    outcome: Literal["ingested", "unchanged"]
    chunks: int
    replaced_sha256: str | None = None
    pages: PageCounts = NO_PAGES


@dataclass(frozen=True, slots=True)
class RetrievalCandidates:
    """Candidates by words, by vector, or both. term_count: terms that were searched for. vector_loss: why vectors are
    missing, if any are."""

    by_words: tuple[Candidate, ...]
    term_count: int
    by_vector: tuple[Candidate, ...] = ()
    vector_loss: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Vectors of unit length, in the order of the texts; tokens is None when the endpoint did not say."""

    vectors: tuple[Vector, ...]
    tokens: int | None


@dataclass(frozen=True, slots=True)
class EmbeddingFailed:
    """Why there are no vectors; called: whether the endpoint may have charged for it. tokens: as `EmbeddedTexts`."""

    reason: str
    called: bool
    tokens: int | None = None
