"""The whole mesh in one process: real services over the in-memory bus, the offline model beside it on loopback.

A task is submitted as the gateway would; what the planner tells the gateway is read from its inbox.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bulkhead.runtime.decider.replay import replay_deciders
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.tools import catalog
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Halt
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.retrieval import DocumentIngested, DocumentIngestRequested
from bulkhead_contracts.task import StepStarted, TaskAccepted, TaskCancelRequested, TaskEnded, TaskLimits, TaskSubmitted
from bulkhead_infra.demo.corpus import Demo, generate_demo
from bulkhead_infra.demo.verdict import compare_answer
from bulkhead_services.budget import app as budget
from bulkhead_services.checker import app as checker
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.planner import app as planner
from bulkhead_services.rag import app as rag
from bulkhead_services.tool_executor import app as tool_executor
from bulkhead_services.worker import app as worker
from tests.replay.stage import offline_model

DECIDERS = {"planner": planner.LOGICS, "worker": worker.LOGICS, "checker": checker.LOGICS}
NAMES = ("search_documents", "calculate", "date_difference", "date_add")
MEDIA = {".md": "text/markdown", ".txt": "text/plain", ".html": "text/html"}
SPECS = tuple(one for one in catalog.tool_specs() if one.name in NAMES)


@asynccontextmanager
async def mesh_in(folder: Path, **changes) -> AsyncIterator[MemoryMesh]:
    async with offline_model() as url, mesh_beside(url, folder, **changes) as mesh:
        yield mesh


@asynccontextmanager
async def mesh_beside(url: str, folder: Path, **changes) -> AsyncIterator[MemoryMesh]:
    common = {"data_dir": folder}
    builds = {
        "budget": lambda c: budget.build(c, budget.Settings(redis_url="memory://", **common)),
        "model_gateway": lambda c: model_gateway.build(
            c, model_gateway.Settings(openai_base_url=url, openai_api_key="offline", model="offline-rules-1", **common)
        ),
        "rag": lambda c: rag.build(c, rag.Settings(**common)),
        "tool_executor": lambda c: tool_executor.build(c, tool_executor.Settings(**common)),
        **{name: (lambda c, logics=logics: logics) for name, logics in DECIDERS.items()},
    }
    async with MemoryMesh(builds, **changes) as mesh:
        yield mesh


def grant(mesh: MemoryMesh, task: str, cost: int = 500_000) -> str:
    return mesh.context("signer").signer.sign_grant(
        TaskGrant(
            tenant="demo",
            task=task,
            actor="ann",
            tools=NAMES,
            document_scopes=("default",),
            limits=TaskLimits(cost_usd_micros=cost),
            day_cost_usd_micros=10**9,
            day_tokens=10**9,
            expires_unix_ms=mesh.context("signer").clock() + 600_000,
        )
    )


async def ingest(mesh: MemoryMesh, demo: Demo) -> None:
    context = mesh.context("gateway")
    for number, document in enumerate(demo.documents):
        name = f"d{number}"
        body = DocumentIngestRequested(
            name=document.name,
            media_type=MEDIA[Path(document.name).suffix],
            content=await context.blobs.put("demo", document.text),
        )
        await context.publisher.send("rag", body, tenant="demo", task=name, cause=name, grant=grant(mesh, name))
    for number in range(len(demo.documents)):
        done = await mesh.wait_for_fact(subjects.task_filter("gateway", "demo", f"d{number}"), DocumentIngested)
        assert done.outcome == "ingested", done


async def submit(
    mesh: MemoryMesh, objective: str, task: str = "t1", cost: int = 500_000, deadline_ms: int = 60_000
) -> None:
    context = mesh.context("gateway")
    body = TaskSubmitted(
        objective=await context.blobs.put("demo", objective),
        limits=TaskLimits(cost_usd_micros=cost, deadline_ms=deadline_ms),
        submitted_unix_ms=context.clock(),
        tools=SPECS,
    )
    await context.publisher.send(
        "planner", body, tenant="demo", task=task, cause=task, actor="ann", grant=grant(mesh, task, cost)
    )


async def ended(mesh: MemoryMesh, task: str = "t1") -> TaskEnded:
    return await mesh.wait_for_fact(subjects.mesh_subject("planner", "gateway", "demo", task), TaskEnded, timeout_s=60)


async def answer_of(mesh: MemoryMesh, end: TaskEnded) -> str:
    assert end.status == "succeeded", end.failure
    return await mesh.context("gateway").blobs.get_text("demo", end.result.content)


async def test_the_demo_is_answered_rightly_and_replays_byte_for_byte(tmp_path):
    demo = generate_demo(1)
    async with mesh_in(tmp_path) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective)
        end = await ended(mesh)
        text = await answer_of(mesh, end)
        verdict = compare_answer(demo, text, {one.document for one in end.result.citations})
        assert verdict.ok, (verdict.differences, text)
        assert end.usage.model_calls > 4 and end.usage.cost_usd_micros > 0 and end.result.standing == "ok"
        journal = [one for one in await mesh.messages("JOURNAL") if (one.tenant, one.task) == ("demo", "t1")]

        async def fetch(ref):
            return await mesh.context("gateway").blobs.get_text("demo", ref)

        report = await replay_deciders(journal, DECIDERS, fetch)
        assert report.divergences == [] and report.compared > 20


async def test_the_same_seed_gives_the_same_answer_and_messages_twice(tmp_path):
    demo, found = generate_demo(2), []
    for run in ("a", "b"):
        async with mesh_in(tmp_path / run) as mesh:
            await ingest(mesh, demo)
            await submit(mesh, demo.objective)
            found.append(await answer_of(mesh, await ended(mesh)))
    assert found[0] == found[1]


async def test_a_replica_killed_in_the_middle_changes_nothing(tmp_path):
    demo = generate_demo(3)
    async with mesh_in(tmp_path, ack_wait_ms=300) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective)
        for name in ("planner", "worker", "checker", "model_gateway", "rag", "tool_executor"):
            await mesh.wait_for_fact(subjects.mesh_subject("planner", "gateway", "demo", "t1"), StepStarted)
            mesh.kill_replica(name)
            await mesh.start(name, "again")
        end = await ended(mesh)
        verdict = compare_answer(demo, await answer_of(mesh, end), {one.document for one in end.result.citations})
        assert verdict.ok, verdict.differences


async def test_a_ceiling_halts_the_task_and_is_not_exceeded(tmp_path):
    demo = generate_demo(4)
    async with mesh_in(tmp_path) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective, cost=3_000, deadline_ms=20_000)  # held for a top-up until then
        end = await ended(mesh)
        assert end.status == "halted" and end.failure.hint
        assert end.usage.cost_usd_micros <= 3_000


@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.nightly
async def test_twenty_seeds_are_answered_rightly(tmp_path, seed):
    demo = generate_demo(seed)
    async with mesh_in(tmp_path) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective)
        end = await ended(mesh)
        verdict = compare_answer(demo, await answer_of(mesh, end), {one.document for one in end.result.citations})
        assert verdict.ok, verdict.differences


async def test_a_cancel_cuts_what_is_in_flight(tmp_path):
    demo = generate_demo(5)
    async with mesh_in(tmp_path) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective)
        await mesh.wait_for_fact(subjects.mesh_subject("planner", "gateway", "demo", "t1"), TaskAccepted)
        await mesh.context("gateway").publisher.send(
            "planner", TaskCancelRequested(reason="enough"), tenant="demo", task="t1", cause="cancel"
        )
        end = await ended(mesh)
        assert end.status == "cancelled" and end.failure.message == "enough"
        for _ in range(400):
            halts = await mesh.messages("KV_CONTROL")
            if halts:
                break
            await asyncio.sleep(0.01)
        assert Halt.model_validate_json(halts[0].body).name == "t1"
