"""Request to outcome: an ingestion or a deletion to its outcome, a query to passages with citations.

Enters: RetrievalRequested, DocumentIngestRequested, DocumentDeleteRequested. Leaves: RetrievalReplied,
DocumentIngested, DocumentDeleted. By request and reply, for the gateway: which documents there are, chunks of one, what
a retrieval under a grant would find, and the text of a citation.
Order of a retrieval: granted -> not halted -> in time -> (vector, reserved) -> candidates -> rank -> cite;
asked ahead it ends with the vector.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from bulkhead.bounded_dict import BoundedDict
from bulkhead.grants import GrantRefused, Verifier
from bulkhead.runtime.doer.excerpts import make_excerpt
from bulkhead.runtime.doer.protocol import Doer, Job, JobContext
from bulkhead.runtime.edge.protocol import ReceivedMessage, RpcTable
from bulkhead.runtime.errors import Deferred, NotDone
from bulkhead.telemetry import metrics, names
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.result import Citation, Completeness, ContentRef, Failure, Label, Omission, Usage
from bulkhead_contracts.retrieval import (
    DocumentChunksReplied,
    DocumentChunksRequested,
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentIngestRequested,
    DocumentSearchReplied,
    DocumentSearchRequested,
    DocumentsReplied,
    DocumentsRequested,
    Passage,
    PassageReplied,
    PassageRequested,
    RankedChunk,
    RetrievalReplied,
    RetrievalRequested,
)
from bulkhead_contracts.tool import LiveCall, LookedAt
from bulkhead_contracts.types import Body
from bulkhead_services.rag.effects import FileLibrary
from bulkhead_services.rag.port import EmbeddedTexts, EmbeddingFailed, NewDocument, RetrievalCandidates, Vector
from bulkhead_services.rag.query import search_terms
from bulkhead_services.rag.rank import PassageChoice, RankedCandidate, choose_passages, fuse_orders, rank_by_words

SERVICE = "rag"
SEARCH_TOOL = "search_documents"
DEFAULT_SCOPE = "default"
EMBEDDING_BATCH = 64
SEARCH_CHARS: int = RetrievalRequested.model_fields["max_chars"].default
"""Text that a person's search finds at most: as much as a task's."""
MAX_REMEMBERED_QUERIES = 1_024
"""Vectors of queries that are remembered, of all tenants."""
NO_USAGE = Usage()
Request = RetrievalRequested | DocumentIngestRequested | DocumentDeleteRequested


@dataclass(frozen=True, slots=True)
class EmbeddingOutcome:
    """Vectors (none when switched off or lost), why they were lost, what they cost. remembered: of an earlier query."""

    vectors: tuple[Vector, ...] = ()
    loss_reason: str = ""
    usage: Usage = NO_USAGE
    remembered: bool = False


@dataclass(frozen=True, slots=True)
class QueryAhead:
    """A query that was embedded for a step before it began: what that cost, and how long it took."""

    query: str
    usage: Usage
    took_ms: int


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """embedding_model: "" where vectors are switched off."""

    chunks_per_document: int
    embedding_model: str = ""
    price_usd_micros_per_mtok: int = 0

    def embedding_cost_usd_micros(self, tokens: int) -> int:
        """Rounded up; no more than a sum of money that can be booked."""
        return min(-(-tokens * self.price_usd_micros_per_mtok // 1_000_000), bounds.MAX_COST_USD_MICROS)


class Rag(Doer[Request]):
    """The doer. Search by words costs nothing and goes nowhere, so it reserves nothing; embeddings do."""

    service = SERVICE
    handles: tuple[type[Body], ...] = (RetrievalRequested, DocumentIngestRequested, DocumentDeleteRequested)

    def __init__(
        self, library: FileLibrary, options: RetrievalOptions, verifier: Verifier, clock: Callable[[], int]
    ) -> None:
        self.rpc: RpcTable = {
            DocumentsRequested: self.on_documents_requested,
            DocumentChunksRequested: self.on_document_chunks_requested,
            DocumentSearchRequested: self.on_document_search_requested,
            PassageRequested: self.on_passage_requested,
        }
        self._library, self._options, self._verifier, self._clock = library, options, verifier, clock
        self._query_vectors = BoundedDict[tuple[str, str], Vector](MAX_REMEMBERED_QUERIES)
        self._queries_ahead = BoundedDict[tuple[str, str, str], QueryAhead](MAX_REMEMBERED_QUERIES)
        """By tenant, task and step, until that asks."""
        # As long as somebody holds one, or waits for it.
        self._query_locks: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    def describe_problem(self) -> str:
        """Why it cannot do its work, for health checks; "" when it can."""
        return self._library.storage_problem()

    async def stop(self) -> None:
        """Close the stores."""
        await self._library.close()

    async def on_documents_requested(self, message: ReceivedMessage) -> DocumentsReplied:
        """A page of the tenant's documents. For the gateway, which may say who asks for whatever it takes in."""
        request = message.body
        assert isinstance(request, DocumentsRequested)
        page = await self._library.list_documents(message.tenant, DEFAULT_SCOPE, request.after, request.limit + 1)
        if isinstance(page, Failure):
            return DocumentsReplied(failure=page)
        return DocumentsReplied(documents=page[: request.limit], more=len(page) > request.limit)

    async def on_document_chunks_requested(self, message: ReceivedMessage) -> DocumentChunksReplied:
        """Chunks of a current document. For the gateway, as `on_documents_requested` is."""
        request = message.body
        assert isinstance(request, DocumentChunksRequested)
        part = await self._library.read_chunks(
            message.tenant, DEFAULT_SCOPE, request.document, request.start, request.limit + 1
        )
        if isinstance(part, Failure):
            return DocumentChunksReplied(failure=part)
        if part is None:
            return DocumentChunksReplied()
        following = part.chunks[request.limit :]
        return DocumentChunksReplied(
            document=part.document,
            chars=part.chars,
            lost_pages=part.lost,
            chunks=part.chunks[: request.limit],
            next=following[0].start if following else None,
        )

    async def on_document_search_requested(self, message: ReceivedMessage) -> DocumentSearchReplied:
        """Chunks that a retrieval would find in the scopes of the grant. It spends nothing: no query is embedded."""
        request = message.body
        assert isinstance(request, DocumentSearchRequested)
        try:
            authority = self._verifier.verify_authority(
                message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=self._clock()
            )
        except GrantRefused as error:
            hint = "search with a role that may submit tasks"
            return DocumentSearchReplied(failure=Failure.from_text(error.code, str(error), hint))
        terms = search_terms(request.query)
        refusal = _scope_refusal(authority.task.document_scopes) or _query_refusal(terms)
        if refusal is not None:
            return DocumentSearchReplied(failure=refusal)
        vector = self._query_vectors.get_refreshed((message.tenant, request.query))
        candidates = await self._library.search_chunks(message.tenant, authority.task.document_scopes, terms, vector)
        if isinstance(candidates, Failure):
            return DocumentSearchReplied(failure=candidates)
        choice = choose_passages(
            _rank_candidates(candidates, request.k), request.k, SEARCH_CHARS, self._options.chunks_per_document
        )
        lost = "no task has asked this yet" if self._options.embedding_model and vector is None else ""
        return DocumentSearchReplied(
            chunks=tuple(_ranked_chunk(ranked) for ranked in choice.passages),
            pruned=choice.omitted_by_k + choice.omitted_by_chars,
            note=_lost_line(lost or candidates.vector_loss),
        )

    async def on_passage_requested(self, message: ReceivedMessage) -> PassageReplied:
        """The text of a citation, from the version that was cited. For the gateway, as `on_documents_requested` is."""
        request = message.body
        assert isinstance(request, PassageRequested)
        end = min(request.end, request.start + bounds.MAX_CITED_CHARS)
        located = await self._library.read_passage(
            message.tenant, DEFAULT_SCOPE, request.document, request.sha256, request.start, end
        )
        if isinstance(located, Failure):
            return PassageReplied(failure=located)
        if located is None:
            return PassageReplied()
        text, current = located
        return PassageReplied(
            state="current" if current == request.sha256 else "superseded", text=text, current_sha256=current
        )

    def idempotency_key(self, request: Request) -> str:
        """Call id; for what has its id as task token (an ingestion, a deletion) name and content within it."""
        if isinstance(request, RetrievalRequested):
            return request.call_id
        name = hashlib.blake2b(request.name.encode(), digest_size=8).hexdigest()
        if isinstance(request, DocumentDeleteRequested):
            return f"delete-{name}"
        return f"ingest-{name}-{request.content.sha256[:32]}"

    def needs_claim(self, job: Job[Request]) -> bool:
        """False: a search changes nothing, the store knows an ingestion by its id, and what is erased stays erased."""
        return False

    async def act(self, job: Job[Request], hands: JobContext, turn: object) -> Body:
        """See the module's docstring for the order."""
        if isinstance(job.request, RetrievalRequested):
            retrieve = self._embed_ahead if job.request.asked_ahead else self._retrieve_passages
            return await retrieve(job, job.request, hands)
        if isinstance(job.request, DocumentDeleteRequested):
            return await self._delete_document(job, job.request, hands)
        assert isinstance(job.request, DocumentIngestRequested)
        return await self._ingest_document(job, job.request, hands)

    def refusal_reply(self, request: Request, failure: Failure) -> Body:
        """The reply that says no."""
        if isinstance(request, RetrievalRequested):
            return RetrievalReplied(
                call_id=request.call_id,
                step_id=request.step_id,
                outcome="refused",
                failure=failure,
                standing="failed",
                asked_ahead=request.asked_ahead,
            )
        if isinstance(request, DocumentDeleteRequested):
            return DocumentDeleted(name=request.name, outcome="rejected", failure=failure)
        return _reject_ingestion(request, failure)

    def uncertain_reply(self, request: Request) -> Body:
        """Never asked for, since nothing here is claimed; answered all the same."""
        failure = Failure.from_text("uncertain", "it is unknown whether this was done", "ask again: repeating is safe")
        return self.refusal_reply(request, failure)

    def describe_call(self, request: Request, reply: Body | None, now_unix_ms: int) -> LiveCall | None:
        """Live word about a retrieval: its query, then the documents that it found. Nobody watches what people do to
        documents."""
        if not isinstance(request, RetrievalRequested) or request.asked_ahead:
            return None
        same = {name: getattr(request, name) for name in ("call_id", "step_id", "attempt")}
        common = same | {"time_unix_ms": now_unix_ms, "looks_at": make_excerpt(request.query), "tool": SEARCH_TOOL}
        if not isinstance(reply, RetrievalReplied):
            return LiveCall(event="retrieval.started", **common)
        best: dict[str, LookedAt] = {}
        for passage in reply.passages:
            document, excerpt = passage.citation.document, passage.content.summary
            if document not in best and len(best) < bounds.MAX_LIVE_SOURCES:
                best[document] = LookedAt(document=document, title=passage.title, excerpt=make_excerpt(excerpt))
        return LiveCall(
            event="retrieval.ended",
            outcome=reply.outcome,
            code=reply.failure.code if reply.failure else "",
            duration_ms=reply.duration_ms,
            excerpt=make_excerpt(reply.failure.message) if reply.failure else "",
            passages=len(reply.passages),
            sources=tuple(best.values()),
            **common,
        )

    # Retrieval

    async def _retrieve_passages(self, job: Job[Request], request: RetrievalRequested, hands: JobContext) -> Body:
        started = hands.now_unix_ms()
        terms = search_terms(request.query)
        refusal = self._retrieval_refusal(job, request, hands, terms)
        if refusal is not None:
            return self.refusal_reply(request, refusal)
        vectors, saved_ms = await self._embed_or_take(job, hands, request)
        scopes = job.authority.task.document_scopes
        vector = vectors.vectors[0] if vectors.vectors else None
        candidates = await self._library.search_chunks(job.tenant, scopes, terms, vector)
        if isinstance(candidates, Failure):
            if candidates.code == "store_busy":
                raise Deferred(1_000, candidates.message)
            took_ms = max(0, hands.now_unix_ms() - started)
            changes = {
                "outcome": "failed",
                "failure": candidates,
                "usage": vectors.usage,
                "duration_ms": took_ms,
                "saved_ms": saved_ms,
            }
            return self.refusal_reply(request, candidates).model_copy(update=changes)
        ranked = _rank_candidates(candidates, request.k)
        choice = choose_passages(ranked, request.k, request.max_chars, self._options.chunks_per_document)
        passages = await asyncio.gather(*(_build_passage(job, hands, chosen) for chosen in choice.passages))
        lost = vectors.loss_reason or candidates.vector_loss
        return RetrievalReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="found",
            passages=tuple(passages),
            standing="degraded" if lost else "ok",
            standing_reason=_lost_line(lost),
            completeness=_build_completeness(request, choice, lost),
            provenance=tuple(_signed_label(job, hands, passage) for passage in passages),
            usage=vectors.usage + Usage(retrievals=1),
            duration_ms=max(0, hands.now_unix_ms() - started),
            saved_ms=saved_ms,
        )

    async def _embed_ahead(self, job: Job[Request], request: RetrievalRequested, hands: JobContext) -> Body:
        """Embed the query of a step that has not begun. No document is looked at: what may be found, and what there is,
        is for the moment at which the step asks."""
        started = hands.now_unix_ms()
        refusal = self._retrieval_refusal(job, request, hands, search_terms(request.query))
        if refusal is not None:
            return self.refusal_reply(request, refusal)
        embedded = await self._embed_query(job, hands, request)
        took_ms = max(0, hands.now_unix_ms() - started)
        changes: dict[str, object] = {"usage": embedded.usage, "duration_ms": took_ms}
        if embedded.loss_reason:
            failure = Failure.from_text("embedding_failed", embedded.loss_reason, "the step asks again")
            return self.refusal_reply(request, failure).model_copy(update={**changes, "outcome": "failed"})
        if embedded.vectors:
            metrics.retrievals_ahead.add(1, {names.OUTCOME: "asked"})
            self._queries_ahead[job.tenant, job.task, request.step_id] = QueryAhead(
                request.query, embedded.usage, took_ms
            )
        return RetrievalReplied(
            call_id=request.call_id, step_id=request.step_id, outcome="found", asked_ahead=True
        ).model_copy(update=changes)

    async def _embed_or_take(
        self, job: Job[Request], hands: JobContext, request: RetrievalRequested
    ) -> tuple[EmbeddingOutcome, int | None]:
        """The vector of a query; and how many milliseconds earlier it is there because it was asked ahead, where it
        was. That one's usage is told here."""
        began = hands.now_unix_ms()
        embedded = await self._embed_query(job, hands, request)
        ahead = self._queries_ahead.pop((job.tenant, job.task, request.step_id), None)
        if ahead is None or ahead.query != request.query or not embedded.remembered:
            return embedded, None
        metrics.retrievals_ahead.add(1, {names.OUTCOME: "used"})
        saved_ms = max(0, ahead.took_ms - max(0, hands.now_unix_ms() - began))
        return replace(embedded, usage=ahead.usage), saved_ms

    def _retrieval_refusal(
        self, job: Job[Request], request: RetrievalRequested, hands: JobContext, terms: tuple[str, ...]
    ) -> Failure | None:
        step, task = job.authority.step, job.authority.task
        if step is None or SEARCH_TOOL not in step.tools or SEARCH_TOOL not in task.tools:
            reason = f"no step grant names {SEARCH_TOOL}"
            return Failure.from_text("not_granted", reason, f"submit the task with the tool {SEARCH_TOOL} allowed")
        is_for_another = (step.step_id, step.attempt) != (request.step_id, request.attempt)
        # Before a step begins its grant is of attempt 0: under it nothing is searched.
        if is_for_another or (request.attempt == 0) != request.asked_ahead:
            reason = "the grant is for another step or attempt"
            return Failure.from_text("wrong_step", reason, "send the grant that came with the step's assignment")
        if (refusal := _scope_refusal(task.document_scopes)) is not None:
            return refusal
        stop = hands.find_stop(
            job, tool=SEARCH_TOOL, deadline_unix_ms=request.deadline_unix_ms, what="the search", begins=True
        )
        if stop is not None:
            return stop.to_failure()
        return _query_refusal(terms)

    # Ingestion

    async def _ingest_document(self, job: Job[Request], request: DocumentIngestRequested, hands: JobContext) -> Body:
        if (refusal := _change_refusal(job, hands)) is not None:
            return _reject_ingestion(request, refusal)
        ingestion = f"{job.task}/{self.idempotency_key(request)}"
        sha256 = request.content.sha256
        prior = await self._library.find_prior_ingestion(job.tenant, ingestion, DEFAULT_SCOPE, request.name, sha256)
        if isinstance(prior, Failure):
            return _reject_ingestion(request, prior)
        if prior is not None:
            lost = await self._complete_vectors(job, request, hands)
            return DocumentIngested(
                name=request.name,
                sha256=sha256,
                outcome=prior.outcome,
                chunks=prior.chunks,
                detail=_lost_line(lost),
                pages=prior.pages.pages,
                sparse_pages=prior.pages.sparse,
            )
        data = await self._library.read_content(hands.blobs, job.tenant, request.content)
        if isinstance(data, Failure):
            return _reject_ingestion(request, data)
        divided = await self._library.divide_document(
            job.tenant, job.authority.task.actor, request.name, sha256, request.media_type, data
        )
        if isinstance(divided, Failure):
            return _reject_ingestion(request, divided)
        texts = [divided.text[chunk.start : chunk.end] for chunk in divided.chunks]
        vectors = await self._embed_all(job, hands, self.idempotency_key(request), texts)
        done = await self._library.ingest_document(
            job.tenant,
            NewDocument(
                ingestion_id=ingestion,
                scope=DEFAULT_SCOPE,
                name=request.name,
                sha256=sha256,
                media_type=request.media_type,
                text=divided.text,
                chunks=divided.chunks,
                now_unix_ms=hands.now_unix_ms(),
                model=self._options.embedding_model,
                vectors=tuple(vector.tobytes() for vector in vectors.vectors),
                pages=divided.pages,
            ),
        )
        if isinstance(done, Failure):
            return _reject_ingestion(request, done)
        name, outcome, detail = request.name, done.outcome, _lost_line(vectors.loss_reason)
        return DocumentIngested(
            name=name,
            sha256=sha256,
            outcome=outcome,
            chunks=done.chunks,
            replaced_sha256=done.replaced_sha256,
            detail=detail,
            pages=done.pages.pages,
            sparse_pages=done.pages.sparse,
        )

    async def _delete_document(self, job: Job[Request], request: DocumentDeleteRequested, hands: JobContext) -> Body:
        if (refusal := _change_refusal(job, hands)) is not None:
            return self.refusal_reply(request, refusal)
        deleted_versions = await self._library.delete_document(job.tenant, DEFAULT_SCOPE, request.name)
        if isinstance(deleted_versions, Failure):
            return self.refusal_reply(request, deleted_versions)
        return DocumentDeleted(
            name=request.name, outcome="deleted" if deleted_versions else "absent", versions=deleted_versions
        )

    async def _complete_vectors(self, job: Job[Request], request: DocumentIngestRequested, hands: JobContext) -> str:
        """Vectors that were lost when this document came in are made when it comes again."""
        model = self._options.embedding_model
        if not model:
            return ""
        missing = await self._library.chunks_without_vectors(job.tenant, DEFAULT_SCOPE, request.name, model)
        if isinstance(missing, Failure):
            return missing.message
        vectors = await self._embed_all(job, hands, self.idempotency_key(request), [text for _, text in missing])
        if not vectors.vectors:
            return vectors.loss_reason
        pairs = [(row, v.tobytes()) for (row, _), v in zip(missing, vectors.vectors, strict=True)]
        failed = await self._library.add_vectors(job.tenant, model, pairs)
        return failed.message if isinstance(failed, Failure) else ""

    # Vectors

    async def _embed_all(
        self, job: Job[Request], hands: JobContext, call_id: str, texts: Sequence[str]
    ) -> EmbeddingOutcome:
        """Vectors of a document's chunks, all or none; the document is taken either way. No text is embedded twice."""
        if not self._options.embedding_model:
            return EmbeddingOutcome()
        stored = await self._library.vectors_of(job.tenant, self._options.embedding_model, texts)
        by_text = {} if isinstance(stored, Failure) else dict(stored)
        missing, usage = [text for text in dict.fromkeys(texts) if text not in by_text], NO_USAGE
        for batch, offset in enumerate(range(0, len(missing), EMBEDDING_BATCH)):
            some = missing[offset : offset + EMBEDDING_BATCH]
            try:
                embedded = await self._embed_batch(job, hands, call_id, some, batch)
            except NotDone as wait:
                # An ingestion is not deferred for money: without vectors the document is found by words.
                return EmbeddingOutcome(loss_reason=f"no money for vectors now: {wait}", usage=usage)
            usage += embedded.usage
            if embedded.loss_reason:
                return EmbeddingOutcome(loss_reason=embedded.loss_reason, usage=usage)
            by_text.update(zip(some, embedded.vectors, strict=True))
        return EmbeddingOutcome(tuple(by_text[text] for text in texts), usage=usage)

    async def _embed_query(self, job: Job[Request], hands: JobContext, request: RetrievalRequested) -> EmbeddingOutcome:
        """The vector of a query; one that the tenant asked before is remembered. Of one task the same query is embedded
        by one call at a time: who asks while it is under way has its vector."""
        query_key = job.tenant, request.query
        async with self._query_locks.setdefault((job.tenant, job.task, request.query), asyncio.Lock()):
            if (vector := self._query_vectors.get_refreshed(query_key)) is not None:
                return EmbeddingOutcome((vector,), remembered=True)
            embedded = await self._embed_batch(job, hands, request.call_id, (request.query,))
            if embedded.vectors:
                self._query_vectors[query_key] = embedded.vectors[0]
            return embedded

    async def _embed_batch(
        self, job: Job[Request], hands: JobContext, call_id: str, texts: Sequence[str], batch: int = 0
    ) -> EmbeddingOutcome:
        """Reserve, call, settle. A token holds at least one byte, so bytes bound the tokens."""
        options = self._options
        if not options.embedding_model:
            return EmbeddingOutcome()
        most = sum(len(text.encode()) for text in texts)
        price_name = f"{options.embedding_model}/{options.price_usd_micros_per_mtok}"
        reservation = await hands.reserve_attempt(
            job,
            call_id,
            batch,
            purpose="retrieval",
            resource=options.embedding_model[: bounds.MAX_NAME_CHARS],
            worst_case=Amount(tokens=most, cost_usd_micros=options.embedding_cost_usd_micros(most)),
            price_digest=hashlib.blake2b(price_name.encode(), digest_size=8).hexdigest(),
        )
        reply = await self._library.embed_texts(texts)
        is_estimate = reply.tokens is None
        if is_estimate and isinstance(reply, EmbeddingFailed) and not reply.called:
            reservation.settle(Usage())
            return EmbeddingOutcome(loss_reason=reply.reason)
        # It may have been charged for: what is not known costs what was reserved.
        tokens = most if reply.tokens is None else reply.tokens
        usage = Usage(input_tokens=tokens, cost_usd_micros=options.embedding_cost_usd_micros(tokens))
        usage = usage.as_estimate() if is_estimate else usage
        if isinstance(reply, EmbeddedTexts):
            reservation.settle(usage, estimated=is_estimate)
            return EmbeddingOutcome(reply.vectors, usage=usage)
        reservation.settle(usage, estimated=is_estimate, failed="embedding_failed")
        return EmbeddingOutcome(loss_reason=reply.reason, usage=usage)


def _rank_candidates(candidates: RetrievalCandidates, k: int) -> list[RankedCandidate]:
    ranked = rank_by_words(candidates.by_words, candidates.term_count)
    if not candidates.by_vector:
        return ranked
    rows = {candidate.row: candidate for candidate in candidates.by_vector}
    return fuse_orders(ranked, tuple(rows), rows, k)


def _scope_refusal(scopes: Sequence[str]) -> Failure | None:
    if scopes:
        return None
    reason = "the grant names no document scope"
    return Failure.from_text("no_scope", reason, f"have the tenant's policy allow the scope {DEFAULT_SCOPE!r}")


def _query_refusal(terms: Sequence[str]) -> Failure | None:
    if terms:
        return None
    reason = "the query holds no word to search for"
    return Failure.from_text("empty_query", reason, "ask with words that should stand in the documents")


def _ranked_chunk(ranked: RankedCandidate) -> RankedChunk:
    c = ranked.candidate
    same = {name: getattr(c, name) for name in ("document", "document_sha256", "chunk_id", "start", "end", "title")}
    return RankedChunk(text=c.text[: bounds.MAX_CHUNK_CHARS], score=ranked.score, **same)


async def _build_passage(job: Job[Request], hands: JobContext, ranked: RankedCandidate) -> Passage:
    """A chunk's text becomes a blob when it is cited: most never are, and blobs may expire."""
    c = ranked.candidate
    content: ContentRef = await hands.blobs.put(job.tenant, c.text)
    same = {name: getattr(c, name) for name in ("document", "document_sha256", "chunk_id", "start", "end")}
    citation = Citation(marker=content.marker, **same)
    return Passage(content=content, citation=citation, title=c.title, score=ranked.score)


def _signed_label(job: Job[Request], hands: JobContext, passage: Passage) -> Label:
    source = passage.citation.document
    label = Label(sha256=passage.content.sha256, kind="passage", source=source, trust="untrusted", observed_by=SERVICE)
    return hands.signer.sign_label(label, job.tenant, job.task)


def _build_completeness(request: RetrievalRequested, choice: PassageChoice, lost: str) -> Completeness:
    omissions: list[Omission] = []
    room = f"max_chars={request.max_chars}"
    for count, limit in ((choice.omitted_by_k, f"k={request.k}"), (choice.omitted_by_chars, room)):
        if count:
            detail = f"they match about as well as those returned but did not fit {limit}"
            omissions.append(Omission(reason="pruned", what=f"{count} matching passages", detail=detail))
    if choice.shortened:
        detail = f"it is longer than {room}; its beginning was returned"
        omissions.append(Omission(reason="truncated", what="the best passage", detail=detail))
    if lost:
        omissions.append(Omission(reason="failed_part", what="search by meaning", detail=lost))
    return Completeness.with_omissions(*omissions) if omissions else Completeness()


def _lost_line(lost: str) -> str:
    return f"searchable by words alone: {lost}"[: bounds.MAX_SUMMARY_CHARS] if lost else ""


def _change_refusal(job: Job[Request], hands: JobContext) -> Failure | None:
    """The reason for which this authority may not change what documents there are, now."""
    if DEFAULT_SCOPE not in job.authority.task.document_scopes:
        reason = f"the grant does not name the scope {DEFAULT_SCOPE!r}"
        return Failure.from_text("no_scope", reason, "have the tenant's policy allow it")
    stop = hands.find_stop(job)
    return stop.to_failure() if stop is not None else None


def _reject_ingestion(request: DocumentIngestRequested, failure: Failure) -> DocumentIngested:
    return DocumentIngested(
        name=request.name, sha256=request.content.sha256, outcome="rejected", failure=failure, detail=failure.message
    )
