"""Tasks that wait for a place: what people see, what the planner gets, over replicas that crash anywhere."""

import json
from dataclasses import replace

import httpx
import pytest

from bulkhead.runtime.consume import inbound
from bulkhead.runtime.errors import HandBack
from bulkhead_contracts.lease import resource_token
from bulkhead_contracts.task import TaskAccepted, TaskEnded, TaskRejected, TaskRequested, TaskSubmitted
from tests.unit.services.gateway.harness import AUTH, Mesh, make_mesh


def quotas(folder, **quota):
    file = folder / "tenants.yaml"
    file.write_text(json.dumps({"tenants": {"acme": {"quota": quota}}}))
    return {"tenants_file": file}


@pytest.fixture
async def mesh(tmp_path):
    found = make_mesh(tmp_path)
    yield found
    for gateway in found.gateways:
        await gateway.stop()


async def start(mesh: Mesh, **quota):
    gateway = mesh.gateway(**quotas(mesh.folder, **quota))
    await gateway.attach_inbox()
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway")


async def submit(http, key, objective="Find the fare"):
    return await http.post("/v1/tasks", json={"objective": objective}, headers={**AUTH, "Idempotency-Key": key})


async def tasks(mesh, http, count):
    found = [(await submit(http, f"k{number}")).json()["task_id"] for number in range(count)]
    await mesh.pump()
    return found


async def show(http, task):
    return (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()


def begun(mesh):
    """Tasks in the planner's inbox, in order."""
    return [stored.task for stored in mesh.sent("planner") if stored.ce_type == TaskSubmitted.ce_type()]


def bodies(mesh, kind):
    return [
        kind.model_validate_json(stored.body)
        for _, stored in mesh.bus.stored
        if stored.headers.get("ce-type") == kind.ce_type()
    ]


async def test_the_rest_waits_is_seen_to_wait_and_begins_when_one_ends(mesh):
    async with await start(mesh, running=1) as http:
        first, second, third = await tasks(mesh, http, 3)
        assert begun(mesh) == [first]
        seen = [(await show(http, one))["status"] for one in (first, second, third)]
        assert seen == ["requested", "queued", "queued"]
        waits = (await show(http, third))["queue"]
        assert {name: waits[name] for name in ("ahead", "waiting", "full", "running", "limit")} == {
            "ahead": 1,
            "waiting": 2,
            "full": "tenant",
            "running": 1,
            "limit": 1,
        }
        assert (await show(http, first))["queue"] is None
        await mesh.say("planner", TaskAccepted(deadline_unix_ms=5), first)
        await mesh.say("planner", TaskEnded(status="succeeded"), first)
        assert begun(mesh) == [first, second]
        assert [(await show(http, one))["status"] for one in (second, third)] == ["requested", "queued"]
        assert (await show(http, third))["queue"]["ahead"] == 0
        # Its time counts from when it had a place, and so does the authority that is signed for it.
        submitted = bodies(mesh, TaskSubmitted)[-1].submitted_unix_ms
        assert submitted > bodies(mesh, TaskSubmitted)[0].submitted_unix_ms + 3
        assert mesh.bus.asked[-1].requested_unix_ms == submitted


async def test_watchers_are_told(mesh):
    async with await start(mesh, running=1) as http:
        first, second = await tasks(mesh, http, 2)
        await mesh.say("planner", TaskEnded(status="succeeded"), first)
        await mesh.say("planner", TaskEnded(status="failed"), second)
        events = (await http.get(f"/v1/tasks/{second}/events", headers=AUTH)).text
        assert [line[7:] for line in events.splitlines() if line.startswith("event: ")] == [
            "task.queued",
            "task.released",
            "task.ended",
        ]


async def test_a_waiting_task_is_cancelled_and_never_begins(mesh):
    async with await start(mesh, running=1) as http:
        first, second, third = await tasks(mesh, http, 3)
        await http.post(f"/v1/tasks/{second}/cancel", json={"reason": "not any more"}, headers=AUTH)
        await mesh.pump()
        found = await show(http, second)
        assert (found["status"], found["failure"]["message"]) == ("cancelled", "not any more")
        await mesh.say("planner", TaskEnded(status="succeeded"), first)
        assert begun(mesh) == [first, third]
        assert (await http.post(f"/v1/tasks/{second}/cancel", headers=AUTH)).status_code == 409


async def test_a_changed_quota_gives_places_without_a_restart(mesh):
    async with await start(mesh, running=1) as http:
        made = await tasks(mesh, http, 3)
        quotas(mesh.folder, running=30)
        mesh.gateways[0].admission._tenants.reload_if_changed()
        await mesh.gateways[0].admission.fill_free_places()
        await mesh.pump()
        assert begun(mesh) == made


async def test_too_many_in_a_short_time_are_told_when_to_come_back(mesh):
    async with await start(mesh, person_tasks_per_minute=1, person_burst_tasks=2) as http:
        assert [(await submit(http, f"k{number}")).status_code for number in range(3)] == [202, 202, 429]
        answer = await submit(http, "k3")
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["limit"]) == ("too_many_tasks", 1) and problem["hint"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        await mesh.pump()
        assert len(begun(mesh)) == 2


async def test_programs_on_the_bus_are_held_to_the_same(mesh):
    async with await start(mesh, person_tasks_per_minute=1, person_burst_tasks=2) as http:
        for number in range(4):
            await mesh.say("pub_shop", TaskRequested(objective="Mine"), f"pub_shop-shop{number}")
        assert begun(mesh) == ["pub_shop-shop0", "pub_shop-shop1"]
        failure = (await show(http, "pub_shop-shop3"))["failure"]
        assert failure["code"] == "too_many_tasks" and "submit it again in" in failure["hint"]


@pytest.mark.parametrize("task", [resource_token("crm:account:42"), "pub_other-1", "pub_shop"])
async def test_a_program_begins_no_task_outside_of_its_own_ids(mesh, task):
    async with await start(mesh):
        await mesh.say("pub_shop", TaskRequested(objective="Mine"), task)
        [said] = [json.loads(one.body) for one in mesh.sent("gateway") if one.ce_type == TaskRejected.ce_type()]
        assert said["code"] == "foreign_id" and "pub_shop-" in said["hint"] and not begun(mesh)


async def test_a_queue_is_bounded(mesh):
    async with await start(mesh, running=1, waiting=1) as http:
        made = await tasks(mesh, http, 2)
        answer = await submit(http, "k9")
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full") and answer.headers["retry-after"]
        await mesh.say("pub_shop", TaskRequested(objective="Mine"), "pub_shop-shop")
        assert (await show(http, "pub_shop-shop"))["failure"]["code"] == "queue_full"
        await mesh.say("planner", TaskEnded(status="succeeded"), made[0])
        assert begun(mesh) == made and (await submit(http, "k9")).status_code == 202


async def test_of_two_replicas_that_decide_at_once_one_is_told_no(mesh):
    """Both have read an inbox in which there is room for one, and each is handed another request."""
    async with await start(mesh, running=1) as http:
        mesh.gateway(**quotas(mesh.folder, running=1))
        for gateway in mesh.gateways:
            await gateway.admission.read_current()
        made = [(await submit(http, f"k{number}")).json()["task_id"] for number in range(2)]
        requests = [stored for name, stored in mesh.bus.stored if name == "INBOX_GATEWAY"]
        for gateway, stored in zip(mesh.gateways, requests, strict=True):
            await take(gateway, stored, 0)
        assert begun(mesh) == made[:1] and (await show(http, made[1]))["status"] == "queued"


@pytest.mark.parametrize("replicas", [1, 2, 3])
async def test_replicas_that_crash_anywhere_lose_and_double_nothing(mesh, replicas):
    """Every message is handled by one replica, and again by another as if the first had died before its ack: by one
    that was started just now and knows nothing but the inbox."""
    async with await start(mesh, running=2) as http:
        for _ in range(replicas - 1):
            mesh.gateway(**quotas(mesh.folder, running=2))
        made = [(await submit(http, f"k{number}")).json()["task_id"] for number in range(9)]
        ended: set[str] = set()
        most = handled = 0
        while len(ended) < len(made):
            lying = [s for name, s in mesh.bus.stored if name == "INBOX_GATEWAY" and s.sequence > handled]
            for stored in lying:
                await take(mesh.gateways[handled % replicas], stored, 0)
                await take(mesh.gateway(**quotas(mesh.folder, running=2)), stored, 1)
                handled = stored.sequence
            running = [one for one in dict.fromkeys(begun(mesh)) if one not in ended]
            most = max(most, len(running))
            if not lying and running:
                ended.add(running[0])
                publisher = mesh.context("planner").publisher
                publisher.service = "planner"
                await publisher.send(
                    "gateway", TaskEnded(status="succeeded"), tenant="acme", task=running[0], index=f"end/{running[0]}"
                )
            assert lying or running or len(ended) == len(made), "nobody runs, and somebody waits"
        assert most == 2
        assert sorted(begun(mesh)) == sorted(made)  # The broker dropped what was said twice under one id.


async def take(gateway, stored, attempt):
    message = inbound.read_message(stored, "gateway")
    try:
        await gateway.handle_message(replace(message, attempts=attempt + 1))
    except HandBack as retry:
        raise AssertionError(retry.reason) from retry
