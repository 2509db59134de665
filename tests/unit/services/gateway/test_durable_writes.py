"""A broker that answers reads and stores nothing, as with a full disk: told within seconds, and not ready."""

import asyncio

import httpx
import pytest

from bulkhead.client import Mesh, Refused
from bulkhead_services.gateway.admission import durable_writes
from tests.unit.services.gateway.harness import AUTH, until
from tests.unit.services.gateway.http.test_tasks import problem, submit


@pytest.fixture
def full(mesh, monkeypatch):
    """The disk is full until this is set."""
    monkeypatch.setattr(durable_writes, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(durable_writes.DurableWrites.write_within, "__defaults__", (0.2,))
    monkeypatch.setattr(durable_writes, "FAILING_TIMEOUT_S", 0.05)
    monkeypatch.setattr(durable_writes, "CHECK_S", 0.01)
    freed, publish = asyncio.Event(), mesh.bus.publish
    freed.subjects = []

    async def unanswered(subject, *args, **kwargs):
        freed.subjects.append(subject)
        await freed.wait()
        return await publish(subject, *args, **kwargs)

    mesh.bus.publish = unanswered
    return freed


async def test_a_submission_is_refused_in_time_and_the_gateway_is_not_ready(mesh, http, full):
    assert (await http.get("/readyz")).status_code == 200
    async with asyncio.timeout(2):
        body = problem(await submit(http), 503, "unavailable")
    assert "not confirmed" in body["detail"] and "disk" in body["hint"] and "Idempotency-Key" in body["hint"]
    told = await http.get("/readyz")
    assert told.status_code == 503 and "stores nothing" in told.json()["reason"]
    assert "stores nothing" in mesh.gateways[0].describe_problem()
    await until(lambda: any(name.startswith("blob.gateway.") for name in full.subjects), "a write is tried")
    full.set()
    await until(lambda: not mesh.gateways[0].describe_problem(), "ready again without a request")
    assert (await http.get("/readyz")).status_code == 200
    first = await submit(http)
    assert first.status_code == 202 and (await submit(http)).json() == first.json()
    assert len(mesh.sent("gateway")) == 1


async def test_every_write_that_somebody_waits_for_is_bounded(mesh, http, full):
    full.set()
    task = (await submit(http)).json()["task_id"]
    full.clear()
    async with asyncio.timeout(2):
        problem(await http.post(f"/v1/tasks/{task}/cancel", headers=AUTH), 503, "unavailable")
        problem(await http.post("/v1/documents?name=a.md", content=b"x", headers=AUTH), 503, "unavailable")
        problem(await http.delete("/v1/documents?name=a.md", headers=AUTH), 503, "unavailable")


async def test_a_client_gives_up_in_time(monkeypatch):
    passed = 0.0

    async def at_once(pause_s: float) -> None:
        nonlocal passed
        passed += pause_s

    def refuse(_: httpx.Request) -> httpx.Response:
        nonlocal passed
        passed += 4.0
        return httpx.Response(503, json={"title": "Not available now"}, headers={"Retry-After": "2"})

    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: passed)
    async with Mesh("http://gateway", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(Refused):
            await client.submit("o")
    assert passed <= 12
