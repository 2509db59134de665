"""A submission that could only be rejected later is refused at once, as the document of the API says."""

import httpx
import pytest

from bulkhead_contracts.task import TaskRequested
from bulkhead_services.gateway.http.openapi import openapi
from tests.unit.services.gateway.harness import AUTH, FOREIGN
from tests.unit.services.gateway.http.test_tasks import problem, submit

STEP = {"id": "pay", "title": "Pay", "instruction": "Pay it."}


@pytest.mark.parametrize("acceptance", [{}, {"acceptance": ""}, {"acceptance": " \n"}])
async def test_a_step_without_acceptance_is_422_and_named(mesh, http, acceptance):
    body = problem(await submit(http, plan={"steps": [STEP | acceptance]}), 422, "invalid_body")
    assert "(step pay)" in body["detail"] and "acceptance" in body["detail"]
    assert not mesh.sent("gateway")


async def test_a_step_without_work_needs_no_acceptance(http):
    assert (await submit(http, plan={"steps": [STEP | {"kind": "noop"}]})).status_code == 202


async def test_a_slip_within_a_field_of_a_step_is_422_and_named(http):
    slipped = STEP | {"kind": "noop", "wait": {"duration": 5}}
    body = problem(await submit(http, plan={"steps": [slipped]}), 422, "invalid_body")
    assert "wait.duration is no field; there are duration_ms" in body["detail"]


def test_the_schema_gives_acceptance_no_default():
    schema = openapi()["components"]["schemas"]["PlanStepInput"]
    assert "default" not in schema["properties"]["acceptance"] and schema["else"]["required"] == ["acceptance"]


@pytest.fixture
async def limited(mesh, tmp_path):
    """A gateway that knows acme's policy, and of nobody else's."""
    policy = tmp_path / "tenants.yaml"
    policy.write_text("tenants: {acme: {tools: [calculate, search_documents]}}")
    gateway = mesh.gateway(tenants_file=policy)
    await gateway.attach_inbox()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as client:
        yield client


async def test_a_tool_that_the_policy_does_not_name_is_422(mesh, limited):
    planned = {"steps": [STEP | {"acceptance": "It is paid.", "tools": ["calculat"]}]}
    for wanted in ({"tools": ["calculat"]}, {"plan": planned}):
        body = problem(await submit(limited, **wanted), 422, "tools_not_granted")
        assert "calculat" in body["detail"] and "calculate, search_documents" in body["hint"]
        assert "did you mean calculate?" in body["hint"]
    assert not mesh.sent("gateway")
    assert (await submit(limited, tools=["calculate"])).status_code == 202


async def test_tools_are_left_to_the_signer_where_the_policy_is_not_known(limited, http):
    assert (await submit(http, tools=["calculat"])).status_code == 202
    headers = {"X-API-Key": FOREIGN, "Idempotency-Key": "k"}
    answer = await limited.post("/v1/tasks", json={"objective": "o", "tools": ["calculat"]}, headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize("objective", ["   ", "\u200b\u2003\n", "find\x00it", "find\x1b[2Jit"])
async def test_an_objective_that_nobody_can_read_is_422_and_on_the_bus_rejected(mesh, http, objective):
    body = problem(await submit(http, objective=objective), 422, "invalid_body")
    assert "objective" in body["detail"] and not mesh.sent("gateway")
    await mesh.say("pub_shop", TaskRequested(objective=objective), "pub_shop-1")
    assert not mesh.sent("planner")
    found = (await http.get("/v1/tasks/pub_shop-1", headers=AUTH)).json()
    assert found["failure"]["code"] == "unreadable_objective"


async def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(mesh, http):
    headers = AUTH | {"Content-Length": "5", "Transfer-Encoding": "chunked", "Idempotency-Key": "k"}
    answer = await http.post("/v1/tasks", headers=headers, content=b'{"objective": "x"}')
    problem(answer, 400, "ambiguous_length")
    assert answer.headers["connection"] == "close" and not mesh.sent("gateway")
