"""Where a write's values come from, through the whole mesh: from the submission by the model to the executor."""

import asyncio

import pytest

from bulkhead.grants.attribution import verified_attribution
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.provenance import Attribution
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
