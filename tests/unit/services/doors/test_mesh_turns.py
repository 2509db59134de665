"""Messages of outside agents as turns, asked of a gateway in this process."""

import httpx
import pytest

from bulkhead.client import Mesh, Refused
from bulkhead.client.task import Task
from bulkhead_contracts import bounds
from bulkhead_contracts.task import TaskCancelRequested
from bulkhead_services.doors.http.mesh_turns import begin_turn
from tests.unit.services.gateway.harness import SUBMITTER, make_mesh


async def test_a_task_that_can_be_no_turn_does_not_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_SESSION_TURNS", 1)
    world = make_mesh(tmp_path)
    await (gateway := world.gateway()).attach_inbox()
    async with Mesh("http://gateway", SUBMITTER, transport=httpx.ASGITransport(app=gateway.app)) as mesh:
        tasks: list[Task] = []

        async def say(key: str) -> Task:
            async def submit() -> Task:
                tasks.append(await mesh.submit("Hello", conversation="c", idempotency_key=key))
                return tasks[-1]

            return await begin_turn(mesh, "c", "Hello", key, submit, limits={}, options={}, is_planned=True)

        first = await say("a")
        with pytest.raises(Refused, match="has 1 turns"):
            await say("b")
        assert (await say("a")).id == first.id
    cancelled = {row.task for row in world.sent("gateway") if row.ce_type == TaskCancelRequested.ce_type()}
    assert cancelled == {tasks[1].id} != {first.id}
    await gateway.stop()
