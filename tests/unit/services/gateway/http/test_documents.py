"""POST and GET of documents: raw, form, names, types, outcomes."""

import asyncio
import hashlib
import os
import re

import httpx
import pytest

from bulkhead.blobs import Blobs
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import GrantReplied
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import (
    DocumentChunksReplied,
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentIngestRequested,
    DocumentSearchReplied,
    LostPage,
    RankedChunk,
    StoredChunk,
    StoredDocument,
)
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN, OPERATOR, make_mesh, until


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    await found.gateway(ingest_wait_s=5.0).attach_inbox()
    yield found
    await found.gateways[0].stop()


async def rag_answers(mesh, outcome="ingested", failure=None, count=1, replaced=None):
    """What rag does with the next request: reads the blob, answers with its digest."""
    await until(lambda: len(mesh.sent("rag")) >= count, "asked")
    stored = mesh.sent("rag")[count - 1]
    request = DocumentIngestRequested.model_validate_json(stored.body)
    data = await Blobs(mesh.bus, "rag").get("acme", request.content)
    body = DocumentIngested(
        name=request.name,
        sha256=hashlib.sha256(data).hexdigest(),
        outcome=outcome,
        chunks=3,
        failure=failure,
        replaced_sha256=replaced,
    )
    await mesh.say("rag", body, stored.task)
    return stored, request, data


async def post(mesh, http, outcome="ingested", failure=None, count=1, replaced=None, **request):
    request.setdefault("url", "/v1/documents?name=fares.md")
    headers = AUTH | request.pop("headers", {})
    answer, said = await asyncio.gather(
        http.post(headers=headers, **request), rag_answers(mesh, outcome, failure, count, replaced)
    )
    return answer, *said


async def test_a_raw_body_is_stored_granted_and_ingested(mesh, http):
    answer, stored, request, data = await post(mesh, http, content=b"# Fares\n40 EUR")
    assert answer.status_code == 201 and answer.json()["outcome"] == "ingested" and answer.json()["chunks"] == 3
    assert (request.name, request.media_type, data) == ("fares.md", "text/markdown", b"# Fares\n40 EUR")
    assert stored.headers["bulkhead-grant"] == "signed.task.grant"
    assert mesh.bus.asked[0].purpose == "ingest"
    again = await http.get(answer.json()["status_url"], headers=AUTH)
    assert again.status_code == 201 and again.json() == answer.json()


async def test_a_form_with_binary_content_arrives_unharmed(mesh, http):
    content = b"%PDF-1.7\r\n\0\n\r" + os.urandom(5_000)
    answer, _, request, data = await post(
        mesh, http, url="/v1/documents", files={"file": ("dir/rules.pdf", content, "application/pdf")}
    )
    assert answer.status_code == 201, answer.text
    assert (request.name, request.media_type) == ("rules.pdf", "application/pdf")
    assert data == content


@pytest.mark.parametrize(
    ("name", "said", "media_type"),
    [
        ("a.txt", None, "text/plain"),
        ("a.html", "application/octet-stream", "text/html"),
        ("a.md", "application/x-www-form-urlencoded", "text/markdown"),
        ("a.md", "text/html; charset=x", "text/html"),
        ("a.pdf", None, "application/pdf"),
        ("noend", None, "application/octet-stream"),
    ],
)
async def test_the_type_comes_from_the_header_or_the_name(mesh, http, name, said, media_type):
    _, _, request, _ = await post(
        mesh, http, url=f"/v1/documents?name={name}", content=b"text", headers={"Content-Type": said} if said else {}
    )
    assert request.media_type == media_type


async def test_rejected_is_422_with_the_reason(mesh, http):
    failure = Failure(code="no_text", message="the PDF holds no text", hint="run text recognition first")
    answer, *_ = await post(mesh, http, "rejected", failure, content=b"%PDF")
    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["hint"]) == ("no_text", "run text recognition first")


async def test_posted_again_asks_again_and_says_unchanged(mesh, http):
    first, *_ = await post(mesh, http, content=b"same")
    second, *_ = await post(mesh, http, "unchanged", count=2, content=b"same")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["ingest_id"] != second.json()["ingest_id"]


async def test_an_idempotency_key_repeats_the_first_outcome(mesh, http):
    first, *_ = await post(mesh, http, content=b"same", headers={"Idempotency-Key": "k"})
    second = await http.post("/v1/documents?name=fares.md", content=b"same", headers=AUTH | {"Idempotency-Key": "k"})
    assert second.json() == first.json() and len(mesh.sent("rag")) == 1


async def test_a_slow_store_is_202_and_the_status_tells_later(mesh, http):
    mesh.gateways[0].http._settings.ingest_wait_s = 0.01
    answer = await http.post("/v1/documents?name=a.txt", content=b"x", headers=AUTH)
    assert answer.status_code == 202 and answer.json()["outcome"] == "pending"
    url = answer.json()["status_url"]
    assert (await http.get(url, headers=AUTH)).status_code == 404
    await rag_answers(mesh)
    assert (await http.get(url, headers=AUTH)).status_code == 201


@pytest.mark.parametrize(
    ("url", "content", "status", "code"),
    [
        ("/v1/documents", b"x", 422, "invalid_document"),
        ("/v1/documents?name=a.txt", b"", 422, "invalid_document"),
        ("/v1/documents?name=a.txt", b" \n ", 422, "invalid_document"),
        ("/v1/documents?name=" + "a" * 65, b"x", 422, "invalid_document"),
        ("/v1/documents?name=a%0Ab", b"x", 422, "invalid_document"),
        ("/v1/documents?name=a.txt", b"x" * (bounds.MAX_BLOB_BYTES + 1), 413, "too_large"),
    ],
)
async def test_what_does_not_fit_is_refused(mesh, http, url, content, status, code):
    answer = await http.post(url, content=content, headers=AUTH)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"] and "POST /v1/documents" not in answer.json()["hint"]
    assert not mesh.sent("rag")


async def test_no_authority_no_ingestion(mesh, http):
    mesh.bus.refusal = GrantReplied(granted=False, code="no_documents", reason="not in the policy", hint="ask")
    answer = await http.post("/v1/documents?name=a.txt", content=b"x", headers=AUTH)
    assert (answer.status_code, answer.json()["code"]) == (403, "no_documents")
    mesh.bus.refusal, mesh.bus.signer_down = None, True
    answer = await http.post("/v1/documents?name=a.txt", content=b"x", headers=AUTH)
    assert answer.status_code == 503 and not mesh.sent("rag")


async def test_a_document_that_replaces_another_says_which(mesh, http):
    first, *_ = await post(mesh, http, content=b"one")
    second, *_ = await post(mesh, http, count=2, replaced=first.json()["sha256"], content=b"two")
    assert (first.json()["replaced_sha256"], second.json()["replaced_sha256"]) == (None, first.json()["sha256"])


async def delete(mesh, http, name="fares.md", key=OPERATOR, **said):
    """DELETE, with rag's word when it is asked."""

    async def rag() -> None:
        await until(lambda: mesh.sent("rag"), "asked")
        stored = mesh.sent("rag")[-1]
        request = DocumentDeleteRequested.model_validate_json(stored.body)
        assert stored.headers["bulkhead-grant"] == "signed.task.grant"
        await mesh.say("rag", DocumentDeleted(name=request.name, **said), stored.task)

    asking = asyncio.create_task(
        http.delete("/v1/documents", params={"name": name}, headers={"Authorization": f"Bearer {key}"})
    )
    if said:
        await rag()
    return await asking


async def test_a_document_is_deleted_by_its_name_under_a_grant(mesh, http):
    answer = await delete(mesh, http, outcome="deleted", versions=2)
    assert (answer.status_code, answer.json()) == (200, {"name": "fares.md", "outcome": "deleted", "versions": 2})
    assert mesh.bus.asked[-1].requester.person == "ada"


async def test_what_is_not_there_or_not_ones_to_delete_is_told(mesh, http):
    assert (await delete(mesh, http, outcome="absent")).json()["code"] == "not_found"
    failure = Failure(code="store_full", message="no room", hint="free disk space")
    mesh.bus.stored = [one for one in mesh.bus.stored if one[0] != "INBOX_RAG"]
    refused = await delete(mesh, http, outcome="rejected", failure=failure)
    assert (refused.status_code, refused.json()["code"]) == (422, "store_full")
    assert (await delete(mesh, http, key=AUDITOR)).status_code == 403
    assert (await delete(mesh, http, name="")).json()["code"] == "invalid_document"


async def test_documents_are_listed_by_pages_and_their_store_may_be_away(mesh, http):
    mesh.bus.documents = [
        StoredDocument(name=name, sha256="0" * 64, media_type="text/plain", chunks=1, versions=1, ingested_unix_ms=5)
        for name in ("a.md", "b c.md", "ü.md")
    ]
    seen, after = [], ""
    while after is not None:
        answer = await http.get(
            "/v1/documents", params={"limit": 2, "after": after}, headers={"Authorization": f"Bearer {AUDITOR}"}
        )
        seen += [one["name"] for one in answer.json()["documents"]]
        after = answer.json()["next"]
    assert seen == ["a.md", "b c.md", "ü.md"]
    assert (await http.get("/v1/documents?limit=0", headers=AUTH)).status_code == 422
    assert (await http.get("/v1/documents")).status_code == 401
    mesh.bus.rag_down = True
    answer = await http.get("/v1/documents", headers={"Authorization": f"Bearer {FOREIGN}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_what_is_refused_counts_towards_the_tenants_day_too(mesh, tmp_path):
    policy = tmp_path / "tenants.yaml"
    policy.write_text("tenants: {acme: {quota: {document_bytes_per_day: 2097152}}}")
    gateway = mesh.gateway(tenants_file=policy, ingest_wait_s=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:

        async def post(owner):
            url, half = "/v1/documents?name=a.bin", b"x" * 600_000
            return await http.post(url, headers=owner, content=half)

        assert (await post(AUTH)).status_code == 202
        refused = await post(AUTH)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_bytes")
        assert int(refused.headers["retry-after"]) > 60 and len(mesh.sent("rag")) == 1
        assert (await post({"X-API-Key": FOREIGN})).status_code == 202


async def test_a_document_that_never_fits_the_day_is_told_the_setting_that_it_needs(mesh, tmp_path):
    policy = tmp_path / "tenants.yaml"
    policy.write_text("tenants: {acme: {quota: {document_bytes_per_day: 2097152}}}")
    gateway = mesh.gateway(tenants_file=policy, ingest_wait_s=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        answer = await http.post("/v1/documents?name=a.bin", headers=AUTH, content=b"x" * 1_500_000)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "retry-after" not in answer.headers, "it would be refused again"
        least = int(re.search(r"document_bytes_per_day from (\d+) on", answer.json()["detail"])[1])
        policy.write_text(f"tenants: {{acme: {{quota: {{document_bytes_per_day: {least}}}}}}}")
        gateway = mesh.gateway(tenants_file=policy, ingest_wait_s=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        answer = await http.post("/v1/documents?name=a.bin", headers=AUTH, content=b"x" * 1_500_000)
        assert answer.status_code == 202


async def test_an_office_file_is_taken_to_the_store_that_judges_it(mesh, http):
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    asked = asyncio.create_task(rag_answers(mesh, "rejected"))
    answer = await http.post("/v1/documents?name=a.docx", headers={**AUTH, "Content-Type": word}, content=b"PK")
    assert answer.status_code == 422 and (await asked)[1].media_type == word


@pytest.mark.parametrize(
    "name, media_type, content, code",
    [
        ("a.png", "image/png", b"\x89PNG" + os.urandom(90_000), "unsupported_media_type"),
        ("a.zip", "application/zip", b"PK\x03\x04", "unsupported_media_type"),
        ("a.md", "", b"text\0text", "binary_document"),
        ("a.docx", "", b"\xd0\xcf\x11\xe0 old", "damaged_document"),
        ("a.bin", "application/octet-stream", b"\0" * 90_000, "binary_document"),
    ],
)
async def test_what_no_reader_takes_is_refused_before_it_is_stored(mesh, http, name, media_type, content, code):
    headers = AUTH | ({"Content-Type": media_type} if media_type else {})
    answer = await http.post(f"/v1/documents?name={name}", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, code) and ".docx" in answer.json()["hint"]
    assert not mesh.bus.stored


CHUNK = {"chunk_id": "c1", "start": 7, "end": 20, "title": "Fares", "text": "The fare is 9"}
FARES = StoredDocument(
    name="a/b.pdf", sha256="0" * 64, media_type="application/pdf", chunks=1, versions=1, ingested_unix_ms=1
)


async def test_chunks_of_a_document_have_text_for_all_but_an_auditor(mesh, http):
    lost = LostPage(page=2, code="unreadable", reason="KeyError")
    mesh.bus.chunks = DocumentChunksReplied(
        document=FARES, chars=20, lost_pages=(lost,), chunks=(StoredChunk(**CHUNK),), next=20
    )
    shown = await http.get("/v1/documents/chunks", params={"name": "a/b.pdf"}, headers=AUTH)
    assert shown.status_code == 200 and shown.json()["chunks"] == [CHUNK] and shown.json()["next"] == 20
    assert shown.json()["lost_pages"] == [{"page": 2, "code": "unreadable", "reason": "KeyError"}]
    looked = await http.get("/v1/documents/chunks", params={"name": "a/b.pdf"}, headers={"X-API-Key": AUDITOR})
    assert looked.json()["chunks"] == [CHUNK | {"title": "", "text": ""}] and looked.json()["content"] is False
    far = {"name": "a/b.pdf", "start": bounds.MAX_DOCUMENT_TEXT_CHARS}
    assert (await http.get("/v1/documents/chunks", params=far, headers=AUTH)).status_code == 200


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"name": "absent.md"}, 404),
        ({}, 422),
        ({"name": "a.md", "limit": bounds.MAX_LISTED_CHUNKS + 1}, 422),
        ({"name": "a.md", "start": bounds.MAX_DOCUMENT_TEXT_CHARS + 1}, 422),
    ],
)
async def test_what_is_no_page_of_chunks_is_refused(mesh, http, params, status):
    refused = await http.get("/v1/documents/chunks", params=params, headers=AUTH)
    assert refused.status_code == status and refused.json()["hint"]


async def test_a_search_goes_to_the_store_under_a_grant_of_its_own(mesh, http):
    found = RankedChunk(**CHUNK, document="a.md", document_sha256="0" * 64, score=0.5)
    mesh.bus.searched = DocumentSearchReplied(chunks=(found,), pruned=2)
    answer = await http.get("/v1/documents/search", params={"query": "what is the fare?", "k": 3}, headers=AUTH)
    assert answer.status_code == 200 and answer.json()["pruned"] == 2
    assert answer.json()["chunks"][0] | CHUNK == answer.json()["chunks"][0]
    [(tenant, grant, request)] = mesh.bus.searches
    assert (tenant, grant, request.query, request.k) == ("acme", "signed.task.grant", "what is the fare?", 3)
    assert mesh.bus.asked[-1].requester.tenant == "acme"


async def test_a_search_that_may_not_be_or_has_no_words_is_refused_with_a_way_out(mesh, http):
    where = "/v1/documents/search"
    assert (await http.get(where, params={"query": "x"}, headers={"X-API-Key": AUDITOR})).status_code == 403
    assert (await http.get(where, params={"query": " "}, headers=AUTH)).status_code == 422
    too_long = {"query": "x" * (bounds.MAX_QUERY_CHARS + 1)}
    assert (await http.get(where, params=too_long, headers=AUTH)).json()["code"] == "invalid_query"
    assert not mesh.bus.searches
    for code, status in (("no_scope", 403), ("empty_query", 422), ("store_busy", 503)):
        mesh.bus.searched = DocumentSearchReplied(failure=Failure.from_text(code, "why", "what to do"))
        refused = await http.get(where, params={"query": "x"}, headers=AUTH)
        assert (refused.status_code, refused.json()["hint"]) == (status, "what to do")


async def test_the_reason_of_a_deletion_is_sent_with_it_and_bounded(mesh, http):
    where = {"name": "fares.md", "reason": "x" * (bounds.MAX_REASON_CHARS + 1)}
    assert (await http.request("DELETE", "/v1/documents", params=where, headers=AUTH)).status_code == 422
    assert not mesh.sent("rag")
