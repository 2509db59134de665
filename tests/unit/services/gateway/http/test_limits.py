"""Limits over HTTP: who may change them, and that budget judges again whoever the gateway says it is."""

import httpx
import pytest

from bulkhead_contracts.budget import LimitsRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.limits.changes import refused
from tests.unit.services.gateway.harness import AUDITOR, AUTH

CHANGE = {"target": "day", "limit": {"cost_usd_micros": 1_000}}


@pytest.fixture
async def http(mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as client:
        yield client


async def test_who_is_no_operator_changes_nothing(http) -> None:
    answer = await http.put("/v1/limits", json=CHANGE, headers={"Authorization": f"Bearer {AUDITOR}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden") and answer.json()["hint"]
    for method in ("GET", "PUT"):
        assert (await http.request(method, "/v1/limits", headers={"Authorization": "Bearer bk_x"})).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"target": "day", "limit": {"cost_usd_micros": -1}},
        {"target": "day", "limit": {"cost_usd_micros": "1"}},
        {"target": "day", "limit": {"cost_usd_micros": 10**30}},
        {"target": "tenant:bolt/../x y", "limit": {}},
        CHANGE | {"tenant": "bolt"},
        CHANGE | {"requester": {"tenant": "bolt", "person": "eve", "role": "operator"}},
    ],
)
async def test_a_change_that_does_not_fit_or_speaks_of_others_is_refused(http, body) -> None:
    answer = await http.put("/v1/limits", json=body)
    assert answer.status_code == 422 and answer.json()["hint"], answer.text


async def test_a_top_up_is_repeated_under_its_key_and_another_one_is_refused_there(http) -> None:
    key = {"Idempotency-Key": "k1"}
    task = (await http.post("/v1/tasks", json={"objective": "Find it out."}, headers=key)).json()["task_id"]
    route, body = f"/v1/tasks/{task}/topup", {"add": {"model_calls": 7}, "reason": "worth it"}
    first, again = [await http.post(route, json=body, headers=key) for _ in range(2)]
    assert (first.status_code, first.json()["added"]["model_calls"]) == (200, 7) and again.json() == first.json()
    other = await http.post(route, json=body | {"add": {"model_calls": 9}}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_reused"), other.text
    assert (await http.post(route, json=body)).json()["added"]["model_calls"] == 14, "no key: it counts anew"


@pytest.mark.parametrize(
    ("tenant", "role", "may_read", "may_change"),
    [
        ("acme", "operator", True, True),
        ("acme", "submitter", True, False),
        ("acme", "auditor", True, False),
        ("bolt", "operator", False, False),
    ],
)
def test_budget_judges_again(tenant, role, may_read, may_change) -> None:
    claim = RequesterClaim(tenant=tenant, person="eve", role=role, via="api_key")
    assert (refused(LimitsRequested(requester=claim), "acme") is None) is may_read
    failure = refused(LimitsRequested(requester=claim, target="day"), "acme")
    assert (failure is None) is may_change and (failure is None or failure.code == "forbidden")
