"""The world of rag: tenants' store files, the parsing process, the embeddings endpoint.

Enters: plain data. Leaves: results, or a Failure; nothing expected is raised. SQLite blocks, and an ingest
waits for fsync, so it runs in a few threads of its own and never on the event loop, which owes heartbeats.
"""

import asyncio
import json
import math
import os
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.documents.parser_process import ParserLimits, run_parser
from bulkhead.model_apis.token_counts import GAVE_UP, embedded_tokens
from bulkhead.runtime.errors import HandBack
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.text.document_forms import OFFICE_FORMS, Form, form_of
from bulkhead_contracts import bounds as contract_bounds
from bulkhead_contracts import subjects
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.retrieval import StoredDocument
from bulkhead_services.rag import extract
from bulkhead_services.rag.chunk import chunks_of
from bulkhead_services.rag.index import DocumentStore, NewerStore
from bulkhead_services.rag.port import (
    NO_PAGES,
    DividedDocument,
    DocumentPart,
    EmbeddedTexts,
    EmbeddingFailed,
    IngestionOutcome,
    NewDocument,
    RetrievalCandidates,
    Vector,
)
from bulkhead_services.rag.settings import Settings
from bulkhead_services.rag.structure import Block, ExtractedText

T = TypeVar("T")
MAX_OPEN_STORES = 64
THREADS = 4
PARSERS = 2
PARSER_PATIENCE_S = 30.0
"""How long a document waits for a parser here, a little longer than one may be at work; then it goes back to the inbox
for a moment, so that many of one person leave places to be handed what their colleagues send."""
PARSER_RETRY_S = 2.0
SAVE_AGAIN_HINT = "save it anew with another program, or send it as text"


class FileLibrary:
    """Documents and vectors, over files and processes. Nothing expected is raised: a Failure says what to do."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings, self._transport = settings, transport
        self._stores: OrderedDict[str, DocumentStore] = OrderedDict()
        self._opening = asyncio.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rag-store")
        # A tenant's ingests wait for one another in the store's own lock: they must not have every thread meanwhile.
        self._turns = FairSemaphore(THREADS, kept=1)
        # A parser is never interrupted before its time is up: one is out of reach for each single tenant, whose people
        # take turns.
        self._parsing = FairSemaphore(PARSERS, kept=1)
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Wait for running store work, close every file and connection."""
        await asyncio.to_thread(self._threads.shutdown)
        while self._stores:
            self._stores.popitem()[1].close()
        if self._http is not None:
            await self._http.aclose()

    def storage_problem(self) -> str:
        """Why no document can be kept; "" when the store's folder, or where it will be made, can be written."""
        folder = self._settings.store_dir
        nearest = next((candidate for candidate in (folder, *folder.absolute().parents) if candidate.exists()), folder)
        if os.access(nearest, os.W_OK | os.X_OK):
            return ""
        reason = "its file system is read-only" if _is_read_only(nearest) else f"user {os.getuid()} has no right to"
        return f"documents cannot be written to {folder}: {reason}; mount it writable, or give it to this user"

    async def read_content(self, blobs: Blobs, tenant: str, ref: ContentRef) -> bytes | Failure:
        """The document itself."""
        try:
            return await blobs.get(tenant, ref)
        except BlobMissing as error:
            return Failure.from_text("content_missing", str(error), "submit the document again")
        except BlobCorrupt as error:
            return Failure.from_text("content_corrupt", str(error), "submit the document again")

    async def divide_document(
        self, tenant: str, person: str, name: str, sha256: str, media_type: str, data: bytes
    ) -> DividedDocument | Failure:
        """Text and chunks of a person's document. Raises HandBack."""
        form = form_of(data, media_type, name)
        if isinstance(form, Failure):
            return form
        pages = NO_PAGES
        if form == "pdf":
            answer = await self._run_parser(tenant, person, "pdf", data)
            extracted = answer if isinstance(answer, Failure) else extract.read_pages(answer["pages"])
            if not isinstance(answer, Failure):
                pages = extract.count_pages(answer["pages"], dict(answer["unreadable"]))
        else:
            extracted = await self._extract_text(tenant, person, form, data, media_type)
        if isinstance(extracted, Failure):
            return extracted.model_copy(update={"message": f"{name}: {extracted.message}"})
        chunks = await self._with_turn(tenant, lambda: chunks_of(name, sha256, extracted))
        if len(chunks) > contract_bounds.MAX_CHUNKS_PER_DOCUMENT:
            message = f"{name}: {len(chunks)} chunks exceed {contract_bounds.MAX_CHUNKS_PER_DOCUMENT}"
            hint = "split the document and ingest its parts under names of their own"
            return Failure.from_text("document_too_long", message, hint)
        return DividedDocument(extracted.text, chunks, pages)

    async def _extract_text(
        self, tenant: str, person: str, form: Form, data: bytes, media_type: str
    ) -> ExtractedText | Failure:
        if form in OFFICE_FORMS:
            return await self._read_blocks(tenant, person, form, data)
        text = await self._with_turn(tenant, lambda: extract.decode_text(data, media_type, html=form == "html"))
        if isinstance(text, Failure):
            return text
        if form == "html":
            return await self._read_blocks(tenant, person, form, text.encode())
        return await self._with_turn(tenant, lambda: extract.read_text(text, markdown=form == "markdown"))

    async def _read_blocks(self, tenant: str, person: str, form: Form, data: bytes) -> ExtractedText | Failure:
        answer = await self._run_parser(tenant, person, form, data)
        if isinstance(answer, Failure):
            return answer
        blocks = tuple(Block(*block) for block in answer["blocks"])
        # Lone halves of characters cannot be written in XML, and HTML was checked: what comes back can be stored.
        return extract.check_bounds(ExtractedText(answer["text"], blocks))

    async def _run_parser(self, tenant: str, person: str, form: str, data: bytes) -> dict[str, Any] | Failure:
        settings = self._settings
        limits = ParserLimits(settings.parse_memory_mib, settings.parse_timeout_s)
        bounds = (contract_bounds.MAX_PDF_PAGES, contract_bounds.MAX_DOCUMENT_TEXT_CHARS)
        if not await self._parsing.acquire_slot(tenant, PARSER_PATIENCE_S, person=person):
            raise HandBack(PARSER_RETRY_S, "no parser was free")
        try:
            answer = await run_parser("bulkhead_services.rag.reader", form, data, limits, *bounds)
        finally:
            self._parsing.release_slot(tenant)
        if answer.get("code"):
            hints = {"encrypted_document": "remove the password", "document_too_long": "split the document"}
            hint = hints.get(answer["code"], SAVE_AGAIN_HINT)
            return Failure.from_text(answer["code"], answer["message"], hint)
        return answer

    async def find_prior_ingestion(
        self, tenant: str, ingestion: str, scope: str, name: str, sha256: str
    ) -> IngestionOutcome | Failure | None:
        """The outcome of an ingestion that was done before; None when it has to be done."""
        return await self._with_store(tenant, lambda store: store.find_prior_ingestion(ingestion, scope, name, sha256))

    async def ingest_document(self, tenant: str, new: NewDocument) -> IngestionOutcome | Failure:
        """Durable when it returns."""
        done = await self._with_store(tenant, lambda store: store.ingest_document(new))
        assert done is not None
        return done

    async def delete_document(self, tenant: str, scope: str, name: str) -> int | Failure:
        """Erase a document with all its versions; durable when it returns."""
        if not self._has_store(tenant):
            return 0
        return await self._with_store(tenant, lambda store: store.delete_document(scope, name))

    async def list_documents(
        self, tenant: str, scope: str, after: str, limit: int
    ) -> tuple[StoredDocument, ...] | Failure:
        """Current documents by name, those after `after`."""
        if not self._has_store(tenant):
            return ()
        rows = await self._with_store(tenant, lambda store: store.list_documents(scope, after, limit))
        if isinstance(rows, Failure):
            return rows
        return tuple(rows)

    async def read_chunks(
        self, tenant: str, scope: str, name: str, start: int, limit: int
    ) -> DocumentPart | Failure | None:
        """A current document and its chunks from a character on; None where there is none of this name."""
        if not self._has_store(tenant):
            return None
        return await self._with_store(tenant, lambda store: store.read_chunks(scope, name, start, limit))

    async def vectors_of(self, tenant: str, model: str, texts: Sequence[str]) -> dict[str, Vector] | Failure:
        """Vectors by text that some document's chunk has already."""
        if not self._has_store(tenant):
            return {}
        rows = await self._with_store(tenant, lambda store: store.vectors_of(model, texts))
        return rows if isinstance(rows, Failure) else {text: array("f", raw) for text, raw in rows.items()}

    async def read_passage(
        self, tenant: str, scope: str, name: str, sha256: str, start: int, end: int
    ) -> tuple[str, str] | Failure | None:
        """Characters of a version of a document, and the digest of its current one."""
        if not self._has_store(tenant):
            return None
        return await self._with_store(tenant, lambda store: store.read_passage(scope, name, sha256, start, end))

    async def chunks_without_vectors(
        self, tenant: str, scope: str, name: str, model: str
    ) -> list[tuple[int, str]] | Failure:
        """Chunks of a document that still lack vectors."""
        return await self._with_store(tenant, lambda store: store.chunks_without_vectors(scope, name, model))

    async def add_vectors(self, tenant: str, model: str, pairs: Sequence[tuple[int, bytes]]) -> Failure | None:
        """Keep vectors that came later."""
        return await self._with_store(tenant, lambda store: store.add_vectors(model, pairs))

    async def search_chunks(
        self, tenant: str, scopes: Sequence[str], terms: tuple[str, ...], vector: Vector | None
    ) -> RetrievalCandidates | Failure:
        """Candidates; a tenant without documents has none."""
        settings = self._settings
        if not self._has_store(tenant):
            return RetrievalCandidates((), len(terms))
        candidates = await self._with_store(
            tenant,
            lambda store: store.search_chunks(
                scopes, terms, vector, settings.embeddings_model, settings.vector_scan_limit
            ),
        )
        assert candidates is not None
        return candidates

    def _has_store(self, tenant: str) -> bool:
        """Asking must not make a file for a tenant that has no documents."""
        return tenant in self._stores or self._store_path(tenant).exists()

    def _store_path(self, tenant: str) -> Path:
        return self._settings.store_dir / f"{subjects.check_token(tenant)}.sqlite"

    async def _with_store(self, tenant: str, work: Callable[[DocumentStore], T]) -> T | Failure:
        for last_try in (False, True):
            try:
                async with self._turns.hold_slot(tenant):
                    store = await self._open_store(tenant)
                    return await self._run_in_thread(partial(work, store))
            except sqlite3.ProgrammingError as error:
                # Another tenant took this store's place just before its turn: open it again, once.
                if last_try:
                    return store_failure(error)
            except (sqlite3.Error, OSError) as error:
                return self._describe_failure(error)
        raise AssertionError("unreachable")

    def _describe_failure(self, error: sqlite3.Error | OSError) -> Failure:
        """A clearer failure than SQLite's own for a folder without write access ("unable to open database file")."""
        problem = self.storage_problem()
        if not problem:
            return store_failure(error)
        reason, _, mend = problem.rpartition("; ")
        return Failure.from_text("store_failed", f"{reason} ({error})", mend)

    async def _open_store(self, tenant: str) -> DocumentStore:
        async with self._opening:
            if tenant not in self._stores:
                path = self._store_path(tenant)
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._stores[tenant] = await self._run_in_thread(lambda: DocumentStore(path))
            self._stores.move_to_end(tenant)
            if len(self._stores) > MAX_OPEN_STORES:
                # Its locks let running work end first.
                oldest = self._stores.popitem(last=False)[1]
                await self._run_in_thread(oldest.close)
            return self._stores[tenant]

    async def _with_turn(self, tenant: str, work: Callable[[], T]) -> T:
        async with self._turns.hold_slot(tenant):
            return await self._run_in_thread(work)

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        """Run in a thread; for holders of a turn, of which there are as many as threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def embed_texts(self, texts: Sequence[str]) -> EmbeddedTexts | EmbeddingFailed:
        """Vectors of texts, in one call to an OpenAI-compatible endpoint."""
        settings = self._settings
        if self._http is None:
            key = settings.embeddings_key.get_secret_value()
            headers = {"authorization": f"Bearer {key}"} if key else {}
            self._http = httpx.AsyncClient(
                timeout=settings.embeddings_timeout_s, headers=headers, transport=self._transport
            )
        body = {"model": settings.embeddings_model, "input": list(texts), "encoding_format": "float"}
        try:
            response = await self._http.post(settings.embeddings_url.rstrip("/") + "/embeddings", json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL) as error:
            return EmbeddingFailed(f"embeddings endpoint unreachable: {type(error).__name__}", called=False)
        except httpx.HTTPError as error:
            return EmbeddingFailed(f"embeddings endpoint failed: {type(error).__name__}", called=True)
        answer = _read_object(response.content)
        tokens = embedded_tokens(answer) or None
        if response.status_code != 200:
            called = response.is_success or response.status_code in GAVE_UP
            return EmbeddingFailed(f"embeddings endpoint answered {response.status_code}", called, tokens)
        return read_embeddings(answer, len(texts), tokens)


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def read_embeddings(answer: dict[str, Any], expected: int, tokens: int | None) -> EmbeddedTexts | EmbeddingFailed:
    """Check an endpoint's answer: as many finite vectors as texts, all of one length."""
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = tuple(_unit_vector(row["embedding"]) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        return EmbeddingFailed("embeddings endpoint answered something else than vectors", True, tokens)
    if len(vectors) != expected or len({len(vector) for vector in vectors}) > 1:
        reason = f"embeddings endpoint gave {len(vectors)} vectors for {expected} texts"
        return EmbeddingFailed(reason, True, tokens)
    return EmbeddedTexts(vectors, tokens)


def _unit_vector(values: list[float]) -> Vector:
    length = math.sqrt(sum(value * value for value in values))
    if not math.isfinite(length) or length == 0:
        raise ValueError("not a finite vector")
    return array("f", [value / length for value in values])


def store_failure(error: sqlite3.Error | OSError) -> Failure:
    """Failure for a store error, with what to do."""
    text = str(error)
    if isinstance(error, NewerStore):
        return Failure.from_text("store_too_new", text, "start the newer version of rag on this data")
    if "locked" in text or "busy" in text:
        return Failure.from_text("store_busy", f"the document store is locked: {text}", "try again")
    if "full" in text or "No space" in text:
        return Failure.from_text("store_full", f"no room for documents: {text}", "free disk space")
    if "malformed" in text or "not a database" in text:
        message = f"the document store is damaged: {text}"
        return Failure.from_text(
            "store_damaged", message, "move the tenant's .sqlite file away and ingest its documents again"
        )
    message = f"the document store cannot be used: {text}"
    return Failure.from_text("store_failed", message, "check that the data directory exists, is writable and has room")
