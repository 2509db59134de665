"""Reads for people: chunks of a document, the pages that were lost, and what a retrieval would find."""

import io

from pypdf import PdfWriter
from pypdf.generic import NameObject

from bulkhead.grants import Signer
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.retrieval import (
    DocumentChunksReplied,
    DocumentChunksRequested,
    DocumentSearchReplied,
    DocumentSearchRequested,
    LostPage,
)
from tests.samples import sample
from tests.unit.services.rag.conftest import NOW, Desk
from tests.unit.services.rag.test_extract import make_pdf
from tests.unit.services.rag.test_ingest_and_retrieve import FARES, erase

LONG = "Flexible fares are refunded within fourteen days of the journey, without a fee. " * 3


def message(body, tenant: str = "acme", grant: str = "") -> ReceivedMessage:
    head = Envelope(id="e" * 32, type=body.ce_type(), source="gateway", time_unix_ms=NOW, grant=grant)
    return ReceivedMessage(head, body, tenant, "documents", "gateway", 0, NOW, 1)


async def chunks(desk: Desk, tenant: str = "acme", **request) -> DocumentChunksReplied:
    body = DocumentChunksRequested(**{"document": "fares.md"} | request)
    return await desk.rag.rpc[DocumentChunksRequested](message(body, tenant))


async def search(desk: Desk, query: str, tenant: str = "acme", scopes=("default",), **grant) -> DocumentSearchReplied:
    signed = {"tenant": tenant, "task": "documents", "document_scopes": scopes, "expires_unix_ms": NOW + 1} | grant
    token = Signer("signer", desk.seed).sign_grant(sample(TaskGrant, **signed))
    return await desk.rag.rpc[DocumentSearchRequested](message(DocumentSearchRequested(query=query), tenant, token))


def break_page(pdf: bytes, index: int) -> bytes:
    """The PDF with a page whose content no reader can unpack."""
    writer, out = PdfWriter(clone_from=io.BytesIO(pdf)), io.BytesIO()
    writer.pages[index]["/Contents"].get_object()[NameObject("/Filter")] = NameObject("/NoSuchDecode")
    writer.write(out)
    return out.getvalue()


async def test_chunks_come_in_the_order_of_the_text_page_by_page(desk) -> None:
    paragraphs = [f"Paragraph {number}. " + "It tells of a fare. " * 30 for number in range(5)]
    text = "\n\n".join(paragraphs)
    await desk.ingest("fares.md", text)
    shown, start, pages = [], 0, 0
    while start is not None:
        page = await chunks(desk, start=start, limit=2)
        shown, start, pages = [*shown, *page.chunks], page.next, pages + 1
    assert page.document.chunks == len(shown) > 2 and pages == -(-len(shown) // 2)
    assert page.chars == len(text)
    assert [chunk.text for chunk in shown] == [text[chunk.start : chunk.end] for chunk in shown]
    assert all(len(chunk.text) <= bounds.MAX_CHUNK_CHARS for chunk in shown)


async def test_another_tenant_and_who_asks_after_a_deletion_see_nothing(desk) -> None:
    await desk.ingest("fares.md", FARES)
    assert await chunks(desk, tenant="other") == DocumentChunksReplied()
    assert (await search(desk, "fare", tenant="other")).chunks == ()
    await erase(desk, "fares.md")
    assert await chunks(desk) == DocumentChunksReplied()
    assert (await search(desk, "fare")).chunks == ()


async def test_pages_without_text_are_named_and_forgotten_with_their_document(desk) -> None:
    await desk.ingest("a.pdf", make_pdf(LONG, "RECEIVED", LONG), "application/pdf")
    page = await chunks(desk, document="a.pdf")
    assert (page.document.pages, page.document.sparse_pages) == (3, 1)
    lost = LostPage(page=2, code="almost_no_text", reason="8 letters and digits: probably a scan, or blank")
    assert page.lost_pages == (lost,)
    await erase(desk, "a.pdf")
    await desk.ingest("b.pdf", make_pdf(LONG), "application/pdf")
    assert (await chunks(desk, document="b.pdf")).lost_pages == ()


async def test_a_page_at_which_the_parser_fails_is_lost_and_the_others_are_found(desk) -> None:
    done = await desk.ingest("torn.pdf", break_page(make_pdf(LONG, LONG, LONG), 1), "application/pdf")
    assert (done.outcome, done.pages, done.sparse_pages) == ("ingested", 3, 1), done.failure
    [lost] = (await chunks(desk, document="torn.pdf")).lost_pages
    assert (lost.page, lost.code) == (2, "unreadable") and lost.reason
    assert (await search(desk, "flexible fares")).chunks


async def test_a_search_finds_what_a_task_finds_in_the_scopes_of_its_grant(desk) -> None:
    await desk.ingest("fares.md", FARES)
    await desk.ingest("other.md", "The fare of another line is EUR 9.")
    found, reply = await search(desk, "cancellation fare"), await desk.search("cancellation fare")
    assert found.chunks and [(chunk.document, chunk.start, chunk.end, chunk.score) for chunk in found.chunks] == [
        (passage.citation.document, passage.citation.start, passage.citation.end, passage.score)
        for passage in reply.passages
    ]
    assert found.note == "" and not desk.reserved, "a look spends nothing"
    assert (await search(desk, "fare", scopes=())).failure.code == "no_scope"
    assert (await search(desk, "fare", scopes=("secret",))).chunks == ()
    assert (await search(desk, "? !")).failure.code == "empty_query"


async def test_a_search_without_a_grant_of_its_own_finds_nothing(desk) -> None:
    await desk.ingest("fares.md", FARES)
    body = DocumentSearchRequested(query="fare")
    bare = await desk.rag.rpc[DocumentSearchRequested](message(body))
    assert bare.failure.code == "no_grant" and not bare.chunks
    foreign = Signer("signer", desk.seed).sign_grant(
        sample(TaskGrant, tenant="other", task="documents", document_scopes=("default",), expires_unix_ms=NOW + 1)
    )
    assert (await desk.rag.rpc[DocumentSearchRequested](message(body, "acme", foreign))).failure.code == "foreign"
    assert (await search(desk, "fare", expires_unix_ms=NOW)).failure.code == "expired"
