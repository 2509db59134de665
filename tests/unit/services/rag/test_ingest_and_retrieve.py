"""Rag as a whole over real SQLite files: ingestion, retrieval, citations, limits, isolation, refusals."""

import asyncio
import hashlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.grants import Verifier, public_of
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.control import Halt
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.retrieval import (
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentsRequested,
    RetrievalReplied,
)
from bulkhead_services.rag.chunk import Chunk
from bulkhead_services.rag.index import DocumentStore
from bulkhead_services.rag.port import NewDocument

NOW = 1_800_000_000_000

FARES = """# Fare rules

These rules are effective from 2026-01-01.

## Refunds

Flex tickets: 80% of the price is refunded when cancelled 14 days before departure.

## Fees

A cancellation fee of 35 EUR is deducted from the refund of a Flex ticket.
"""


def texts(desk, reply) -> list[str]:
    return [desk.blobs.kept[("rag", "acme", p.content.sha256)].decode() for p in reply.passages]


async def test_passage_is_cited_labelled_and_found_by_its_stem(desk) -> None:
    done = await desk.ingest("fares.md", FARES, "text/markdown")
    assert (done.outcome, done.chunks) == ("ingested", 1)
    reply = await desk.search("refunding a cancelled flexible ticket")
    (passage,) = reply.passages
    citation = passage.citation
    text = desk.blobs.kept[("rag", "acme", passage.content.sha256)].decode()
    assert reply.outcome == "found" and reply.standing == "ok" and reply.completeness.complete
    assert citation.document == "fares.md"
    assert citation.document_sha256 == hashlib.sha256(FARES.encode()).hexdigest()
    assert FARES[citation.start : citation.end] == text
    assert citation.marker == hashlib.sha256(text.encode()).hexdigest()[:12] == passage.content.marker
    assert reply.usage.retrievals == 1 and desk.reserved == []
    (label,) = reply.provenance
    assert (label.kind, label.source, label.trust) == ("passage", "fares.md", "untrusted")
    assert Verifier({"rag": public_of(desk.seed)}).verify_label(label, "acme", "t1")
    assert len(reply.encode()) < 4096 and type(reply).model_validate_json(reply.encode()) == reply


async def test_nothing_found_is_found_with_no_passages(desk) -> None:
    await desk.ingest("fares.md", FARES, "text/markdown")
    reply = await desk.search("zeppelin")
    assert (reply.outcome, reply.passages, reply.completeness.complete) == ("found", (), True)
    assert (await desk.search("zeppelin", tenant="nobody")).outcome == "found"


async def test_nothing_is_ingested_twice(desk, make_desk) -> None:
    first = await desk.ingest("fares.md", FARES)
    again = await desk.ingest("fares.md", FARES, task="other-ingestion")
    assert (first.outcome, again.outcome) == ("ingested", "unchanged")
    assert again.chunks == first.chunks
    # The same ingestion, delivered again to a restarted service, ends as it ended.
    assert (await make_desk().ingest("fares.md", FARES)).outcome == "ingested"
    assert len((await desk.search("refunded")).passages) == 1


async def test_new_content_replaces_old_which_stays_resolvable(desk) -> None:
    await desk.ingest("fares.md", "The fee is 35 EUR for everybody.")
    old = (await desk.search("fee")).passages[0].citation
    await desk.ingest("fares.md", "The fee is 50 EUR for everybody.")
    assert texts(desk, await desk.search("fee")) == ["The fee is 50 EUR for everybody."]
    store = desk.library._stores["acme"]
    found = store.read_passage("default", "fares.md", old.document_sha256, old.start, old.end)
    assert found is not None and found[0] == "The fee is 35 EUR for everybody."
    # A late repeat of the first ingestion does not bring the old version back.
    await desk.ingest("fares.md", "The fee is 35 EUR for everybody.")
    assert texts(desk, await desk.search("fee")) == ["The fee is 50 EUR for everybody."]
    # Somebody who really wants it back submits it anew.
    back = await desk.ingest("fares.md", "The fee is 35 EUR for everybody.", task="rollback")
    assert back.outcome == "ingested"
    assert texts(desk, await desk.search("fee")) == ["The fee is 35 EUR for everybody."]


async def test_tenants_do_not_see_each_other(desk, tmp_path) -> None:
    await desk.ingest("a.md", "The secret word is heliotrope.", tenant="acme")
    await desk.ingest("b.md", "Our word is marigold.", tenant="bolt")
    assert (await desk.search("secret word heliotrope", tenant="bolt")).passages[0].citation.document == "b.md"
    assert {path.name for path in (tmp_path / "rag").glob("*.sqlite")} == {"acme.sqlite", "bolt.sqlite"}


async def test_store_is_durable_against_power_loss(desk, tmp_path) -> None:
    await desk.ingest("fares.md", FARES)
    writer = desk.library._stores["acme"]._writer
    assert writer.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    with sqlite3.connect(tmp_path / "rag" / "acme.sqlite") as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_scopes_bound_what_is_found(desk) -> None:
    await desk.ingest("fares.md", FARES)
    assert (await desk.search("refunded", scopes=("other",))).passages == ()
    refused = await desk.search("refunded", scopes=())
    assert (refused.outcome, refused.failure.code) == ("refused", "no_scope")


async def test_k_and_max_chars_say_what_they_cut(desk) -> None:
    for n in range(6):
        await desk.ingest(f"d{n}.md", f"Document {n}: the baggage allowance is {n} bags of twenty kilos.")
    cut = await desk.search("baggage allowance bags", k=2)
    assert len(cut.passages) == 2 and not cut.completeness.complete
    assert cut.completeness.omissions[0].reason == "pruned"
    assert cut.completeness.omissions[0].what == "4 matching passages"
    small = await desk.search("baggage allowance bags", max_chars=200)
    assert sum(p.content.size_bytes for p in small.passages) <= 200
    assert [o.reason for o in small.completeness.omissions] == ["pruned"]
    assert (await desk.search("baggage allowance bags", k=6)).completeness.complete


async def test_one_passage_over_max_chars_is_shortened_and_says_so(desk) -> None:
    text = "The baggage rule is long. " * 25
    await desk.ingest("long.md", text)
    reply = await desk.search("baggage", max_chars=200)
    (passage,) = reply.passages
    (found,) = texts(desk, reply)
    assert len(found) <= 200 and text[passage.citation.start : passage.citation.end] == found
    assert reply.completeness.omissions[0].reason == "truncated"


async def test_contradicting_documents_both_surface(desk) -> None:
    filler = "The cancellation fee rule number {n} of the cancellation fee table. " * 10
    await desk.ingest("new.md", "\n\n".join(filler.replace("{n}", str(n)) for n in range(12)))
    await desk.ingest("old.md", "In the old edition the cancellation charge was 35 EUR.")
    reply = await desk.search("cancellation fee", k=4)
    assert {p.citation.document for p in reply.passages} == {"new.md", "old.md"}
    assert [p.score for p in reply.passages] == sorted((p.score for p in reply.passages), reverse=True)


async def test_beginnings_are_tried_when_no_word_matches(desk) -> None:
    await desk.ingest("a.md", "Reimbursements happen within a week.")
    assert len((await desk.search("reimbursive")).passages) == 1


@given(query=st.text(min_size=1, max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_query_breaks_the_search(desk, query: str) -> None:
    if not desk.library._stores:
        await desk.ingest("fares.md", FARES)
    reply = await desk.search(query.encode("utf-8", "ignore").decode() or "x")
    assert reply.outcome == "found" or reply.failure.code == "empty_query"


@pytest.mark.parametrize("query", ['"', "NEAR(a b)", "title : x", "a AND (", "* OR -", "refunds'; DROP TABLE chunks"])
async def test_syntax_in_a_query_is_only_words(desk, query: str) -> None:
    await desk.ingest("fares.md", FARES)
    assert (await desk.search(query)).outcome in ("found", "refused")
    assert len((await desk.search("refund")).passages) == 1


@pytest.mark.parametrize(
    ("job", "code"),
    [({"step": None}, "not_granted"), ({"tools": ("calculate",)}, "not_granted"), ({"step": "s2"}, "wrong_step")],
)
async def test_no_grant_no_passage(desk, job, code: str) -> None:
    await desk.ingest("fares.md", FARES)
    reply = await desk.search("refunds", **job)
    assert (reply.outcome, reply.failure.code, reply.passages) == ("refused", code, ())
    assert reply.failure.hint


async def test_a_grant_without_the_scope_takes_nothing_in(desk) -> None:
    request = _request("a.md")
    reply = await desk.rag.act(desk.job(request, task="in1", scopes=("other",), step=None), desk.hands(), None)
    assert (reply.outcome, reply.failure.code) == ("rejected", "no_scope")


async def test_a_halted_task_reads_and_writes_nothing(desk) -> None:
    desk.halt = Halt(scope="task", name="t1", code="ceiling", reason="money is spent", by="budget")
    assert (await desk.search("refund")).failure.code == "halted"
    assert (await desk.ingest("fares.md", FARES)).failure.code == "halted"


async def test_damaged_and_newer_stores_say_what_to_do(make_desk, tmp_path) -> None:
    (tmp_path / "rag").mkdir()
    (tmp_path / "rag" / "acme.sqlite").write_bytes(b"this is no database" * 100)
    desk = make_desk()
    rejected = await desk.ingest("fares.md", FARES)
    assert (rejected.outcome, rejected.failure.code) == ("rejected", "store_damaged")
    failed = await desk.search("refund")
    assert (failed.outcome, failed.failure.code, failed.standing) == ("failed", "store_damaged", "failed")
    with sqlite3.connect(tmp_path / "rag" / "bolt.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    assert (await desk.ingest("fares.md", FARES, tenant="bolt")).failure.code == "store_too_new"


async def test_content_that_is_gone_is_rejected(desk) -> None:
    desk.blobs.get = KeptNothing().get
    assert (await desk.ingest("fares.md", FARES)).failure.code == "content_missing"


class KeptNothing:
    async def get(self, tenant, ref):
        from bulkhead.blobs import BlobMissing

        raise BlobMissing("expired")


async def test_two_services_ingest_into_one_file(make_desk) -> None:
    import asyncio

    one, two = make_desk(), make_desk()
    done = await asyncio.gather(
        *(d.ingest(f"d{n}.md", f"Text {n} about luggage.") for n in range(10) for d in (one, two))
    )
    assert all(isinstance(d, DocumentIngested) and d.outcome in ("ingested", "unchanged") for d in done)
    reply: RetrievalReplied = await two.search("luggage", k=20)
    assert len(reply.passages) == 10


def test_key_and_writes(desk) -> None:
    from bulkhead_contracts.subjects import check_token

    job = desk.job(_request("a name with spaces.md"))
    assert desk.rag.needs_claim(job) is False
    assert check_token(desk.rag.idempotency_key(job.request)) == desk.rag.idempotency_key(job.request)
    assert desk.rag.idempotency_key(job.request) != desk.rag.idempotency_key(_request("another.md"))


def _request(name: str):
    from bulkhead.blobs import reference
    from bulkhead_contracts.retrieval import DocumentIngestRequested

    return DocumentIngestRequested(name=name, media_type="text/plain", content=reference("gateway", b"x"))


async def names(desk, after: str = "", limit: int = 100, tenant: str = "acme"):
    body = DocumentsRequested(after=after, limit=limit)
    head = Envelope(id="e" * 32, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return await desk.rag.rpc[DocumentsRequested](
        ReceivedMessage(head, body, tenant, "documents", "gateway", 0, NOW, 1)
    )


async def erase(desk, name: str, **job) -> DocumentDeleted:
    return await desk.rag.act(desk.job(DocumentDeleteRequested(name=name), step=None, **job), desk.hands(), None)


async def test_who_replaces_a_document_is_told_what_stood_there(desk) -> None:
    first = await desk.ingest("fares.md", FARES)
    second = await desk.ingest("fares.md", FARES.replace("35", "45"))
    again = await desk.ingest("fares.md", FARES.replace("35", "45"), task="another")
    back = await desk.ingest("fares.md", FARES, task="back")
    assert [one.replaced_sha256 for one in (first, second, again, back)] == [None, first.sha256, None, second.sha256]
    assert [one.outcome for one in (again, back)] == ["unchanged", "ingested"]


async def test_documents_are_listed_by_name_and_none_is_made_by_asking(desk, tmp_path) -> None:
    for name in ("b.md", "a.md", "c.md"):
        await desk.ingest(name, FARES)
    await desk.ingest("b.md", FARES + "More.")
    page = await names(desk, limit=2)
    assert [(one.name, one.versions) for one in page.documents] == [("a.md", 1), ("b.md", 2)] and page.more
    page = await names(desk, after="b.md", limit=2)
    assert [one.name for one in page.documents] == ["c.md"] and not page.more
    assert page.documents[0].sha256 == hashlib.sha256(FARES.encode()).hexdigest() and page.documents[0].chunks == 1
    assert (await names(desk, tenant="nobody")).documents == ()
    assert (await erase(desk, "a.md", tenant="nobody")).outcome == "absent"
    assert [path.name for path in (tmp_path / "rag").glob("*.sqlite")] == ["acme.sqlite"]


async def test_a_deleted_document_is_found_nowhere_and_may_come_again(desk, tmp_path) -> None:
    await desk.ingest("fares.md", FARES)
    await desk.ingest("fares.md", FARES.replace("35", "45"))
    await desk.ingest("other.md", "Dogs travel in the hold.")
    assert (await erase(desk, "fares.md", scopes=())).failure.code == "no_scope"
    done = await erase(desk, "fares.md")
    assert (done.outcome, done.versions) == ("deleted", 2)
    assert (await erase(desk, "fares.md")).outcome == "absent"
    assert (await desk.search("cancellation fee")).passages == ()
    assert [one.name for one in (await names(desk)).documents] == ["other.md"]
    with sqlite3.connect(tmp_path / "rag" / "acme.sqlite") as store:
        assert store.execute("SELECT count(*) FROM chunks").fetchone() == (1,)
        assert store.execute("SELECT count(*) FROM chunk_search").fetchone() == (1,)
    again = await desk.ingest("fares.md", FARES, task="again")
    assert (again.outcome, again.replaced_sha256) == ("ingested", None)
    assert len((await desk.search("cancellation fee")).passages) == 1


def test_outcomes_are_remembered_for_as_long_as_a_repeat_may_come(tmp_path) -> None:
    store = DocumentStore(tmp_path / "acme.sqlite")
    day = 86_400_000

    def ingest(number: int, now: int) -> str:
        text = f"Rule {number} holds."
        chunks = (Chunk(f"c{number}", 0, len(text), ""),)
        new = NewDocument(f"i{number}", "default", "rules.md", f"{number:064}", "text/plain", text, chunks, now)
        return store.ingest_document(new).outcome

    # What a program of before wrote has no time, and counts from the day on which it is seen.
    store._writer.execute("INSERT INTO ingestions VALUES ('before', 'ingested', 1)")
    assert [ingest(number, number * day) for number in range(80)] == ["ingested"] * 80
    assert ingest(3, 80 * day) == "ingested" and store.find_prior_ingestion("before", "default", "x", "") is not None
    for number in range(209, 300):
        ingest(number, number * day)
    [kept] = store._writer.execute("SELECT count(*) FROM ingestions").fetchone()
    [timed] = store._writer.execute("SELECT count(*) FROM ingestion_times").fetchone()
    assert kept == timed == 91 and store.find_prior_ingestion("before", "default", "x", "") is None
    store.close()
    again = DocumentStore(tmp_path / "acme.sqlite")
    assert again.find_prior_ingestion("i299", "default", "rules.md", "") is not None
    again.close()


async def test_a_folder_that_cannot_be_written_is_said_before_and_when_a_document_comes(desk, monkeypatch) -> None:
    """As a volume that is mounted read-only: no such one can be made here, so the system's answers are given."""
    assert desk.rag.describe_problem() == ""
    monkeypatch.setattr("bulkhead_services.rag.effects.os.access", lambda path, mode: False)
    assert "has no right to; mount it writable" in desk.rag.describe_problem()
    monkeypatch.setattr("bulkhead_services.rag.effects._is_read_only", lambda folder: True)
    assert desk.rag.describe_problem().startswith("documents cannot be written to ")
    assert "its file system is read-only; mount it writable" in desk.rag.describe_problem()

    def read_only(path):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("bulkhead_services.rag.effects.DocumentStore", read_only)
    done = await desk.ingest("fares.md", FARES, "text/markdown")
    assert done.outcome == "rejected" and done.failure.code == "store_failed"
    assert "its file system is read-only (unable to open database file)" in done.failure.message
    assert done.failure.hint.startswith("mount it writable")


async def test_a_tenants_documents_that_wait_for_its_store_leave_a_thread_to_the_others(desk, tmp_path) -> None:
    """Another process writes there: each of them blocks its thread until that is over."""
    for tenant in ("acme", "bolt"):
        await desk.ingest("fares.md", FARES, "text/markdown", tenant=tenant)
    other = sqlite3.connect(tmp_path / "rag" / "acme.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = [
        asyncio.create_task(desk.ingest(f"more{n}.md", f"Rule {n}.", "text/markdown", task=f"m{n}")) for n in range(8)
    ]
    turns = desk.library._turns
    async with asyncio.timeout(20):
        while turns.used < turns.tenant_capacity:
            await asyncio.sleep(0.01)
        found = await desk.search("refund of a cancelled ticket", tenant="bolt")
    assert found.outcome == "found" and not any(one.done() for one in waiting)
    other.execute("ROLLBACK")
    assert [(await one).outcome for one in waiting] == ["ingested"] * 8
    other.close()
