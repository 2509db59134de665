"""The room of documents over the whole mesh in one process: chunks, lost pages, the search, deletion with a reason."""

from pathlib import Path

from bulkhead_contracts.retrieval import DocumentDeleteRequested
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import AUDITOR, OPERATOR, OTHER_OPERATOR, stage
from tests.unit.services.rag.test_extract import make_pdf
from tests.unit.services.rag.test_reads import LONG, break_page

HOSTILE = "The fee is 35 EUR. <script>alert(1)</script>"


async def test_a_document_has_a_page_with_its_chunks_and_the_pages_that_were_lost(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        torn = break_page(make_pdf(LONG, LONG, "RECEIVED"), 1)
        page = (await client.post("/documents?key=k1", files={"file": ("a b.pdf", torn, "application/pdf")})).text
        assert 'href="/documents/show?name=a%20b.pdf"' in page and "2 of 3" in page
        shown = (await client.get("/documents/show?name=a%20b.pdf")).text
        assert "Flexible fares are refunded" in shown and "characters 0 to" in shown
        assert ">unreadable</span>" in shown and ">almost no text</span>" in shown and "NoSuchDecode" in shown
        assert (await client.get("/documents/show?name=absent.md")).status_code == 404
        async with browsing(on, OTHER_OPERATOR) as other:
            assert (await other.get("/documents/show?name=a%20b.pdf")).status_code == 404
        async with browsing(on, AUDITOR) as auditor:
            seen = (await auditor.get("/documents/show?name=a%20b.pdf")).text
            assert "Texts are left out" in seen and "Flexible fares" not in seen and "unreadable" in seen


async def test_the_search_shows_what_a_task_would_find_as_text_and_to_who_may_submit(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        await client.post("/documents?key=k1", files={"file": ("fees.md", f"# Fees\n\n{HOSTILE}", "text/markdown")})
        found = (await client.get("/documents/search?q=what+is+the+fee")).text
        assert "1. fees.md</a>" in found and "score " in found and "&lt;script&gt;alert(1)" in found
        assert 'href="/documents/show?name=fees.md&amp;start=0"' in found
        assert "No document has these words" in (await client.get("/documents/search?q=zeppelin")).text
        assert "no word to search for" in (await client.get("/documents/search?q=%3F")).text
        async with browsing(on, OTHER_OPERATOR) as other:
            assert "No document has these words" in (await other.get("/documents/search?q=fee")).text
        async with browsing(on, AUDITOR) as auditor:
            assert "may not search documents" in (await auditor.get("/documents/search?q=fee")).text


async def test_a_deletion_keeps_its_reason(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        await client.post("/documents?key=k1", files={"file": ("fees.md", HOSTILE, "text/markdown")})
        page = (await client.get("/documents/show?name=fees.md")).text
        given = form(page, 'name="reason"') | {"reason": "replaced\nby the lease"}
        bare = await client.post("/documents/delete", data=given | {"reason": " "})
        assert bare.status_code == 422 and "no reason was given" in bare.text
        assert "No document yet" in (await client.post("/documents/delete", data=given)).text
        request = await on.mesh.wait_for_fact("mesh.gateway.rag.>", DocumentDeleteRequested)
        assert request.reason == "replaced by the lease"
