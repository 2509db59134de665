"""Where a write's values come from, through the whole mesh: from the submission by the model to the executor."""

import asyncio

import pytest

from bulkhead.grants.attribution import verified_attribution
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.task import TaskSubmitted
from bulkhead_contracts.tool import ToolCallRequested
from tests.replay.stage import FACT_TIMEOUT_S, TENANT, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

STEP = {"id": "b", "title": "B", "instruction": "Count north-7 twice.", "acceptance": "It is done."}
WRITE = {**STEP, "tools": ["counter_increment"]}
FLOW = {"tool": "counter_increment", "argument": "/name", "step_id": "a", "from_tool": "calculate", "field": "/n"}


@pytest.fixture
async def on(tmp_path):
    async with stage(tmp_path) as found, asyncio.timeout(FACT_TIMEOUT_S):
        yield found


async def asked(on: Stage, sender: str, receiver: str, kind: type, task: str) -> list:
    stored = await on.mesh.messages(
        subjects.inbox_stream(receiver), subjects.mesh_subject(sender, receiver, TENANT, task)
    )
    found = [(catalog.decode_body(one.ce_type, one.body), one) for one in stored]
    return [row for row in found if isinstance(row[0], kind)]


async def attribution(on: Stage, task: str) -> Attribution:
    """What the executor may believe of the task's one write."""
    *reads, (request, _) = await asked(on, "worker", "tool_executor", ToolCallRequested, task)
    told = [one.tool for one, _ in reads if one.attribution is not None]
    assert set(told) <= {FLOW["from_tool"]}, "a read's values are of no consequence, but where it feeds a call"
    found = verified_attribution(request, TENANT, task, on.mesh.context("tool_executor").verifier)
    assert found is not None
    assert verified_attribution(request, TENANT, "t9", on.mesh.context("tool_executor").verifier) is None
    return found


def sources(said: Attribution) -> dict[str, set[str]]:
    return {value.text: {one.source for one in value.origins} for value in said.values}


async def test_a_value_of_the_objective_or_of_a_submitted_step_is_the_users(on):
    uses = [use(call("counter_increment", name="north-7")), says("It is counted.")]
    on.model.will(plan({"id": "b", "tools": ["counter_increment"]}), b=list(uses))
    drafted = await on.run("Count north-7.")
    assert drafted["status"] == "succeeded"
    assert sources(await attribution(on, drafted["task_id"]))["north-7"] == {"user"}
    on.model.will(b=list(uses))
    planned = await on.run("Do it.", plan={"steps": [WRITE]})
    assert sources(await attribution(on, planned["task_id"]))["north-7"] == {"user"}
    report = await replay_history(await on.history(planned["task_id"]))
    assert report.divergences == [] and report.ended


async def test_what_a_model_wrote_into_a_plan_is_not_the_users(on):
    uses = [use(call("counter_increment", name="evil-7")), says("It is counted.")]
    on.model.will(plan({"id": "b", "instruction": "Count evil-7.", "tools": ["counter_increment"]}), b=uses)
    ended = await on.run("Count it.")
    assert sources(await attribution(on, ended["task_id"]))["evil-7"] == {"model"}


async def test_what_a_tool_said_to_an_earlier_step_is_known_as_its_word(on):
    rows = [{**STEP, "id": "a", "tools": ["calculate"]}, {**WRITE, "inputs": ["a"], "flows": [{**FLOW, "field": ""}]}]
    on.model.will(
        a=[use(call("calculate", expression="40 + 2")), says("It is n-42.")],
        b=[use(call("counter_increment", name="42")), says("It is counted.")],
    )
    ended = await on.run("Do it.", plan={"steps": rows}, check=False)
    said = await attribution(on, ended["task_id"])
    origins = next(value for value in said.values if value.text == "42").origins
    assert ("tool", "calculate", "a") in {(one.source, one.name, one.call_id) for one in origins}


async def test_the_step_grant_carries_the_flows_of_the_plan(on):
    rows = [{**STEP, "id": "a"}, {**WRITE, "inputs": ["a"], "flows": [FLOW]}]
    on.model.will(a=[says("Done.")], b=[use(call("counter_increment", name="x")), says("It is counted.")])
    ended = await on.run("Do it.", plan={"steps": rows})
    ((_, stored),) = await asked(on, "worker", "tool_executor", ToolCallRequested, ended["task_id"])
    verifier = on.mesh.context("tool_executor").verifier
    token = stored.headers["bulkhead-grant"]
    authority = verifier.verify_authority(token, tenant=TENANT, task=ended["task_id"], now_unix_ms=stored.time_unix_ms)
    assert authority.step is not None and [one.model_dump() for one in authority.step.flows] == [FLOW]


async def test_the_labels_of_a_submission_are_signed_for_its_task(on):
    on.model.will(b=[use(call("counter_increment", name="x")), says("It is counted.")])
    ended = await on.run("Do it.", plan={"steps": [WRITE]})
    task = ended["task_id"]
    ((submitted, _),) = await asked(on, "gateway", "planner", TaskSubmitted, task)
    verifier = on.mesh.context("model_gateway").verifier
    assert [one.source for one in submitted.labels] == ["", "plan step b"]
    for label in submitted.labels:
        assert (label.kind, label.trust, label.observed_by) == ("objective", "user", "gateway")
        assert verifier.verify_label(label, TENANT, task) and not verifier.verify_label(label, TENANT, "t9")
