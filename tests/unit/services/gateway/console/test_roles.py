"""What a role sees of what needs a person: the acts that it may do, and else who may."""

import httpx
import pytest

from bulkhead_contracts.plan import Plan, PlanDecided, PlanProposed, PlanStep
from bulkhead_contracts.task import TaskAccepted, TaskPaused
from bulkhead_contracts.tool import WriteDoubted
from bulkhead_services.gateway.console import pages
from tests.unit.services.gateway.harness import AUDITOR, AUTH, OPERATOR, SUBMITTER, Mesh

HERE = "http://gateway"
DOUBT = WriteDoubted(
    write_id="w1",
    call_id="c1",
    step_id="s1",
    tool="counter_increment",
    arguments_json='{"name": "miles"}',
    key="acme.t1.c1",
    why="the counter answered 503",
    asked_unix_ms=1_000,
    asked_for="ann",
)


async def signed_in(http: httpx.AsyncClient, key: str) -> None:
    await http.post("/login", data={"api_key": key}, headers={"Origin": HERE})


@pytest.fixture
async def console(mesh: Mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
        yield http


async def submitted(mesh: Mesh, http: httpx.AsyncClient) -> str:
    answer = await http.post(
        "/v1/tasks", json={"objective": "Award the miles"}, headers=AUTH | {"Idempotency-Key": "k"}
    )
    await mesh.pump()
    return str(answer.json()["task_id"])


async def test_an_uncertain_write_needs_a_person_in_the_overview_and_among_the_approvals(mesh: Mesh, console) -> None:
    task = await submitted(mesh, console)
    await mesh.say("tool_executor", DOUBT, task)
    await signed_in(console, OPERATOR)
    overview = (await console.get("/")).text
    assert "1 write may or may not have been done" in overview and 'href="/approvals#writes">Settle<' in overview
    listed = (await console.get("/approvals")).text
    assert "counter_increment" in listed and "the counter answered 503" in listed
    assert f'action="/tasks/{task}/writes/w1"' in listed and f'href="/tasks/{task}?at=call.c1"' in listed
    await signed_in(console, AUDITOR)
    listed = (await console.get("/approvals")).text
    assert "/writes/w1" not in listed and "Approvers and operators say whether it was done." in listed


async def test_a_role_is_offered_no_room_and_no_act_that_is_refused_to_it(mesh: Mesh, console) -> None:
    task = await submitted(mesh, console)
    await mesh.say("planner", TaskPaused(code="approval_wanted", reason="look", step_id="s1"), task)
    for key, role in ((OPERATOR, "operator"), (AUDITOR, "auditor"), (SUBMITTER, "submitter")):
        await signed_in(console, key)
        menu = {room for _, rooms in pages.rooms_of(role) for room, _, _ in rooms}
        for _, rooms in pages.ROOM_GROUPS:
            for room, name, _ in rooms:
                answer = await console.get(room)
                assert ("Your role does not allow this" in answer.text) <= (room not in menu), (role, room)
                found = await console.get("/search")
                assert (f'href="{room}"' in found.text) == (room in menu), (role, name)
        tasks = (await console.get("/tasks")).text
        assert (">Decide<" in tasks) == (role == "operator")
        assert ("for an approver or operator" in tasks) == (role != "operator")


async def test_a_drafted_plan_is_shown_with_its_buttons_to_who_may_decide(mesh: Mesh, console) -> None:
    task = await submitted(mesh, console)
    step = PlanStep(id="s1", title="Award", instruction="Award 500 miles.", tools=("counter_increment",))
    plan = Plan(steps=(step,))
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    await mesh.say("planner", PlanProposed(plan=plan, sha256=plan.steps_sha256, until_unix_ms=9_000_000), task)
    await mesh.say("planner", TaskPaused(code="plan_review", reason="the plan waits", until_unix_ms=9_000_000), task)
    await signed_in(console, AUDITOR)
    page = (await console.get(f"/tasks/{task}")).text
    assert "Award 500 miles." in page and "Approve the plan" not in page
    await signed_in(console, OPERATOR)
    page = (await console.get(f"/tasks/{task}")).text
    assert "Approve the plan" in page and plan.steps_sha256 in page
    form = {"key": "k1", "decision": "reject", "sha256": plan.steps_sha256, "reason": "too many", "redraft": "on"}
    answer = await console.post(f"/tasks/{task}/plan", data=form, headers={"Origin": HERE})
    assert "The decision is stored" in answer.text
    stored = [row for row in mesh.sent("planner") if row.headers["ce-type"].startswith("mesh.plan.decided")]
    [word] = [PlanDecided.model_validate_json(row.body) for row in stored]
    assert (word.decision, word.redraft, word.reason) == ("reject", True, "too many")
