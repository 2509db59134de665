"""Request to outcome: an ingestion or a deletion to its outcome, a query to passages with citations.

Enters: RetrievalRequested, DocumentIngestRequested, DocumentDeleteRequested. Leaves: RetrievalReplied,
DocumentIngested, DocumentDeleted. By request and reply, for the gateway: which documents there are, and the text of a
citation.
Order of a retrieval: granted -> not halted -> in time -> (vector, reserved) -> candidates -> rank -> cite.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict
from bulkhead.runtime.doer.protocol import Doer, Hands, Job
from bulkhead.runtime.edge.protocol import Received, RpcTable
from bulkhead.runtime.errors import Deferred, NotDone
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.result import Citation, Completeness, ContentRef, Failure, Label, Omission, Usage
from bulkhead_contracts.retrieval import (
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentIngestRequested,
    DocumentsReplied,
    DocumentsRequested,
    Passage,
    PassageReplied,
    PassageRequested,
    RetrievalReplied,
    RetrievalRequested,
)
from bulkhead_contracts.types import Body
from bulkhead_services.rag.port import Embedded, Library, NewDocument, Vector
from bulkhead_services.rag.query import terms_of
from bulkhead_services.rag.rank import Choice, Ranked, choose, fuse, lexical

SERVICE = "rag"
TOOL = "search_documents"
DEFAULT_SCOPE = "default"
EMBEDDING_BATCH = 64
QUERIES_KNOWN = 1_024
"""Vectors of queries that are remembered, of all tenants."""
NOTHING = Usage()
Request = RetrievalRequested | DocumentIngestRequested | DocumentDeleteRequested


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors (none when switched off or lost), why they were lost, what they cost."""

    found: tuple[Vector, ...] = ()
    lost: str = ""
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Knobs:
    """price: micro US dollars per million tokens; model "" means that vectors are switched off."""

    chunks_per_document: int
    model: str = ""
    price: int = 0


class Rag(Doer[Request]):
    """The doer. Search by words costs nothing and goes nowhere, so it reserves nothing; embeddings do."""

    service = SERVICE
    handles: tuple[type[Body], ...] = (RetrievalRequested, DocumentIngestRequested, DocumentDeleteRequested)

    def __init__(self, library: Library, knobs: Knobs) -> None:
        self.rpc: RpcTable = {DocumentsRequested: self.documents, PassageRequested: self.passage}
        self._library, self._knobs = library, knobs
        self._asked = BoundedDict[tuple[str, str], Vector](QUERIES_KNOWN)

    def problem(self) -> str:
        """Why it cannot do its work, for health checks; "" when it can."""
        return self._library.problem()

    async def stop(self) -> None:
        """Close the stores."""
        await self._library.close()

    async def documents(self, message: Received) -> DocumentsReplied:
        """A page of the tenant's documents. For the gateway, which may say who asks for whatever it takes in."""
        request = message.body
        assert isinstance(request, DocumentsRequested)
        found = await self._library.documents(message.tenant, DEFAULT_SCOPE, request.after, request.limit + 1)
        if isinstance(found, Failure):
            return DocumentsReplied(failure=found)
        return DocumentsReplied(documents=found[: request.limit], more=len(found) > request.limit)

    async def passage(self, message: Received) -> PassageReplied:
        """The text of a citation, from the version that was cited. For the gateway, as `documents` is."""
        asked = message.body
        assert isinstance(asked, PassageRequested)
        end = min(asked.end, asked.start + bounds.MAX_CITED_CHARS)
        found = await self._library.passage(
            message.tenant, DEFAULT_SCOPE, asked.document, asked.sha256, asked.start, end
        )
        if isinstance(found, Failure):
            return PassageReplied(failure=found)
        if found is None:
            return PassageReplied()
        text, current = found
        return PassageReplied(
            state="current" if current == asked.sha256 else "superseded", text=text, current_sha256=current
        )

    def key(self, request: Request) -> str:
        """Call id; for what has its id as task token (an ingestion, a deletion) name and content within it."""
        if isinstance(request, RetrievalRequested):
            return request.call_id
        name = hashlib.blake2b(request.name.encode(), digest_size=8).hexdigest()
        if isinstance(request, DocumentDeleteRequested):
            return f"delete-{name}"
        return f"ingest-{name}-{request.content.sha256[:32]}"

    def writes(self, job: Job[Request]) -> bool:
        """No: a search changes nothing, the store knows an ingestion by its id, and what is erased stays erased."""
        return False

    async def act(self, job: Job[Request], hands: Hands) -> Body:
        """See the module's docstring for the order."""
        if isinstance(job.request, RetrievalRequested):
            return await self._retrieve(job, job.request, hands)
        if isinstance(job.request, DocumentDeleteRequested):
            return await self._delete(job, job.request, hands)
        assert isinstance(job.request, DocumentIngestRequested)
        return await self._ingest(job, job.request, hands)

    def refuse(self, request: Request, failure: Failure) -> Body:
        """The reply that says no."""
        if isinstance(request, RetrievalRequested):
            return RetrievalReplied(
                call_id=request.call_id, step_id=request.step_id, outcome="refused", failure=failure, standing="failed"
            )
        if isinstance(request, DocumentDeleteRequested):
            return DocumentDeleted(name=request.name, outcome="rejected", failure=failure)
        return _rejected(request, failure)

    def uncertain(self, request: Request) -> Body:
        """Never asked for, since nothing here is claimed; answered all the same."""
        failure = Failure.of("uncertain", "it is unknown whether this was done", "ask again: repeating is safe")
        return self.refuse(request, failure)

    # Retrieval

    async def _retrieve(self, job: Job[Request], request: RetrievalRequested, hands: Hands) -> Body:
        started = hands.now_unix_ms()
        terms = terms_of(request.query)
        refusal = self._refusal(job, request, hands, terms)
        if refusal is not None:
            return self.refuse(request, refusal)
        vectors = await self._embed_query(job, hands, request)
        scopes = job.authority.task.document_scopes
        vector = vectors.found[0] if vectors.found else None
        found = await self._library.search(job.tenant, scopes, terms, vector)
        if isinstance(found, Failure):
            if found.code == "store_busy":
                raise Deferred(1_000, found.message)
            took_ms = max(0, hands.now_unix_ms() - started)
            said = {"outcome": "failed", "failure": found, "usage": vectors.usage, "duration_ms": took_ms}
            return self.refuse(request, found).model_copy(update=said)
        ranked = lexical(found.words, found.terms)
        if found.nearest:
            rows = {candidate.row: candidate for candidate in found.nearest}
            ranked = fuse(ranked, tuple(rows), rows, request.k)
        choice = choose(ranked, request.k, request.max_chars, self._knobs.chunks_per_document)
        passages = await asyncio.gather(*(_passage(job, hands, one) for one in choice.passages))
        lost = vectors.lost or found.vectors_lost
        return RetrievalReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="found",
            passages=tuple(passages),
            standing="degraded" if lost else "ok",
            standing_reason=_lost_line(lost),
            completeness=_completeness(request, choice, lost),
            provenance=tuple(_label(job, hands, passage) for passage in passages),
            usage=vectors.usage + Usage(retrievals=1),
            duration_ms=max(0, hands.now_unix_ms() - started),
        )

    def _refusal(
        self, job: Job[Request], request: RetrievalRequested, hands: Hands, terms: tuple[str, ...]
    ) -> Failure | None:
        step, task = job.authority.step, job.authority.task
        if step is None or TOOL not in step.tools or TOOL not in task.tools:
            what = f"no step grant names {TOOL}"
            return Failure.of("not_granted", what, f"submit the task with the tool {TOOL} allowed")
        if (step.step_id, step.attempt) != (request.step_id, request.attempt):
            what = "the grant is for another step or attempt"
            return Failure.of("wrong_step", what, "send the grant that came with the step's assignment")
        if not task.document_scopes:
            what = "the grant names no document scope"
            return Failure.of("no_scope", what, f"have the tenant's policy allow the scope {DEFAULT_SCOPE!r}")
        stop = hands.may(job, tool=TOOL, deadline_unix_ms=request.deadline_unix_ms, what="the search", begins=True)
        if stop is not None:
            return stop.failure()
        if not terms:
            what = "the query holds no word to search for"
            return Failure.of("empty_query", what, "ask with words that should stand in the documents")
        return None

    # Ingestion

    async def _ingest(self, job: Job[Request], request: DocumentIngestRequested, hands: Hands) -> Body:
        if (refusal := _no_change(job, hands)) is not None:
            return _rejected(request, refusal)
        ingestion = f"{job.task}/{self.key(request)}"
        sha256 = request.content.sha256
        prior = await self._library.prior(job.tenant, ingestion, DEFAULT_SCOPE, request.name, sha256)
        if isinstance(prior, Failure):
            return _rejected(request, prior)
        if prior is not None:
            lost = await self._complete_vectors(job, request, hands)
            return DocumentIngested(
                name=request.name, sha256=sha256, outcome=prior.outcome, chunks=prior.chunks, detail=_lost_line(lost)
            )
        data = await self._library.content(hands.blobs, job.tenant, request.content)
        if isinstance(data, Failure):
            return _rejected(request, data)
        divided = await self._library.divide(job.tenant, request.name, sha256, request.media_type, data)
        if isinstance(divided, Failure):
            return _rejected(request, divided)
        texts = [divided.text[chunk.start : chunk.end] for chunk in divided.chunks]
        vectors = await self._embed_all(job, hands, self.key(request), texts)
        done = await self._library.ingest(
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
                model=self._knobs.model,
                vectors=tuple(vector.tobytes() for vector in vectors.found),
            ),
        )
        if isinstance(done, Failure):
            return _rejected(request, done)
        name, outcome, detail = request.name, done.outcome, _lost_line(vectors.lost)
        return DocumentIngested(
            name=name, sha256=sha256, outcome=outcome, chunks=done.chunks, replaced_sha256=done.replaced, detail=detail
        )

    async def _delete(self, job: Job[Request], request: DocumentDeleteRequested, hands: Hands) -> Body:
        if (refusal := _no_change(job, hands)) is not None:
            return self.refuse(request, refusal)
        gone = await self._library.delete(job.tenant, DEFAULT_SCOPE, request.name)
        if isinstance(gone, Failure):
            return self.refuse(request, gone)
        return DocumentDeleted(name=request.name, outcome="deleted" if gone else "absent", versions=gone)

    async def _complete_vectors(self, job: Job[Request], request: DocumentIngestRequested, hands: Hands) -> str:
        """Vectors that were lost when this document came in are made when it comes again."""
        model = self._knobs.model
        if not model:
            return ""
        missing = await self._library.without_vectors(job.tenant, DEFAULT_SCOPE, request.name, model)
        if isinstance(missing, Failure):
            return missing.message
        vectors = await self._embed_all(job, hands, self.key(request), [text for _, text in missing])
        if not vectors.found:
            return vectors.lost
        pairs = [(row, v.tobytes()) for (row, _), v in zip(missing, vectors.found, strict=True)]
        failed = await self._library.add_vectors(job.tenant, model, pairs)
        return failed.message if isinstance(failed, Failure) else ""

    # Vectors

    async def _embed_all(self, job: Job[Request], hands: Hands, call_id: str, texts: Sequence[str]) -> Vectors:
        """Vectors of a document's chunks, all or none; the document is taken either way. No text is embedded twice."""
        if not self._knobs.model:
            return Vectors()
        known = await self._library.vectors_of(job.tenant, self._knobs.model, texts)
        found = {} if isinstance(known, Failure) else dict(known)
        missing, usage = [text for text in dict.fromkeys(texts) if text not in found], NOTHING
        for batch, at in enumerate(range(0, len(missing), EMBEDDING_BATCH)):
            some = missing[at : at + EMBEDDING_BATCH]
            try:
                made = await self._embed(job, hands, call_id, some, batch)
            except NotDone as wait:
                # An ingestion is not deferred for money: without vectors the document is found by words.
                return Vectors(lost=f"no money for vectors now: {wait}", usage=usage)
            usage += made.usage
            if made.lost:
                return Vectors(lost=made.lost, usage=usage)
            found.update(zip(some, made.found, strict=True))
        return Vectors(tuple(found[text] for text in texts), usage=usage)

    async def _embed_query(self, job: Job[Request], hands: Hands, request: RetrievalRequested) -> Vectors:
        """The vector of a query; one that the tenant asked before is remembered."""
        asked = job.tenant, request.query
        if (known := self._asked.use(asked)) is not None:
            return Vectors((known,))
        made = await self._embed(job, hands, request.call_id, (request.query,))
        if made.found:
            self._asked[asked] = made.found[0]
        return made

    async def _embed(
        self, job: Job[Request], hands: Hands, call_id: str, texts: Sequence[str], batch: int = 0
    ) -> Vectors:
        """Reserve, call, settle. A token holds at least one byte, so bytes bound the tokens."""
        knobs = self._knobs
        if not knobs.model:
            return Vectors()
        most = sum(len(text.encode()) for text in texts)
        held = await hands.reserve(
            job,
            call_id,
            batch,
            purpose="retrieval",
            resource=knobs.model[: bounds.MAX_NAME_CHARS],
            worst_case=Amount(tokens=most, cost_usd_micros=_cost(most, knobs.price)),
            price_digest=hashlib.blake2b(f"{knobs.model}/{knobs.price}".encode(), digest_size=8).hexdigest(),
        )
        made = await self._library.embed(texts)
        if isinstance(made, Embedded):
            tokens = most if made.tokens is None else made.tokens
            usage = Usage(input_tokens=tokens, cost_usd_micros=_cost(tokens, knobs.price))
            usage = usage.as_estimate() if made.tokens is None else usage
            held.settle(usage, estimated=made.tokens is None)
            return Vectors(made.vectors, usage=usage)
        if not made.called:
            held.settle(Usage())
            return Vectors(lost=made.reason)
        # It may have been charged for: what is not known costs what was reserved.
        usage = Usage(input_tokens=most, cost_usd_micros=_cost(most, knobs.price)).as_estimate()
        held.settle(usage, estimated=True, failed="embedding_failed")
        return Vectors(lost=made.reason, usage=usage)


def _cost(tokens: int, price_usd_micros_per_mtok: int) -> int:
    return -(-tokens * price_usd_micros_per_mtok // 1_000_000)


async def _passage(job: Job[Request], hands: Hands, ranked: Ranked) -> Passage:
    """A chunk's text becomes a blob when it is cited: most never are, and blobs may expire."""
    c = ranked.candidate
    content: ContentRef = await hands.blobs.put(job.tenant, c.text)
    same = {name: getattr(c, name) for name in ("document", "document_sha256", "chunk_id", "start", "end")}
    citation = Citation(marker=content.marker, **same)
    return Passage(content=content, citation=citation, title=c.title, score=ranked.score)


def _label(job: Job[Request], hands: Hands, passage: Passage) -> Label:
    source = passage.citation.document
    label = Label(sha256=passage.content.sha256, kind="passage", source=source, trust="untrusted", observed_by=SERVICE)
    return hands.signer.label(label, job.tenant, job.task)


def _completeness(request: RetrievalRequested, choice: Choice, lost: str) -> Completeness:
    omissions: list[Omission] = []
    room = f"max_chars={request.max_chars}"
    for count, why in ((choice.cut_by_k, f"k={request.k}"), (choice.cut_by_chars, room)):
        if count:
            detail = f"they match about as well as those returned but did not fit {why}"
            omissions.append(Omission(reason="pruned", what=f"{count} matching passages", detail=detail))
    if choice.shortened:
        detail = f"it is longer than {room}; its beginning was returned"
        omissions.append(Omission(reason="truncated", what="the best passage", detail=detail))
    if lost:
        omissions.append(Omission(reason="failed_part", what="search by meaning", detail=lost))
    return Completeness.missing(*omissions) if omissions else Completeness()


def _lost_line(lost: str) -> str:
    return f"searchable by words alone: {lost}"[: bounds.MAX_SUMMARY_CHARS] if lost else ""


def _no_change(job: Job[Request], hands: Hands) -> Failure | None:
    """Why this authority may not change what documents there are, now."""
    if DEFAULT_SCOPE not in job.authority.task.document_scopes:
        what = f"the grant does not name the scope {DEFAULT_SCOPE!r}"
        return Failure.of("no_scope", what, "have the tenant's policy allow it")
    stop = hands.may(job)
    return stop.failure() if stop is not None else None


def _rejected(request: DocumentIngestRequested, failure: Failure) -> DocumentIngested:
    return DocumentIngested(
        name=request.name, sha256=request.content.sha256, outcome="rejected", failure=failure, detail=failure.message
    )
