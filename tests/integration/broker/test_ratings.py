"""Ratings over a real broker, under the rights that the policy renders: the gateway stores them, and nobody else."""

from pathlib import Path

import httpx
import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.task import TaskEnded
from bulkhead_infra.local.supervisor import LocalMesh

FORGED = TaskRated(rating_id="r1", score="bad", person="mallory", role="submitter", rated_unix_ms=1)


@pytest.mark.slow
async def test_a_rating_is_stored_beside_its_task_by_the_gateway_alone(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path, services=("signer", "budget", "gateway"), durability="process") as mesh:
        ann, judge = (
            mesh.add_api_key("demo", name, role) for name, role in (("ann", "submitter"), ("eva", "evaluator"))
        )
        async with httpx.AsyncClient(base_url=mesh.url, headers={"X-API-Key": ann}, timeout=30) as http:
            submitted = await http.post("/v1/tasks", json={"objective": "x"}, headers={"Idempotency-Key": "k"})
            task = submitted.json()["task_id"]
            path, seed = f"/v1/tasks/{task}/rating", mesh.nkey_seed("planner")
            bus = await JetStreamBus.connect(mesh.nats_url, service="planner", nkey_seed=seed, name="test")
            with pytest.raises(PublishRefused):
                own = subjects.mesh_subject("gateway", "gateway", "demo", task)
                await bus.publish(own, FORGED.encode(), {"ce-type": FORGED.ce_type()}, "forged")
            planner = Publisher("planner", bus, b"k" * 32, lambda: 1)
            await planner.send("gateway", TaskEnded(status="failed"), tenant="demo", task=task, index="end")
            # In its own name it may not say so, either: the broker lets it through, and no reader takes it.
            subject = subjects.mesh_subject("planner", "gateway", "demo", task)
            await bus.publish(subject, FORGED.encode(), {"ce-type": FORGED.ce_type(), "ce-id": "f"}, "forged-too")
            await bus.close()
            rated = await http.put(path, json={"score": "bad", "comment": "it says nothing"})
            assert rated.status_code == 200 and (rated.json()["bad"], rated.json()["own"][0]["person"]) == (1, "ann")
            verdict = {"score": "good", "kind": "judge", "judge": "j@1"}
            assert (await http.put(path, json=verdict, headers={"X-API-Key": judge})).status_code == 409, "no answer"
            assert [row["task_id"] for row in (await http.get("/v1/tasks?rated=bad")).json()["tasks"]] == [task]
            assert (await http.get("/v1/quality?since=1h")).json()["total"]["ratings"]["bad"] == 1
