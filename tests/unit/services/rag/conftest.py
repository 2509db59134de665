"""Rag with its real stores in a temporary folder; only the bus (blobs, budget) is a fake in memory."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from bulkhead.blobs import BlobMissing, reference
from bulkhead.grants import Authority, Signer, Verifier, new_signing_seed, public_of
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.doer.protocol import Job, JobContext, Reservation
from bulkhead.runtime.errors import JobRefused
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.result import ContentRef, Failure
from bulkhead_contracts.retrieval import DocumentIngestRequested, RetrievalRequested
from bulkhead_services.rag.core import Rag, RetrievalOptions
from bulkhead_services.rag.effects import FileLibrary
from bulkhead_services.rag.settings import Settings
from tests.samples import sample

NOW = 1_800_000_000_000


class KeptBlobs:
    """Blobs in a dict, by author, tenant and digest."""

    def __init__(self, author: str = "rag") -> None:
        self.author = author
        self.kept: dict[tuple[str, str, str], bytes] = {}

    async def put(self, tenant: str, data: str | bytes, media_type: str = "text/plain") -> ContentRef:
        raw = data.encode() if isinstance(data, str) else data
        ref = reference(self.author, raw, media_type)
        self.kept[(self.author, tenant, ref.sha256)] = raw
        return ref

    async def get(self, tenant: str, ref: ContentRef) -> bytes:
        key = (ref.author, tenant, ref.sha256)
        if key not in self.kept:
            raise BlobMissing(f"no content {ref.sha256[:12]}")
        return self.kept[key]


@dataclass
class Desk:
    """A rag with everything that a test looks at."""

    rag: Rag
    library: FileLibrary
    seed: str = field(default_factory=new_signing_seed)
    blobs: KeptBlobs = field(default_factory=KeptBlobs)
    halt: Halt | None = None
    reserved: list[tuple[str, int, str, int]] = field(default_factory=list)
    refuse_money: bool = False
    reservations: list[Reservation] = field(default_factory=list)

    def hands(self) -> JobContext:
        async def reserve(job, call_id, attempt, call, keep) -> Reservation:
            if self.refuse_money:
                raise JobRefused(Failure(code="refused_by_budget", message="ceiling reached"))
            self.reserved.append((call_id, attempt, call.purpose, call.worst_case.tokens))
            keep(held := Reservation(f"r-{call_id}-{attempt}", call_id, call.worst_case))
            return held

        async def live(tenant, task, body) -> None:
            raise AssertionError("rag says nothing live")

        hands = JobContext(
            blobs=self.blobs,  # type: ignore[arg-type]
            signer=Signer("rag", self.seed),
            now_unix_ms=lambda: NOW,
            _reserve=reserve,
            _halts=SimpleNamespace(
                find=lambda target: self.halt,
                halt_event=lambda target, ends: asyncio.Event(),
                holding_breaker=lambda target, now_unix_ms: None,
            ),
            _live=live,
        )
        self.reservations = hands.reservations
        return hands

    async def ingest(self, name: str, data: str | bytes, media_type: str = "", task: str = "", tenant: str = "acme"):
        raw = data.encode() if isinstance(data, str) else data
        content = reference("gateway", raw, media_type or "text/plain")
        self.blobs.kept[("gateway", tenant, content.sha256)] = raw
        request = DocumentIngestRequested(name=name, media_type=media_type or "text/plain", content=content)
        task = task or "in-" + hashlib.sha256(name.encode() + raw).hexdigest()[:16]
        job = self.job(request, tenant=tenant, task=task, step=None)
        return await self.rag.act(job, self.hands(), None)

    async def search(self, query: str, *, k: int = 8, max_chars: int = 16_000, tenant: str = "acme", **job):
        request = RetrievalRequested(
            call_id="c1", step_id="s1", attempt=1, query=query, k=k, max_chars=max_chars, deadline_unix_ms=NOW + 1000
        )
        return await self.rag.act(self.job(request, tenant=tenant, **job), self.hands(), None)

    def job(
        self,
        request,
        *,
        tenant: str = "acme",
        task: str = "t1",
        scopes=("default",),
        tools=("search_documents",),
        step="s1",
        attempt: int = 1,
        deliveries: int = 1,
    ) -> Job:
        grant = sample(
            TaskGrant, tenant=tenant, task=task, tools=tools, document_scopes=scopes, expires_unix_ms=NOW + 10**6
        )
        narrow = step and StepGrant(
            tenant=tenant,
            task=task,
            step_id=step,
            attempt=attempt,
            plan_version=1,
            tools=tools,
            expires_unix_ms=NOW + 10**6,
        )
        head = Envelope(id="e" * 32, type=request.ce_type(), source="worker", time_unix_ms=NOW)
        authority = Authority(grant, narrow or None, "token")
        return Job.from_message(
            ReceivedMessage(head, request, tenant, task, "worker", 1, NOW, deliveries), request, authority, NOW
        )


@pytest.fixture
async def make_desk(tmp_path: Path):
    """Desks over stores in one folder; a second desk is a restarted (or second) service."""
    made: list[Desk] = []

    def make(chunks_per_document: int = 4, **knobs: object) -> Desk:
        settings = Settings(data_dir=tmp_path, **knobs)
        library = FileLibrary(settings)
        model = settings.embeddings_model if settings.embeddings_url else ""
        price = settings.embeddings_price_usd_micros_per_mtok or 0
        seed = new_signing_seed()
        verifier = Verifier({"signer": public_of(seed)})
        rag = Rag(library, RetrievalOptions(chunks_per_document, model, price), verifier, lambda: NOW)
        desk = Desk(rag, library, seed=seed)
        made.append(desk)
        return desk

    yield make
    for desk in made:
        await desk.rag.stop()


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
