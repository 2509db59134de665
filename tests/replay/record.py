"""`python -m tests.replay.record`: make the recorded histories anew.

Only for a new shape of history: recorded ones stay, they are what old logic said.
"""

import asyncio
import tempfile
from pathlib import Path

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import StepStarted, TaskCancelRequested, TaskEnded, TaskLimits, TaskSubmitted
from infra.demo.corpus import generate
from tests.integration import test_memory_mesh as mesh_tests
from tests.replay import history

FOLDER = Path(__file__).parent / "histories"


async def keep(mesh: MemoryMesh, name: str, task: str = "t1") -> None:
    """Save one task, when nothing about it is said any more."""
    before = -1
    while before != (before := len(await mesh.messages("JOURNAL"))):
        await asyncio.sleep(0.5)
    journal = [one for one in await mesh.messages("JOURNAL") if one.subject.endswith(f".demo.{task}")]
    blobs = mesh.context("gateway").blobs

    async def fetch(ref):  # type: ignore[no-untyped-def]
        return await blobs.text("demo", ref)

    await history.save(FOLDER / f"{name}.jsonl", journal, mesh_tests.DECIDERS, fetch)


async def main() -> None:
    """One history per shape."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with mesh_tests.mesh_in(Path(folder)) as mesh:
            demo = generate(11)
            await mesh_tests.ingest(mesh, demo)
            await mesh_tests.submit(mesh, demo.objective)
            await mesh_tests.ended(mesh)
            await keep(mesh, "answered")
            await mesh_tests.submit(mesh, demo.objective, task="t2", cost=3_000)
            await mesh_tests.ended(mesh, "t2")
            await keep(mesh, "halted_by_budget", "t2")
            await mesh_tests.submit(mesh, demo.objective, task="t3")
            await mesh.until("mesh.planner.gateway.*.demo.t3", StepStarted)
            await mesh.context("gateway").publisher.send(
                "planner", TaskCancelRequested(reason="enough"), tenant="demo", task="t3", cause="cancel"
            )
            await mesh_tests.ended(mesh, "t3")
            await keep(mesh, "cancelled", "t3")
            await _given_plan(mesh)
            await mesh_tests.submit(mesh, "Who won the chess championship of 1927?", task="t5")
            await mesh_tests.ended(mesh, "t5")
            await keep(mesh, "no_answer_in_documents", "t5")


async def _given_plan(mesh: MemoryMesh) -> None:
    """A chain of steps that need no model, submitted with its plan; checks off."""
    context = mesh.context("gateway")
    chain = tuple(
        PlanStep(id=f"s{n}", title="", instruction="x" * 64, kind="noop", inputs=(f"s{n - 1}",) if n else ())
        for n in range(3)
    )
    body = TaskSubmitted(
        objective=await context.blobs.put("demo", "echo"),
        limits=TaskLimits(),
        check=False,
        submitted_unix_ms=context.clock(),
        plan=Plan(steps=chain),
    )
    await context.publisher.send("planner", body, tenant="demo", task="t4", cause="t4")
    await mesh.until("mesh.planner.gateway.*.demo.t4", TaskEnded)
    await keep(mesh, "given_plan", "t4")


if __name__ == "__main__":
    asyncio.run(main())
