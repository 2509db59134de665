"""The other alerts (see test_runbooks.py): a minute or so each way, so only a night has the time for them.

pytest -o python_files=every_runbook.py tests/e2e/observability/every_runbook.py
"""

import nats
import pytest

from tests.e2e.fixtures.world import LEASING
from tests.e2e.observability.watched import PLANTED, Watched
from tests.e2e.watch.test_deadlock import CRM, ERP, takes
from tests.eventually import until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_storage_filling(watched: Watched) -> None:
    await watched.world.finish(await watched.submit("t1", "Say hello."))
    seed = watched.world.mesh.nkey_seed("provisioner")
    client = await nats.connect(watched.world.mesh.nats_url, nkeys_seed_str=seed, inbox_prefix=b"_INBOX_provisioner")
    try:
        stream = client.jetstream()
        info = await stream.stream_info("BLOBS")
        before = info.config.max_bytes
        info.config.max_bytes = round(info.state.bytes * 1.1)
        await stream.update_stream(info.config)
        await watched.fires("BulkheadStorageFilling", bulkhead_stream="BLOBS")
        assert "full" in await watched.follow("BulkheadStorageFilling")
        info.config.max_bytes = before
        await stream.update_stream(info.config)
    finally:
        await client.close()
    await watched.resolves("BulkheadStorageFilling")


async def test_approvals_waiting(watched: Watched) -> None:
    task = await watched.submit("demo", f"Use counter_increment_unkeyed name={PLANTED}.", "counter_increment_unkeyed")
    await watched.fires("BulkheadApprovalsWaiting")
    [row] = (await watched.world.client("demo", "approver").approvals("waiting", task.id))["approvals"]
    said = await watched.follow("BulkheadApprovalsWaiting", ID=row["approval_id"])
    assert "counter_increment_unkeyed" in said
    await watched.resolves("BulkheadApprovalsWaiting")
    await watched.world.finish(task)


async def test_uncertain_writes(watched: Watched) -> None:
    async with watched.world.counter.held() as arrived:
        task = await watched.submit("t1", "Use counter_increment_unkeyed name=lost.", "counter_increment_unkeyed")
        await arrived()
        await watched.world.mesh.kill_replica("tool_executor")
    await watched.fires("BulkheadUncertainWrites", gen_ai_tool_name="counter_increment_unkeyed")
    await watched.world.finish(task)
    said = await watched.follow("BulkheadUncertainWrites", TASK=task.id)
    assert "counter_increment_unkeyed" in said and "lost" in said
    await watched.resolves("BulkheadUncertainWrites")


async def test_deadlock_broken(watched: Watched) -> None:
    async with watched.world.counter.held():
        before = watched.world.counter.arrived
        orders = (("a", (CRM, ERP)), ("b", (ERP, CRM)))
        tasks = [await watched.world.submit(LEASING, "Book.", plan=takes(m, *o), check=False) for m, o in orders]
        await until(lambda: watched.world.counter.arrived >= before + 2, "both hold their first lease")
    await watched.fires("BulkheadDeadlockBroken")
    for task in tasks:
        await watched.world.finish(task)
    said = "".join([await watched.follow("BulkheadDeadlockBroken", TASK=task.id) for task in tasks])
    assert "deadlock" in said and CRM in said
    await watched.resolves("BulkheadDeadlockBroken")


async def test_task_stuck(watched: Watched) -> None:
    assert (await watched.run("bulkhead halt --tool counter_increment --tenant t1 --reason forgotten"))[0] == 0
    task = await watched.submit("t1", "Use counter_increment name=stuck.", "counter_increment")
    assert (await watched.run(f"bulkhead halt --task {task.id} --reason forgotten"))[0] == 0
    assert (await watched.run("bulkhead resume --tool counter_increment --tenant t1"))[0] == 0
    await watched.fires("BulkheadTaskStuck")
    assert "forgotten" in await watched.follow("BulkheadTaskStuck", TASK=task.id)
    await watched.world.finish(task)
    await watched.resolves("BulkheadTaskStuck")


async def test_day_ceiling_burn(watched: Watched) -> None:
    assert (await watched.run("bulkhead limits set day --tokens 60000"))[0] == 0

    async def burns() -> bool:
        await watched.world.finish(await watched.submit("demo", "Say hello."))
        return bool(await watched.alerts("BulkheadDayCeilingBurn"))

    await until(burns, "a quarter of the day's ceiling is spent", 60)
    found = await watched.fires("BulkheadDayCeilingBurn", severity="critical", bulkhead_account="day")
    assert "60,000" in await watched.follow("BulkheadDayCeilingBurn") and found["labels"]["bulkhead_unit"] == "tokens"
    await watched.world.finish(await watched.submit("demo", "Say hello."))
    await watched.resolves("BulkheadDayCeilingBurn")
