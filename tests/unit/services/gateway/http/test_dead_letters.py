"""Dead letters over HTTP: who sees and dismisses which, and that each look at content is on record."""

import logging
from types import SimpleNamespace

import httpx
import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.consume.loop import bury_message
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN, SUBMITTER

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
async def http(mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as client:
        yield client


def key(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


async def buried(mesh, *tasks: str, tenant: str = "acme") -> None:
    publisher = Publisher("worker", mesh.bus, b"w" * 32, lambda: 1)
    context = SimpleNamespace(service="worker", message_key=b"w" * 32, bus=mesh.bus, publisher=publisher)
    for number, task in enumerate(tasks):
        at = subjects.mesh_subject("planner", "worker", tenant, task)
        await bury_message(
            context, StoredMessage(at, {"ce-type": "x"}, HOSTILE.encode(), number, 1), "malformed_body", HOSTILE
        )


async def test_operators_list_read_and_dismiss_their_tenants_own(mesh, http) -> None:
    await buried(mesh, "t1", "t2", "t3")
    await buried(mesh, "t4", tenant="other")
    page = (await http.get("/v1/dead-letters?limit=2")).json()
    assert [one["task"] for one in page["letters"]] == ["t1", "t2"] and page["content"] and page["next"]
    last = (await http.get(f"/v1/dead-letters?limit=2&cursor={page['next']}")).json()
    assert [one["task"] for one in last["letters"]] == ["t3"] and last["next"] is None
    at = f"/v1/dead-letters/{page['letters'][0]['id']}"
    shown = (await http.get(at)).json()
    assert shown["body"] == HOSTILE and shown["letter"]["reason"] == HOSTILE and shown["headers"] == {"ce-type": "x"}
    once = {"Idempotency-Key": "k1"}
    done = await http.post(f"{at}/dismiss", json={"reason": "a\ntest"}, headers=once)
    assert done.status_code == 200 and done.json()["marks"][0]["by"] == "acme/ada"
    assert done.json()["marks"][0]["reason"] == "a test"
    assert (await http.post(f"{at}/dismiss", json={"reason": "a test"}, headers=once)).json() == done.json()
    again = await http.post(f"{at}/dismiss", json={"reason": "a test"})
    assert (again.status_code, again.json()["code"]) == (409, "dismissed") and "acme/ada" in again.json()["detail"]
    assert len((await http.get("/v1/dead-letters")).json()["letters"]) == 2
    assert len((await http.get("/v1/dead-letters?all=true")).json()["letters"]) == 3


async def test_another_tenant_finds_nothing(mesh, http) -> None:
    await buried(mesh, "t1")
    [row] = (await http.get("/v1/dead-letters")).json()["letters"]
    assert (await http.get("/v1/dead-letters?all=true", headers=key(FOREIGN))).json()["letters"] == []
    for method, path, body in (("GET", "", None), ("POST", "/dismiss", {"reason": "x"})):
        answer = await http.request(method, f"/v1/dead-letters/{row['id']}{path}", json=body, headers=key(FOREIGN))
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_letter") and "t1" not in answer.text
    assert (await http.get("/v1/dead-letters")).json()["letters"] == [row]


async def test_auditors_see_no_content_and_submitters_nothing_and_looks_are_on_record(mesh, http, caplog) -> None:
    await buried(mesh, "t1")
    caplog.set_level(logging.INFO, "bulkhead")
    page = await http.get("/v1/dead-letters", headers=key(AUDITOR))
    at = f"/v1/dead-letters/{page.json()['letters'][0]['id']}"
    shown = await http.get(at, headers=key(AUDITOR))
    assert not page.json()["content"] and not shown.json()["content"] and "script" not in page.text + shown.text
    assert (await http.post(f"{at}/dismiss", json={"reason": "x"}, headers=key(AUDITOR))).status_code == 403
    for path in ("/v1/dead-letters", at):
        assert (await http.get(path, headers=key(SUBMITTER))).status_code == 403
    assert "content_read" not in caplog.text
    await http.get("/v1/dead-letters")
    await http.get(at)
    told = [str(one.__dict__) for one in caplog.records if one.getMessage() == "content_read"]
    assert len(told) == 2 and all("ada" in one and "acme" in one for one in told) and at[-32:] in told[1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("?limit=101", 422),
        ("?all=1x", 422),
        ("?cursor=%21", 422),
        ("?cursor=__________8", 422),
        ("/abc", 404),
        ("/ab.cd", 404),
        ("/abcdef", 404),
    ],
)
async def test_what_does_not_fit_is_said(mesh, http, path, status) -> None:
    answer = await http.get(f"/v1/dead-letters{path}")
    assert answer.status_code == status and answer.json()["hint"]
    for body in ({}, {"reason": " "}, {"reason": "x" * 1_001}):
        assert (await http.post("/v1/dead-letters/abcdef/dismiss", json=body)).status_code == 422
