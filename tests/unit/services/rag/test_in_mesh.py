"""Rag in the real doer shell over the in-memory bus: a document goes in, a cited passage comes out."""

import time
from pathlib import Path

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.retrieval import (
    DocumentDeleted,
    DocumentDeleteRequested,
    DocumentIngested,
    DocumentIngestRequested,
    DocumentsReplied,
    DocumentsRequested,
    RetrievalReplied,
    RetrievalRequested,
)
from bulkhead_services.rag.app import build
from bulkhead_services.rag.settings import Settings
from tests.samples import sample

LATER = int(time.time() * 1000) + 24 * 3_600_000  # Taken when tests are collected: long before this one runs.
TOOL = "search_documents"


def task_grant(task: str, tools: tuple[str, ...] = ()) -> TaskGrant:
    return sample(TaskGrant, tenant="acme", task=task, tools=tools, document_scopes=("default",), expires_unix_ms=LATER)


async def test_ingest_then_retrieve_then_restart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with MemoryMesh({"rag": lambda context: build(context, settings)}) as mesh:
        gateway, worker = mesh.context("gateway"), mesh.context("worker")
        signer, planner = mesh.context("signer").signer, mesh.context("planner").signer
        text = "<h1>Fares</h1><p>The cancellation fee is 35 EUR.</p>"
        content = await gateway.blobs.put("acme", text, "text/html")
        await gateway.publisher.send(
            "rag",
            DocumentIngestRequested(name="fares.html", media_type="text/html", content=content),
            tenant="acme",
            task="in1",
            cause="a",
            grant=signer.sign_grant(task_grant("in1")),
        )
        done = await mesh.wait_for_fact("mesh.rag.gateway.*.acme.in1.*", DocumentIngested)
        assert (done.outcome, done.sha256, done.chunks) == ("ingested", content.sha256, 1)

        mesh.kill_replica("rag")
        await mesh.start("rag", "1")
        step = StepGrant(
            tenant="acme", task="t1", step_id="s1", attempt=1, plan_version=1, tools=(TOOL,), expires_unix_ms=LATER
        )
        token = planner.sign_grant(step, parent=signer.sign_grant(task_grant("t1", (TOOL,))))
        ask = RetrievalRequested(
            call_id="c1", step_id="s1", attempt=1, query="fee for cancelling", deadline_unix_ms=LATER
        )
        await worker.publisher.send("rag", ask, tenant="acme", task="t1", cause="b", grant=token)
        reply = await mesh.wait_for_fact("mesh.rag.worker.*.acme.t1.*", RetrievalReplied)
        assert reply.outcome == "found", reply.failure
        found = await worker.blobs.get_text("acme", reply.passages[0].content)
        assert found == "# Fares\n\nThe cancellation fee is 35 EUR."
        assert worker.verifier.verify_label(reply.provenance[0], "acme", "t1")


async def test_documents_are_told_on_request_and_deleted_under_a_grant(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with MemoryMesh({"rag": lambda context: build(context, settings)}) as mesh:
        gateway, signer = mesh.context("gateway"), mesh.context("signer").signer

        async def names(tenant: str = "acme") -> list[str]:
            asked = DocumentsRequested()
            reply = await gateway.publisher.request("rag", asked, tenant=tenant, task="documents", index=1)
            assert isinstance(reply, DocumentsReplied)
            return [one.name for one in reply.documents]

        async def ask(body: DocumentIngestRequested | DocumentDeleteRequested, task: str, grant: str) -> None:
            await gateway.publisher.send("rag", body, tenant="acme", task=task, cause=task, grant=grant)

        content = await gateway.blobs.put("acme", "The fee is 35 EUR.")
        body = DocumentIngestRequested(name="fares.txt", media_type="text/plain", content=content)
        await ask(body, "in1", signer.sign_grant(task_grant("in1")))
        await mesh.wait_for_fact("mesh.rag.gateway.*.acme.in1.*", DocumentIngested)
        assert (await names(), await names("other")) == (["fares.txt"], [])
        await ask(DocumentDeleteRequested(name="fares.txt"), "x1", "")
        done = await mesh.wait_for_fact("mesh.rag.gateway.*.acme.x1.*", DocumentDeleted)
        assert done.outcome == "rejected" and done.failure is not None and await names() == ["fares.txt"]
        await ask(DocumentDeleteRequested(name="fares.txt"), "x2", signer.sign_grant(task_grant("x2")))
        done = await mesh.wait_for_fact("mesh.rag.gateway.*.acme.x2.*", DocumentDeleted)
        assert (done.outcome, done.versions, await names()) == ("deleted", 1, [])
