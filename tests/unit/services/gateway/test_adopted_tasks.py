"""Tasks of outside agents: doors opens them, nobody else does, and doors opens nothing else."""

from typing import Any

import httpx
import pytest

from bulkhead_contracts.grant import GrantReplied
from bulkhead_contracts.output import InputPolicy, OutputPolicy
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import ForkOf, RequesterClaim, TaskEnded, TaskRejected, TaskRequested, TaskSubmitted
from tests.unit.services.gateway.harness import AUTH, Mesh, make_mesh

ADOPTED = PlanStep(id="agent", title="bot", instruction="Hello", kind="noop", role="support_bot", adopted=True)
CLAIM = RequesterClaim(tenant="acme", person="ada", role="submitter", via="api_key")
TASK = "doors-1"


def request(*steps: PlanStep, **changes) -> TaskRequested:
    asked = {"objective": "Hello", "check": False, "replan": "none", "requester": CLAIM}
    return TaskRequested(**{**asked, "plan": Plan(steps=steps or (ADOPTED,)), **changes})


def told(mesh: Mesh, to: str) -> list[tuple[str, str]]:
    """Types and codes of what doors and gateway are told about the task."""
    rows = [stored for stored in mesh.sent(to) if stored.subject.startswith("mesh.gateway.")]
    kinds = {f"{kind.TYPE}.v1": kind for kind in (TaskRejected, TaskEnded, TaskSubmitted)}
    bodies = [kinds[row.ce_type].model_validate_json(row.body) for row in rows if row.ce_type in kinds]
    return [(type(body).__name__, getattr(body, "code", "")) for body in bodies]


async def test_doors_opens_one_in_the_name_of_who_calls_it(mesh: Mesh) -> None:
    await mesh.say("doors", request(), TASK)
    [stored] = mesh.sent("planner")
    submitted = TaskSubmitted.model_validate_json(stored.body)
    assert submitted.plan == Plan(steps=(ADOPTED,)) and {label.trust for label in submitted.labels} == {"untrusted"}
    [asked] = mesh.bus.asked
    assert asked.requester == CLAIM and asked.worker_roles == () and asked.plan_tools == ()
    assert not asked.drafted, "an agent's run has no plan whose model could choose a role"


async def test_the_tools_of_its_step_are_asked_of_the_signer(mesh: Mesh) -> None:
    step = ADOPTED.model_copy(update={"tools": ("calculate", "counter_increment")})
    await mesh.say("doors", request(step), TASK)
    [stored] = mesh.sent("planner")
    assert TaskSubmitted.model_validate_json(stored.body).plan == Plan(steps=(step,))
    [asked] = mesh.bus.asked
    assert asked.tools == () and asked.plan_tools == ("calculate", "counter_increment")


async def test_it_is_shown_and_listed_as_adopted_with_who_asked(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.say("doors", request(), TASK)
    shown = (await http.get(f"/v1/tasks/{TASK}", headers=AUTH)).json()
    assert (shown["kind"], shown["requester"]["person"]) == ("adopted", "ada")
    [row] = (await http.get("/v1/tasks", headers=AUTH)).json()["tasks"]
    assert (row["task_id"], row["kind"], row["person"]) == (TASK, "adopted", "ada")


async def test_those_that_doors_opened_are_listed_alone(mesh: Mesh, http: httpx.AsyncClient) -> None:
    await mesh.say("doors", request(), TASK)
    await mesh.say("pub_shop", TaskRequested(objective="What is refunded?"), "pub_shop-1")
    await mesh.say("doors", request(), "doors-2")
    page = (await http.get("/v1/tasks?opened_by=doors&limit=1", headers=AUTH)).json()
    assert [row["task_id"] for row in page["tasks"]] == ["doors-2"]
    rest = (await http.get(f"/v1/tasks?opened_by=doors&cursor={page['next']}", headers=AUTH)).json()
    assert [row["task_id"] for row in rest["tasks"]] == [TASK] and rest["next"] is None
    refused = await http.get("/v1/tasks?opened_by=nobody", headers=AUTH)
    assert refused.status_code == 422 and "opened_by" in refused.json()["title"]


@pytest.mark.parametrize("sender", ["gateway", "pub_shop"])
async def test_nobody_else_asks_for_an_adopted_step(mesh: Mesh, sender: str) -> None:
    task = "t1" if sender == "gateway" else "pub_shop-1"
    await mesh.say(sender, request(), task)
    assert told(mesh, "gateway") == [("TaskRejected", "forbidden")] and not mesh.sent("planner")
    assert not mesh.sent("doors")


@pytest.mark.parametrize("sender", ["gateway", "pub_shop"])
async def test_nobody_else_opens_a_task_of_such_an_id(mesh: Mesh, sender: str) -> None:
    await mesh.say(sender, request(PlanStep(id="a", title="", instruction="x", acceptance="y")), TASK)
    assert not mesh.sent("planner")


STEP = {"id": "agent", "title": "", "instruction": "x"}
BEYOND = {
    "a plan that the mesh carries out": request(PlanStep(**STEP, acceptance="y")),
    "a plan of the model's": request(plan=None),
    "two steps": request(ADOPTED, ADOPTED.model_copy(update={"id": "second"})),
    "a tool of the task": request(tools=("calculate",)),
    "a check": request(check=True),
    "another plan after it": request(replan="same_tools"),
    "a fork": request(fork=ForkOf(task="t1")),
    "a step that a model works on": request(PlanStep(**STEP, acceptance="y", adopted=True)),
}


@pytest.mark.parametrize("name", BEYOND)
async def test_doors_asks_for_nothing_else(mesh: Mesh, name: str) -> None:
    await mesh.say("doors", BEYOND[name], TASK)
    assert told(mesh, "doors") == told(mesh, "gateway") == [("TaskRejected", "forbidden")]
    assert not mesh.sent("planner")


async def test_doors_opens_no_task_under_another_id_or_for_another_tenant(mesh: Mesh) -> None:
    await mesh.say("doors", request(), "t1")
    assert told(mesh, "doors") == [("TaskRejected", "foreign_id")]
    await mesh.say("doors", request(), TASK, tenant="other")
    assert told(mesh, "doors")[1:] == [("TaskRejected", "no_requester")] and not mesh.sent("planner")


@pytest.mark.parametrize(
    "rules",
    [
        {"output": OutputPolicy(delivery="held")},
        {"output": OutputPolicy(personal_data="mask")},
        {"input": InputPolicy(forbidden=("project x",))},
    ],
)
async def test_a_tenant_with_rules_for_what_is_said_has_none(mesh: Mesh, rules: dict[str, Any]) -> None:
    mesh.bus.refusal = GrantReplied(granted=True, token="t", **rules)
    await mesh.say("doors", request(), TASK)
    assert told(mesh, "doors") == [("TaskRejected", "check_needed")] and not mesh.sent("planner")


async def test_doors_hears_of_the_end_of_a_task_that_waited_in_vain(tmp_path) -> None:
    mesh = make_mesh(tmp_path)
    gateway = mesh.gateway(running_tasks=0)
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as client:
        await mesh.say("doors", request(), TASK)
        assert (await client.post(f"/v1/tasks/{TASK}/cancel", json={"reason": "enough"})).status_code == 202
        await mesh.pump()
    assert told(mesh, "doors") == [("TaskEnded", "")] and not mesh.sent("planner")
