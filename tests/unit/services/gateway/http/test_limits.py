"""Limits and spending over HTTP: who may see and change them, and what a question may say."""

import hashlib
import json

import httpx
import pytest

from bulkhead_contracts.budget import LimitsRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.limits.changes import check_requester
from tests.unit.services.gateway.harness import AUDITOR, AUTH, OPERATOR

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
        {"target": "day", "limit": {"coffee": 1}},
        {"target": "tenant:bolt/../x y", "limit": {}},
        {"target": "planet/earth", "limit": {"tokens": 1}},
        {"target": "feature/", "limit": {"tokens": 1}},
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
    assert (check_requester(LimitsRequested(requester=claim), "acme") is None) is may_read
    failure = check_requester(LimitsRequested(requester=claim, target="day"), "acme")
    assert (failure is None) is may_change and (failure is None or failure.code == "forbidden")


SUBMITTER = "bk_submitter_key_of_acme"


def told(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_operators_and_auditors_see_it_and_nobody_else(http, tmp_path) -> None:
    for key in (OPERATOR, AUDITOR):
        answer = await http.get("/v1/spend", headers=told(key))
        assert answer.status_code == 200 and answer.json()["by"] == "agent" and answer.json()["rows"] == []
    assert (await http.get("/v1/spend", headers=told("bk_x"))).status_code == 401
    _also_a_submitter(tmp_path / "keys.json")
    answer = await http.get("/v1/spend", headers=told(SUBMITTER))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden") and answer.json()["hint"]
    assert (await http.get("/v1/limits", headers=told(SUBMITTER))).status_code == 200, "the key itself is good"


def _also_a_submitter(keys) -> None:
    rows = json.loads(keys.read_text())["keys"]
    rows.append(
        {
            "sha256": hashlib.sha256(SUBMITTER.encode()).hexdigest(),
            "tenant": "acme",
            "person": "sue",
            "role": "submitter",
        }
    )
    keys.write_text(json.dumps({"keys": rows}))


@pytest.mark.parametrize(
    "query",
    [
        "by=planet",
        "by=",
        "since=0h",
        "since=1",
        "since=32d",
        "since=-1h",
        "since=1h2m",
        "since=%D9%A1h",
        "limit=0",
        "limit=101",
        "tasks=t1,,t2",
        "tasks=t1.>",
        pytest.param("tasks=" + ",".join(f"t{number}" for number in range(101)), id="too many tasks"),
    ],
)
async def test_a_question_that_does_not_fit_is_refused_in_words(http, query: str) -> None:
    answer = await http.get(f"/v1/spend?{query}", headers=told(OPERATOR))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query") and answer.json()["hint"], answer.text


@pytest.mark.parametrize("by", ["agent", "step", "workflow", "feature", "user", "tenant", "model", "task"])
async def test_every_kind_can_be_asked_for(http, by: str) -> None:
    answer = await http.get("/v1/spend", params={"by": by, "since": "1h", "limit": "3"}, headers=told(OPERATOR))
    assert (answer.status_code, answer.json()["by"]) == (200, by)
