"""Events from outside over a real broker, under the rights that the policy renders: one of a tenant's publisher begins
a run of that tenant and ends its wait, once each; of another tenant it begins nothing."""

from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead_infra.local.supervisor import LocalMesh
from tests.eventually import until

SERVICES = ("signer", "budget", "registry", "gateway", "planner", "worker")
STEPS = [
    {"id": "paid", "wait": {"duration_ms": 100_000, "event": {"name": "order.paid", "key": "{{order}}"}}},
    {"id": "tell", "kind": "noop", "instruction": "Order {{order}} is paid.", "inputs": ["paid"]},
]
CONTENT = {
    "objective": "Wait for the money of order {{order}}",
    "parameters": [{"name": "order", "kind": "number"}],
    "steps": STEPS,
    "check": False,
}
TRIGGER = {"event": "order.placed", "sources": ["demo-publisher"], "fields": {"order": "/id"}}


async def publish_workflow(mesh: LocalMesh, tenant: str) -> Mesh:
    """A workflow with its trigger; a client of the operator who set it."""
    editor, operator = (
        Mesh(mesh.url, mesh.add_api_key(tenant, name, role))
        for name, role in (("pia", "prompt_editor"), ("olga", "operator"))
    )
    async with editor:
        sha256 = (await editor.draft_workflow("orders", CONTENT, "first"))["sha256"]
        await editor.move_workflow("orders", 1, "submit", sha256, "go")
    await operator.__aenter__()
    for action in ("approve", "publish"):
        await operator.move_workflow("orders", 1, action, sha256, "fine")
    row = await operator.move_workflow("orders", 1, "schedule", sha256, "on each order", trigger=TRIGGER)
    assert row["trigger"]["event"] == "order.placed"
    return operator


async def list_runs(mesh: Mesh) -> list[dict[str, Any]]:
    return await mesh.tasks()


@pytest.mark.slow
async def test_a_publishers_events_begin_one_run_each_of_its_own_tenant_and_end_its_wait(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path, services=SERVICES, durability="process") as mesh:
        olga, other = await publish_workflow(mesh, "demo"), await publish_workflow(mesh, "acme")
        key = mesh.directory / "identity" / "pub_demo.nkey"
        async with Mesh.on_bus(mesh.nats_url, key, "demo", "demo") as shop:
            for _ in range(2):
                await shop.publish_event("order.placed", '{"id": 42}', event_id="o-42")
            await shop.publish_event("order.placed", '{"id": "forty-two"}', event_id="o-43")

            async def has_begun() -> bool:
                return len(await list_runs(olga)) == 2

            await until(has_begun, "one event began a run, and another was refused")
            [waiting] = [row for row in await list_runs(olga) if row["status"] != "rejected"]
            [refused] = [row for row in await list_runs(olga) if row["status"] == "rejected"]
            unfit = await olga.task(refused["task_id"]).show()
            assert "order is a number" in unfit["failure"]["message"]
            assert waiting["workflow"] == "orders.1"
            await shop.publish_event("order.paid", '{"amount": 12}', key="42", event_id="p-42")
            ended = await olga.task(waiting["task_id"]).wait_until_ended()
            assert (ended["status"], ended["objective"]) == ("succeeded", "Wait for the money of order 42")
        # A person's event is of another source: this trigger does not heed it. The same id is the same event.
        first = await olga.publish_event("order.placed", {"id": 44}, event_id="o-44")
        again = await olga.publish_event("order.placed", {"id": 44}, event_id="o-44")
        assert (first["repeated"], again) == (False, first | {"repeated": True})
        with pytest.raises(Refused, match="another event"):
            await olga.publish_event("order.placed", {"id": 45}, event_id="o-44")
        async with Mesh.on_bus(mesh.nats_url, key, "demo", "acme") as liar:
            with pytest.raises(MeshError, match="its own tenant"):
                await liar.publish_event("order.placed", '{"id": 42}', event_id="o-42")
        assert await list_runs(other) == [] and len(await list_runs(olga)) == 2
        for client in (olga, other):
            await client.__aexit__(None, None, None)
