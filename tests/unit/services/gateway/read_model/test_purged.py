"""A purge takes an ended task from the inbox while replicas remember it: its id is free again, and its list is true."""

import asyncio
import contextlib

import httpx
import pytest

from bulkhead_contracts.task import TaskAccepted, TaskEnded, TaskRequested, TaskSubmitted
from bulkhead_services.gateway.read_model import feeds
from tests.unit.services.gateway.harness import AUTH, Mesh, make_mesh


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    for _ in range(2):
        await found.gateway().attach_inbox()
    yield found
    for gateway in found.gateways:
        await gateway.stop()


@contextlib.asynccontextmanager
async def client(mesh: Mesh, at: int = 0):
    transport = httpx.ASGITransport(app=mesh.gateways[at].app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as found:
        yield found


async def submit(mesh: Mesh, key: str = "k1", objective: str = "Find the fare", at: int = 0) -> str:
    async with client(mesh, at) as http:
        answer = await http.post("/v1/tasks", json={"objective": objective}, headers={**AUTH, "Idempotency-Key": key})
    assert answer.status_code == 202, answer.text
    await mesh.pump()
    task: str = answer.json()["task_id"]
    return task


async def lived(mesh: Mesh, key: str = "k1") -> str:
    """A task that every replica has seen to its end."""
    task = await submit(mesh, key)
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5), task, index=mesh.handled)
    await mesh.say("planner", TaskEnded(status="succeeded"), task, index=mesh.handled)
    for at in range(2):
        assert await status(mesh, task, at) == "succeeded"
    return task


async def status(mesh: Mesh, task: str, at: int = 0) -> str:
    async with client(mesh, at) as http:
        answer = await http.get(f"/v1/tasks/{task}", headers=AUTH)
    return str(answer.json()["status"])


async def until(mesh: Mesh, task: str, wanted: str) -> None:
    """Both replicas say so: the one that did not handle the message, when the other's poke has come."""
    async with asyncio.timeout(5):
        while [await status(mesh, task, at) for at in range(2)] != [wanted] * 2:
            await asyncio.sleep(0.001)


async def listed(mesh: Mesh, at: int = 0, limit: int = 20) -> list[tuple[str, str]]:
    found, cursor = [], ""
    async with client(mesh, at) as http:
        while True:
            page = (await http.get(f"/v1/tasks?limit={limit}&cursor={cursor}", headers=AUTH)).json()
            found += [(row["task_id"], row["status"]) for row in page["tasks"]]
            cursor = page["next"]
            if not cursor:
                return found


def purge(mesh: Mesh, task: str) -> None:
    """As bulkhead_infra.nats.purge does, long after the dedup window."""
    inbox = [
        (name, stored)
        for name, stored in mesh.bus.stored
        if name in ("INBOX_GATEWAY", "INBOX_PLANNER") and stored.task == task
    ]
    mesh.bus.gaps += len([one for one in inbox if one[0] == "INBOX_GATEWAY"])
    mesh.bus.stored = [one for one in mesh.bus.stored if one not in inbox]
    mesh.bus.ids.clear()


@pytest.mark.parametrize("at", [0, 1])
async def test_a_key_that_is_used_again_after_the_purge_runs_on_every_replica(mesh, at):
    task = await lived(mesh)
    purge(mesh, task)
    assert await submit(mesh, objective="Another fare", at=at) == task
    assert [one.ce_type for one in mesh.sent("planner")] == [TaskSubmitted.ce_type()]
    await until(mesh, task, "requested")
    await mesh.say("planner", TaskEnded(status="failed"), task, index="second life")
    await until(mesh, task, "failed")


async def test_a_publishers_task_begins_anew_too_and_a_second_request_is_still_ignored(mesh):
    await mesh.say("pub_shop", TaskRequested(objective="Mine"), "pub_shop-shop")
    await mesh.say("planner", TaskEnded(status="succeeded"), "pub_shop-shop")
    await mesh.say("pub_shop", TaskRequested(objective="Mine again"), "pub_shop-shop", index=2)
    assert len(mesh.sent("planner")) == 1
    purge(mesh, "pub_shop-shop")
    await mesh.say("pub_shop", TaskRequested(objective="Mine, later"), "pub_shop-shop", index=3)
    assert len(mesh.sent("planner")) == 1 and await status(mesh, "pub_shop-shop") == "requested"


@pytest.mark.parametrize("limit", [1, 2, 20])
async def test_what_was_purged_is_not_listed(mesh, monkeypatch, limit):
    tasks = [await lived(mesh, f"k{number}") for number in range(5)]
    assert len(await listed(mesh)) == len(await listed(mesh, 1)) == 5
    for task in (tasks[0], tasks[1], tasks[3]):
        purge(mesh, task)
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 0.0)
    for at in range(2):
        assert await listed(mesh, at, limit) == [(tasks[4], "succeeded"), (tasks[2], "succeeded")]
        async with client(mesh, at) as http:
            assert (await http.get(f"/v1/tasks/{tasks[3]}", headers=AUTH)).status_code == 404
    await submit(mesh, "k3")
    assert [row[0] for row in await listed(mesh, 1, limit)] == [tasks[3], tasks[4], tasks[2]]


async def test_an_ended_task_costs_no_read_until_it_is_time_to_look_again(mesh, monkeypatch):
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 1e9)
    task = await lived(mesh)
    reads = mesh.bus.reads
    for _ in range(3):
        assert await status(mesh, task) == "succeeded"
    assert mesh.bus.reads == reads
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 0.0)
    assert await status(mesh, task) == "succeeded" and mesh.bus.reads == reads + 2


async def test_what_is_said_after_the_end_is_seen_when_its_poke_came(mesh):
    task = await lived(mesh)
    before = mesh.gateways[0].feeds.feed_of("acme", task)
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=6), task, index="late")
    async with asyncio.timeout(5):
        while before.awaited_sequence <= before.sequence:
            await asyncio.sleep(0)
    assert await status(mesh, task) == "succeeded" and before.sequence == before.awaited_sequence


async def test_of_a_task_that_was_accepted_here_and_purged_unseen_nobody_says_that_it_comes(mesh, monkeypatch):
    mesh.gateways[0].feeds.note_accepted("acme", "t-gone", 3)
    async with client(mesh) as http:
        assert (await http.get("/v1/tasks/t-gone", headers=AUTH)).status_code == 503, "the broker may lag"
        monkeypatch.setattr(feeds, "FOLLOWERS_S", 0.0)
        assert (await http.get("/v1/tasks/t-gone", headers=AUTH)).status_code == 404
