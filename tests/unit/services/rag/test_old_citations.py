"""The text of a citation, after its document was replaced, erased, or never was this tenant's."""

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.retrieval import PassageReplied, PassageRequested
from tests.unit.services.rag.test_ingest_and_retrieve import FARES, NOW, erase


async def passage(desk, sha256: str, start: int = 0, end: int = 20, tenant: str = "acme") -> PassageReplied:
    body = PassageRequested(document="fares.md", sha256=sha256, start=start, end=end)
    head = Envelope(id="e" * 32, type=body.ce_type(), source="gateway", time_unix_ms=NOW)
    return await desk.rag.rpc[PassageRequested](ReceivedMessage(head, body, tenant, "t1", "gateway", 0, NOW, 1))


async def test_a_replaced_version_keeps_its_text_and_names_the_new_one(desk) -> None:
    old = await desk.ingest("fares.md", FARES)
    assert await passage(desk, old.sha256, 2, 30) == PassageReplied(
        state="current", text=FARES[2:30], current_sha256=old.sha256
    )
    new = await desk.ingest("fares.md", "Nothing is refunded. " + FARES)
    found = await passage(desk, old.sha256, 2, 30)
    assert (found.state, found.text, found.current_sha256) == ("superseded", FARES[2:30], new.sha256)


async def test_an_erased_document_has_no_text_and_another_tenant_none_at_all(desk) -> None:
    old = await desk.ingest("fares.md", FARES)
    assert await passage(desk, old.sha256, tenant="other") == PassageReplied()
    await erase(desk, "fares.md")
    await desk.ingest("fares.md", "Anew: " + FARES)
    assert await passage(desk, old.sha256) == PassageReplied(), "the version that was cited was erased"


async def test_a_span_is_bounded_and_backwards_it_is_empty(desk) -> None:
    old = await desk.ingest("fares.md", "word " * 40_000)
    assert len((await passage(desk, old.sha256, 0, 10**9)).text) == bounds.MAX_CITED_CHARS
    assert (await passage(desk, old.sha256, 30, 2)).text == ""
