"""What goes on is found, however many newer tasks have ended: also by a replica that has just begun."""

from types import SimpleNamespace

import httpx
import pytest

from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import TaskAccepted, TaskEnded
from bulkhead_services.gateway.http.routes import task_list
from tests.unit.services.gateway.harness import AUTH, Mesh

GOES_ON = "requested,queued,running,paused"
LOOKED = 3


async def submitted(http: httpx.AsyncClient, mesh: Mesh, key: str) -> str:
    headers = {**AUTH, "Idempotency-Key": key}
    task = (await http.post("/v1/tasks", json={"objective": f"Find fare {key}"}, headers=headers)).json()["task_id"]
    await mesh.pump()
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    return str(task)


async def listed(http: httpx.AsyncClient, **query: str) -> tuple[list[str], str | None]:
    page = (await http.get("/v1/tasks", params=query, headers=AUTH)).json()
    return [row["task_id"] for row in page["tasks"]], page["next"]


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_running_task_is_found_behind_many_that_have_ended(mesh, http, monkeypatch, snapshot):
    monkeypatch.setattr(task_list, "MAX_LOOKED", LOOKED)
    if snapshot:
        monkeypatch.setattr("bulkhead_services.gateway.admission.run_queue.SNAPSHOT_EVERY", 1)
    runs = [await submitted(http, mesh, f"r{number}") for number in range(LOOKED + 1)]
    for number in range(3 * LOOKED):
        task = await submitted(http, mesh, f"e{number}")
        await mesh.say("planner", TaskEnded(status="succeeded"), task)
    fresh = mesh.gateway()
    await fresh.attach_inbox()
    transport = httpx.ASGITransport(app=fresh.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://fresh") as begun:
        for client in (http, begun):
            for status in (GOES_ON, "running"):
                assert await listed(client, status=status) == (runs[::-1], None)
            assert await listed(client, status=GOES_ON, text="r0") == (runs[:1], None)
            first, more = await listed(client, status=GOES_ON, limit="2")
            rest, none = await listed(client, status=GOES_ON, limit="2", cursor=str(more))
            assert first + rest == runs[::-1] and none is None
            assert await listed(client, status="queued,paused") == ([], None)
        await mesh.say("planner", TaskEnded(status="failed"), runs[0], index="late")
        assert await listed(begun, status=GOES_ON) == (runs[:0:-1], None)


async def test_a_task_that_goes_on_is_found_when_the_index_has_forgotten_it(mesh, http):
    runs = [await submitted(http, mesh, f"r{number}") for number in range(2)]
    for number in range(3):
        await mesh.say("planner", TaskEnded(status="succeeded"), await submitted(http, mesh, f"e{number}"))
    small = mesh.gateway(listed_tasks=2)
    await small.attach_inbox()
    transport = httpx.ASGITransport(app=small.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://small") as client:
        assert await listed(client, status="running") == (runs[::-1], None)
        first, more = await listed(client, status="running", limit="1")
        assert first + (await listed(client, status="running", limit="1", cursor=str(more)))[0] == runs[::-1]
        assert not set(runs) & set((await listed(client))[0])


async def test_tasks_of_a_time_and_with_a_code_are_found(mesh, http, monkeypatch):
    tasks = [await submitted(http, mesh, f"a{number}") for number in range(4)]
    for number, task in enumerate(tasks[:3]):
        failure = Failure(code="step_failed" if number else "over_budget", message="x")
        await mesh.say("planner", TaskEnded(status="failed", failure=failure), task)
    times = [(await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()["created_unix_ms"] for task in tasks]
    rows = mesh.gateways[0].http.task_list
    clock = SimpleNamespace(clock=lambda: times[1] + 60_000, publisher=rows._context.publisher)
    monkeypatch.setattr(rows, "_context", clock)
    for _ in range(2):  # The second time from what is remembered.
        assert await listed(http, since="60s") == (tasks[:0:-1], None)
        assert await listed(http, since="60s", status="failed", code="step_failed") == (tasks[2:0:-1], None)
    assert await listed(http, code="over_budget") == (tasks[:1], None)
    assert await listed(http, since="1s") == ([], None)
    for period in ("yesterday", "32d", "0s", "1"):
        refused = await http.get("/v1/tasks", params={"since": period}, headers=AUTH)
        assert refused.status_code == 422 and "90s, 20m, 1h, 7d" in refused.json()["hint"]
