"""One tenant's documents in one SQLite file. Enters: documents, terms, vectors. Leaves: outcomes, candidates.

Blocking: effects.py calls it in threads. One connection writes (WAL, synchronous=FULL: an ingest that was
acknowledged survives a power cut), one reads. FTS5 holds the current version of each document alone;
replaced versions stay in `list_documents` and `chunks`, so that old citations can be resolved by digest.
"""

import hashlib
import heapq
import json
import sqlite3
import threading
from array import array
from collections.abc import Iterable, Sequence
from operator import mul
from pathlib import Path

from bulkhead_contracts import bounds
from bulkhead_contracts.retrieval import LostPage, StoredChunk, StoredDocument
from bulkhead_services.rag.port import (
    DocumentPart,
    IngestionOutcome,
    NewDocument,
    PageCounts,
    RetrievalCandidates,
    Vector,
)
from bulkhead_services.rag.query import any_term_expression, prefix_expression
from bulkhead_services.rag.rank import Candidate

MatchRow = tuple[int, str, str, str, int, int, str, str, float]
DocumentRow = tuple[str, str, str, int, int, int, int, int]

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, scope TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    media_type TEXT NOT NULL, current INTEGER NOT NULL, ingested_unix_ms INTEGER NOT NULL,
    text TEXT NOT NULL, -- last: what stands behind a long text is slow to reach
    UNIQUE (scope, name, sha256));
CREATE UNIQUE INDEX one_current_version ON documents (scope, name) WHERE current = 1;
CREATE INDEX documents_by_digest ON documents (sha256);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents (id), chunk_id TEXT NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX chunks_of_document ON chunks (document);
CREATE VIEW passages AS SELECT
    c.id AS row, c.chunk_id, d.name, d.sha256, c.start, c.end, c.title, c.text, d.scope, d.current
    FROM chunks c JOIN documents d ON d.id = c.document;
CREATE TABLE vectors (
    chunk INTEGER NOT NULL REFERENCES chunks (id), model TEXT NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (chunk, model)) WITHOUT ROWID;
CREATE TABLE ingestions (id TEXT PRIMARY KEY, outcome TEXT NOT NULL, chunks INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE chunk_search USING fts5 (
    title, body, tokenize = 'porter unicode61 remove_diacritics 2', prefix = '4');
"""
# Tables of their own, which an older version neither knows nor misses.
_LATER = (
    "CREATE TABLE IF NOT EXISTS ingestion_times (id TEXT PRIMARY KEY, at_unix_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS ingestions_by_time ON ingestion_times (at_unix_ms)",
    "CREATE TABLE IF NOT EXISTS document_pages ("
    "document INTEGER PRIMARY KEY, pages INTEGER NOT NULL, sparse INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS lost_pages (document INTEGER NOT NULL, page INTEGER NOT NULL, code TEXT NOT NULL, "
    "reason TEXT NOT NULL, PRIMARY KEY (document, page)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS chunk_digests ("
    "digest TEXT NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (digest, chunk)) WITHOUT ROWID",
)
KEEP_INGESTIONS_MS = 90 * 86_400_000
"""How long an ingestion's outcome answers its repeat: far longer than its request stays in the inbox (30 days)."""
_FORGOTTEN_AT_ONCE = 100
# Ranked by row alone first: the sorter must not carry the texts of everything that matches.
_MATCHING = """
    WITH best AS (
        SELECT s.rowid AS row, bm25(chunk_search, 2.0, 1.0) AS score
        FROM chunk_search s JOIN chunks c ON c.id = s.rowid JOIN documents d ON d.id = c.document
        WHERE chunk_search MATCH ? AND d.current = 1 AND d.scope IN (SELECT value FROM json_each(?))
        ORDER BY score, c.chunk_id LIMIT ?)
    SELECT p.row, p.chunk_id, p.name, p.sha256, p.start, p.end, p.title, p.text, best.score
    FROM best JOIN passages p ON p.row = best.row ORDER BY best.score, p.chunk_id"""
_BY_ROW = """
    SELECT row, chunk_id, name, sha256, start, end, title, text
    FROM passages WHERE row IN (SELECT value FROM json_each(?))"""
_STANDING = """
    SELECT d.name, d.sha256, d.media_type, (SELECT count(*) FROM chunks c WHERE c.document = d.id),
        (SELECT count(*) FROM documents v WHERE v.scope = d.scope AND v.name = d.name), d.ingested_unix_ms,
        coalesce(p.pages, 0), coalesce(p.sparse, 0)
    FROM documents d LEFT JOIN document_pages p ON p.document = d.id
    WHERE d.current = 1 AND d.scope = ? AND d.name {} ? ORDER BY d.name LIMIT ?"""
_LISTED, _NAMED = _STANDING.format(">"), _STANDING.format("=")
_LOST = """
    SELECT l.page, l.code, l.reason FROM lost_pages l JOIN documents d ON d.id = l.document
    WHERE d.current = 1 AND d.scope = ? AND d.name = ? ORDER BY l.page"""
_CHUNKS = """
    SELECT c.chunk_id, c.start, c.end, c.title, substr(c.text, 1, ?) FROM chunks c JOIN documents d ON d.id = c.document
    WHERE d.current = 1 AND d.scope = ? AND d.name = ? AND c.start >= ? ORDER BY c.start LIMIT ?"""
# The text is compared too: an older version erases chunks and leaves their digests, and numbers come again.
_EMBEDDED = """
    SELECT c.text, v.vector FROM chunk_digests g JOIN chunks c ON c.id = g.chunk
    JOIN vectors v ON v.chunk = c.id AND v.model = ? WHERE g.digest IN (SELECT value FROM json_each(?))"""
_PAGES = """
    SELECT p.pages, p.sparse FROM document_pages p JOIN documents d ON d.id = p.document
    WHERE d.scope = ? AND d.name = ? AND d.sha256 = ?"""
_ERASING = (
    "DELETE FROM document_pages WHERE document IN (SELECT id FROM documents WHERE scope = ? AND name = ?)",
    "DELETE FROM lost_pages WHERE document IN (SELECT id FROM documents WHERE scope = ? AND name = ?)",
    """DELETE FROM chunk_digests WHERE chunk IN (
        SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.scope = ? AND d.name = ?)""",
    """DELETE FROM vectors WHERE chunk IN (
        SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.scope = ? AND d.name = ?)""",
    "DELETE FROM chunks WHERE document IN (SELECT id FROM documents WHERE scope = ? AND name = ?)",
    "DELETE FROM documents WHERE scope = ? AND name = ?",
)
_BUSY_TIMEOUT_MS = 5_000


class NewerStore(sqlite3.DatabaseError):
    """The file was written by a newer version of this service."""


class DocumentStore:
    """Documents, chunks and indexes of one tenant. Raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._all_timed = False
        self._writer = _open_connection(path)
        self._prepare_schema()
        self._reader = _open_connection(path)
        self._reader.execute("PRAGMA query_only = ON")

    def _prepare_schema(self) -> None:
        # Two processes may open a new tenant's file at once: one of them makes the tables.
        with self._write_lock, _Transaction(self._writer):
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise NewerStore(f"the store has schema {version}, this service knows up to {SCHEMA_VERSION}")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._writer.execute(statement)
                self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for statement in _LATER:
                self._writer.execute(statement)

    def close(self) -> None:
        """Close both connections."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def find_prior_ingestion(self, ingestion_id: str, scope: str, name: str, sha256: str) -> IngestionOutcome | None:
        """The outcome of this ingestion before, or `unchanged` when this content is current already."""
        with self._read_lock:
            row = self._reader.execute(
                "SELECT outcome, chunks FROM ingestions WHERE id = ?", (ingestion_id,)
            ).fetchone()
            pages = PageCounts(*(self._reader.execute(_PAGES, (scope, name, sha256)).fetchone() or ()))
            if row is not None:
                return IngestionOutcome(row[0], row[1], pages=pages)
            row = self._reader.execute(
                "SELECT count(c.id) FROM documents d JOIN chunks c ON c.document = d.id "
                "WHERE d.scope = ? AND d.name = ? AND d.sha256 = ? AND d.current = 1 GROUP BY d.id",
                (scope, name, sha256),
            ).fetchone()
            return IngestionOutcome("unchanged", row[0], pages=pages) if row is not None else None

    def ingest_document(self, new: NewDocument) -> IngestionOutcome:
        """Make it the current version of its name, in one transaction; a repeat changes nothing."""
        with self._write_lock, _Transaction(self._writer):
            row = self._writer.execute(
                "SELECT outcome, chunks FROM ingestions WHERE id = ?", (new.ingestion_id,)
            ).fetchone()
            if row is not None:
                return IngestionOutcome(row[0], row[1], pages=new.pages)
            stored = self._writer.execute(
                "SELECT id, current FROM documents WHERE scope = ? AND name = ? AND sha256 = ?",
                (new.scope, new.name, new.sha256),
            ).fetchone()
            unchanged = stored is not None and stored[1] == 1
            replaced = None
            if not unchanged:
                replaced = self._retire_version(new.scope, new.name)
                self._publish_version(new, stored[0] if stored is not None else self._add_document(new))
            done = IngestionOutcome("unchanged" if unchanged else "ingested", len(new.chunks), replaced, new.pages)
            self._writer.execute(
                "INSERT INTO ingestions VALUES (?, ?, ?)", (new.ingestion_id, done.outcome, done.chunks)
            )
            self._writer.execute(
                "INSERT OR REPLACE INTO ingestion_times VALUES (?, ?)", (new.ingestion_id, new.now_unix_ms)
            )
            self._forget_ingestions(new.now_unix_ms)
            return done

    def _forget_ingestions(self, now_unix_ms: int) -> None:
        """Delete outcomes that are asked for no more, a few at a time; rows without a time count as written today."""
        if not self._all_timed:
            self._writer.execute("INSERT OR IGNORE INTO ingestion_times SELECT id, ? FROM ingestions", (now_unix_ms,))
            self._all_timed = True
        old = self._writer.execute(
            "SELECT id FROM ingestion_times WHERE at_unix_ms < ? LIMIT ?",
            (now_unix_ms - KEEP_INGESTIONS_MS, _FORGOTTEN_AT_ONCE),
        ).fetchall()
        self._writer.executemany("DELETE FROM ingestions WHERE id = ?", old)
        self._writer.executemany("DELETE FROM ingestion_times WHERE id = ?", old)

    def _retire_version(self, scope: str, name: str) -> str | None:
        """Take the current version of a name out of the search; returns its digest."""
        old = self._writer.execute(
            "SELECT id, sha256 FROM documents WHERE scope = ? AND name = ? AND current = 1", (scope, name)
        ).fetchone()
        if old is None:
            return None
        self._writer.execute("UPDATE documents SET current = 0 WHERE id = ?", old[:1])
        self._writer.execute(
            "DELETE FROM chunk_search WHERE rowid IN (SELECT id FROM chunks WHERE document = ?)", old[:1]
        )
        return str(old[1])

    def delete_document(self, scope: str, name: str) -> int:
        """Erase every version of a document, in one transaction; returns how many there were."""
        with self._write_lock, _Transaction(self._writer):
            self._retire_version(scope, name)
            for statement in _ERASING[:-1]:
                self._writer.execute(statement, (scope, name))
            return self._writer.execute(_ERASING[-1], (scope, name)).rowcount

    def list_documents(self, scope: str, after: str, limit: int) -> list[StoredDocument]:
        """Current documents, by name."""
        with self._read_lock:
            rows = self._reader.execute(_LISTED, (scope, after, limit)).fetchall()
        return [_stored_document(row) for row in rows]

    def read_chunks(self, scope: str, name: str, start: int, limit: int) -> DocumentPart | None:
        """A current document and its chunks from a character on; None where there is none of this name."""
        with self._read_lock, _Snapshot(self._reader):
            row = self._reader.execute(_NAMED, (scope, name, 1)).fetchone()
            if row is None:
                return None
            chunks = self._reader.execute(_CHUNKS, (bounds.MAX_CHUNK_CHARS, scope, name, start, limit)).fetchall()
            lost = self._reader.execute(_LOST, (scope, name)).fetchall()
            [chars] = self._reader.execute(
                "SELECT length(text) FROM documents WHERE current = 1 AND scope = ? AND name = ?", (scope, name)
            ).fetchone()
        return DocumentPart(
            _stored_document(row),
            chars,
            tuple(LostPage(page=page, code=code, reason=reason) for page, code, reason in lost),
            tuple(
                StoredChunk(chunk_id=chunk_id, start=begin, end=end, title=title, text=text)
                for chunk_id, begin, end, title, text in chunks
            ),
        )

    def _add_document(self, new: NewDocument) -> int:
        document = self._writer.execute(
            "INSERT INTO documents (scope, name, sha256, media_type, text, current, ingested_unix_ms) "
            "VALUES (?, ?, ?, ?, ?, 0, ?)",
            (new.scope, new.name, new.sha256, new.media_type, new.text, new.now_unix_ms),
        ).lastrowid
        assert document is not None
        # An older version erases a document and leaves its row, and numbers come again.
        pages = (document, new.pages.pages, new.pages.sparse)
        self._writer.execute("INSERT OR REPLACE INTO document_pages VALUES (?, ?, ?)", pages)
        self._writer.execute("DELETE FROM lost_pages WHERE document = ?", (document,))
        lost = ((document, page.page, page.code, page.reason) for page in new.pages.lost)
        self._writer.executemany("INSERT INTO lost_pages VALUES (?, ?, ?, ?)", lost)
        self._writer.executemany(
            "INSERT INTO chunks (document, chunk_id, start, end, title, text) VALUES (?, ?, ?, ?, ?, ?)",
            ((document, c.id, c.start, c.end, c.title, new.text[c.start : c.end]) for c in new.chunks),
        )
        rows = self._writer.execute("SELECT text, id FROM chunks WHERE document = ?", (document,)).fetchall()
        digests = ((_text_digest(text), row) for text, row in rows)
        self._writer.executemany("INSERT OR IGNORE INTO chunk_digests VALUES (?, ?)", digests)
        return document

    def _publish_version(self, new: NewDocument, document: int) -> None:
        self._writer.execute("UPDATE documents SET current = 1 WHERE id = ?", (document,))
        # The document's name is searched with the title: people ask for "the 2024 fares" by file name.
        self._writer.execute(
            "INSERT INTO chunk_search (rowid, title, body) "
            "SELECT c.id, c.title || ' ' || d.name, c.text "
            "FROM chunks c JOIN documents d ON d.id = c.document WHERE d.id = ?",
            (document,),
        )
        if new.vectors:
            rows = self._writer.execute(
                "SELECT id FROM chunks WHERE document = ? ORDER BY start", (document,)
            ).fetchall()
            pairs = zip((row[0] for row in rows), new.vectors, strict=True)
            self._keep_vectors(new.model, pairs)

    def vectors_of(self, model: str, texts: Sequence[str]) -> dict[str, bytes]:
        """Vectors by text that any chunk of the tenant has already, of any version of any document."""
        text_by_digest = {_text_digest(text): text for text in texts}
        with self._read_lock:
            rows = self._reader.execute(_EMBEDDED, (model, json.dumps(list(text_by_digest)))).fetchall()
        return {text: vector for text, vector in rows if text_by_digest.get(_text_digest(text)) == text}

    def chunks_without_vectors(self, scope: str, name: str, model: str) -> list[tuple[int, str]]:
        """(row, text) of a current document's chunks that have no vector of this model yet."""
        with self._read_lock:
            return self._reader.execute(
                "SELECT c.id, c.text FROM documents d "
                "JOIN chunks c ON c.document = d.id LEFT JOIN vectors v ON v.chunk = c.id AND v.model = ? "
                "WHERE d.scope = ? AND d.name = ? AND d.current = 1 AND v.chunk IS NULL ORDER BY c.id",
                (model, scope, name),
            ).fetchall()

    def add_vectors(self, model: str, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Vectors for chunks that had none."""
        with self._write_lock, _Transaction(self._writer):
            self._keep_vectors(model, pairs)

    def _keep_vectors(self, model: str, pairs: Iterable[tuple[int, bytes]]) -> None:
        self._writer.executemany(
            "INSERT OR REPLACE INTO vectors (chunk, model, vector) VALUES (?, ?, ?)",
            ((row, model, vector) for row, vector in pairs),
        )

    def search_chunks(
        self,
        scopes: Sequence[str],
        terms: tuple[str, ...],
        vector: Vector | None = None,
        model: str = "",
        scan_limit: int = 0,
    ) -> RetrievalCandidates:
        """Chunks of current documents in these scopes that hold any of the terms, or lie near the vector."""
        scopes_json = json.dumps(list(scopes))
        with self._read_lock:
            expressions = tuple(any_term_expression((term,)) for term in terms)
            rows = self._match_words(scopes_json, any_term_expression(terms)) if terms else []
            if not rows and (wider := prefix_expression(terms)):
                expressions = tuple(e for term in terms if (e := prefix_expression((term,))))
                rows = self._match_words(scopes_json, wider)
            in_text = self._count_hits(rows, "body", expressions)
            in_title = self._count_hits(rows, "title", expressions)
            words = tuple(Candidate(*row[:8], -row[8], in_text.get(row[0], 0), in_title.get(row[0], 0)) for row in rows)
            if vector is None:
                return RetrievalCandidates(words, len(expressions))
            nearest, lost = self._nearest_chunks(scopes_json, vector, model, scan_limit)
            return RetrievalCandidates(words, len(expressions), nearest, lost)

    def _match_words(self, scopes: str, expression: str) -> list[MatchRow]:
        return self._reader.execute(_MATCHING, (expression, scopes, bounds.MAX_CANDIDATES)).fetchall()

    def _count_hits(self, rows: list[MatchRow], column: str, expressions: tuple[str, ...]) -> dict[int, int]:
        """The number of the expressions that each row's column matches; the index does the stemming."""
        ids = json.dumps([row[0] for row in rows])
        hits: dict[int, int] = {}
        for expression in expressions if rows else ():
            for (row,) in self._reader.execute(
                "SELECT rowid FROM chunk_search WHERE chunk_search MATCH ? "
                "AND +rowid IN (SELECT value FROM json_each(?))",
                (f"{column} : ({expression})", ids),
            ):
                hits[row] = hits.get(row, 0) + 1
        return hits

    def _nearest_chunks(
        self, scopes: str, vector: Vector, model: str, scan_limit: int
    ) -> tuple[tuple[Candidate, ...], str]:
        source = (
            " FROM documents d JOIN chunks c ON c.document = d.id LEFT JOIN vectors v ON v.chunk = c.id "
            "AND v.model = ? WHERE d.current = 1 AND d.scope IN (SELECT value FROM json_each(?))"
        )
        count, without = self._reader.execute(
            "SELECT count(*), count(*) - count(v.chunk)" + source, (model, scopes)
        ).fetchone()
        if count > scan_limit:
            return (), f"{count} chunks exceed the {scan_limit} that exact vector search reads"
        lost = f"{without} of {count} chunks have no vectors of {model}" if without else ""
        scored: list[tuple[float, int]] = []
        size = len(vector) * vector.itemsize
        for row, raw in self._reader.execute("SELECT c.id, v.vector" + source, (model, scopes)):
            if raw is not None and len(raw) == size:
                scored.append((sum(map(mul, vector, array("f", raw))), -row))
        best = [-row for _, row in heapq.nlargest(50, scored)]
        return self._load_candidates(best), lost

    def _load_candidates(self, ids: list[int]) -> tuple[Candidate, ...]:
        rows = self._reader.execute(_BY_ROW, (json.dumps(ids),)).fetchall()
        by_row = {row[0]: Candidate(*row) for row in rows}
        return tuple(by_row[row] for row in ids if row in by_row)

    def read_passage(self, scope: str, name: str, sha256: str, start: int, end: int) -> tuple[str, str] | None:
        """Characters [start, end) of a version of a document, and the digest of its current version."""
        with self._read_lock:
            row: tuple[str, str] | None = self._reader.execute(
                "SELECT substr(d.text, ? + 1, ?), c.sha256 FROM documents d "
                "JOIN documents c ON c.scope = d.scope AND c.name = d.name AND c.current = 1 "
                "WHERE d.scope = ? AND d.name = ? AND d.sha256 = ?",
                (start, max(0, end - start), scope, name, sha256),
            ).fetchone()
        return row


class _Transaction:
    """BEGIN IMMEDIATE, then COMMIT or, on any error, ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


class _Snapshot:
    """BEGIN, then COMMIT: reads within it see one state of the store, whatever is written meanwhile."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._connection.execute("COMMIT")


def _stored_document(row: DocumentRow) -> StoredDocument:
    name, sha256, media_type, chunks, versions, ingested_unix_ms, pages, sparse_pages = row
    return StoredDocument(
        name=name,
        sha256=sha256,
        media_type=media_type,
        chunks=chunks,
        versions=versions,
        ingested_unix_ms=ingested_unix_ms,
        pages=pages,
        sparse_pages=sparse_pages,
    )


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _open_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
