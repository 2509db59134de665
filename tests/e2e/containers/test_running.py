"""The same mesh, in containers: the demo is right; replicas come and go, everything is restarted, no step is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.demo.corpus import generate, write
from infra.demo.verdict import compare
from tests.e2e.containers.field import Count, Field, finished

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAKEN_WITHIN_S = 60.0
RESTARTED = ("planner", "worker", "checker", "model_gateway", "rag", "tool_executor", "budget", "signer", "gateway")


@pytest.mark.parametrize("seed", [7, 11])
async def test_the_demo_is_answered_rightly(field: Field, tmp_path: Path, seed: int) -> None:
    demo = generate(seed)
    async with field.client() as client:
        for path in write(demo, tmp_path / "documents"):
            receipt = await client.add_document(path)
            assert receipt["outcome"] in ("ingested", "unchanged"), receipt
        task = await client.submit(demo.objective, idempotency_key=f"demo-{seed}")
        document = await finished(task)
    assert document["status"] == "succeeded", document["failure"]
    cited = {one["document"] for one in document["result"]["citations"]}
    assert compare(demo, document["answer"], cited).differences == ()
    assert document["usage"]["cost_usd_micros"] > 0


async def test_workers_come_and_go_and_no_step_is_lost_or_doubled(field: Field) -> None:
    async with field.client() as client:
        async with field.counter.held() as arrived:
            tasks = [await Count(field, client).submit() for _ in range(8)]
            # In the middle of a step: its write stands at the gate while the replicas change.
            await arrived()
            await asyncio.to_thread(field.stack.scale, "worker", 4)
            assert len(field.stack.containers("worker")) == 4
        more = [await Count(field, client).submit() for _ in range(4)]
        await asyncio.to_thread(field.stack.scale, "worker", 1)
        assert len(field.stack.containers("worker")) == 1
        for task in (*tasks, *more):
            await task.ends_rightly()


async def test_every_service_is_restarted_under_load(field: Field) -> None:
    async with field.client() as client:
        async with _load(field, client) as tasks:
            for service in RESTARTED:
                before = len(tasks)
                await asyncio.to_thread(field.stack.restart, service)
                # Load all the time: since the last restart tasks went in.
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    while len(tasks) == before:
                        await asyncio.sleep(0.05)
        assert len(tasks) >= len(RESTARTED)
        for task in tasks:
            await task.ends_rightly()


async def test_a_killed_container_comes_back_by_itself(field: Field) -> None:
    async with field.client() as client:
        async with field.counter.held() as arrived:
            task = await Count(field, client).submit()
            await arrived()
            container = field.stack.containers("tool_executor")[0]
            # From inside, as a crash: what `docker kill` ends, Docker does not start again.
            field.stack.exec(container, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        await task.ends_rightly()
        await asyncio.to_thread(field.stack.wait_ready, ["tool_executor"])


async def test_a_key_is_rotated_while_the_mesh_runs(field: Field) -> None:
    read = ("cat", "/bulkhead/identity/worker.nkey")
    before = field.stack.exec(field.stack.containers("worker")[0], *read).stdout
    async with field.client() as client:
        async with field.counter.held() as arrived:
            task = await Count(field, client).submit()
            await arrived()
            field.stack.run("run", "--rm", "-T", "--no-deps", "provision-keys", "rotate", "worker")
            field.stack.run("kill", "-s", "HUP", "nats")
            await asyncio.to_thread(field.stack.restart, "worker")
        await task.ends_rightly()
    after = field.stack.exec(field.stack.containers("worker")[0], *read).stdout
    assert before and after and before != after


@asynccontextmanager
async def _load(field: Field, client) -> AsyncIterator[list[Count]]:  # type: ignore[no-untyped-def]
    """Tasks go in, a few at a time, until the block ends."""
    tasks: list[Count] = []
    ending = asyncio.Event()

    async def submit() -> None:
        while not ending.is_set():
            one = await Count(field, client).submit()
            tasks.append(one)
            assert one.task is not None
            await finished(one.task)

    submitting = [asyncio.create_task(submit()) for _ in range(2)]
    try:
        yield tasks
    finally:
        ending.set()
        await asyncio.gather(*submitting)
