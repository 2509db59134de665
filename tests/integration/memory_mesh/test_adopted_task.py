"""A task that is carried out outside, through every service but doors itself: what doors says, the test says."""

import io
import re
from dataclasses import replace
from pathlib import Path

import httpx

from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import parse_history
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.testing.mesh_backend import StageOptions
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import Conversation, ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from bulkhead_contracts.task import RequesterClaim, TaskEnded, TaskLimits, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_infra.stages.memory import Memory

TENANT, TASK = "demo", "doors-1"
PLACE = {"tenant": TENANT, "task": TASK}
STEP = PlanStep(id="agent", title="bot", instruction="Hello", kind="noop", role="support_bot", adopted=True)
CLAIM = RequesterClaim(tenant=TENANT, person="ada", role="submitter", via="api_key")
QUESTION = '{"content":"What is 2 + 3?","role":"user"}'


async def opened(mesh: MemoryMesh, **limits: int) -> tuple[StepAssigned, str]:
    """The step that doors is given, and its grant."""
    request = TaskRequested(
        objective="What is 2 + 3?",
        plan=Plan(steps=(STEP,)),
        check=False,
        replan="none",
        requester=CLAIM,
        limits=TaskLimits(deadline_ms=60_000, **limits),
    )
    await mesh.context("doors").publisher.send("gateway", request, **PLACE, index="open")
    subject = subjects.mesh_subject("planner", "doors", TENANT, TASK)
    assigned = await mesh.wait_for_fact(subject, StepAssigned)
    rows = await mesh.messages("INBOX_DOORS", subject)
    [stored] = [row for row in rows if row.ce_type == StepAssigned.ce_type()]
    return assigned, envelope.parse(stored.headers).grant


async def ask(mesh: MemoryMesh, assigned: StepAssigned, grant: str, call_id: str = "c1") -> None:
    doors = mesh.context("doors")
    message = await doors.blobs.put(TENANT, QUESTION, "application/json")
    body = ModelCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        prompt_id="adopted@1",
        conversation=Conversation(messages=(message,)),
        max_output_tokens=100,
        deadline_unix_ms=assigned.deadline_unix_ms,
    )
    await doors.publisher.send("model_gateway", body, **PLACE, index=call_id, grant=grant)


async def test_an_outside_agents_run_is_paid_shown_and_ended_as_any_task(tmp_path: Path) -> None:
    stage = Memory(StageOptions(tmp_path / "mesh"))
    await stage.open()
    try:
        mesh = stage._mesh
        assigned, grant = await opened(mesh)
        await ask(mesh, assigned, grant)
        reply = await mesh.wait_for_fact(
            subjects.mesh_subject("model_gateway", "doors", TENANT, TASK), ModelCallReplied
        )
        assert reply.outcome == "answered" and reply.content is not None, reply
        place = {"step_id": "agent", "attempt": 1, "plan_version": 1}
        done = StepFinished(**place, result=Result(content=reply.content), usage=reply.usage)
        await mesh.context("doors").publisher.send("planner", done, **PLACE, index="done")
        ended = await mesh.wait_for_fact(subjects.mesh_subject("planner", "doors", TENANT, TASK), TaskEnded)
        assert ended.status == "succeeded" and ended.usage.model_calls == 1
        headers = {"Authorization": f"Bearer {stage.new_key(TENANT, 'eve', 'operator')}"}
        async with httpx.AsyncClient(base_url=stage.url, headers=headers) as http:
            shown = (await http.get(f"/v1/tasks/{TASK}")).json()
            [spent] = (await http.get("/v1/spend?by=agent")).json()["rows"]
            exported = (await http.get(f"/v1/tasks/{TASK}/export")).content
        assert (shown["kind"], shown["status"], shown["standing"]) == ("adopted", "succeeded", "ok")
        assert shown["answer"] == await mesh.context("doors").blobs.get_text(TENANT, reply.content)
        assert spent["name"] == "doors.support_bot"
        await replayed(parse_history(io.BytesIO(exported), "the gateway's export"))
    finally:
        await stage.close()


async def replayed(history: TaskHistory) -> None:
    """Of a run outside the mesh's decisions about it are compared; what the agent did is an input of them."""
    report = await replay_history(history)
    received = [one for one in history.messages if one.receiver == "planner"]
    said = [one for one in history.messages if one.sender == "planner"]
    kinds = {one.ce_type for one in said}
    assert {StepAssigned.ce_type(), TaskEnded.ce_type()} <= kinds
    assert (report.ended, report.divergences, report.decisions) == (True, [], len(received))
    assert report.compared == len(said)
    outside = [one for one in history.messages if "planner" not in (one.sender, one.receiver)]
    assert ModelCallReplied.ce_type() in {one.ce_type for one in outside} and report.unread == len(outside)
    assert {row.service for row in (await replay_history(changed(history, TaskEnded))).divergences} == {"planner"}
    assert (await replay_history(changed(history, ModelCallReplied))).divergences == []


def changed(history: TaskHistory, kind: type[Body]) -> TaskHistory:
    """Another number of output tokens in the messages of a kind."""
    rows = tuple(
        replace(one, body=re.sub(rb'"output_tokens":\d+', b'"output_tokens":9999', one.body))
        if one.ce_type == kind.ce_type()
        else one
        for one in history.messages
    )
    assert rows != history.messages
    return replace(history, messages=rows)


async def test_its_ceiling_holds_and_its_cancel_reaches_doors(tmp_path: Path) -> None:
    stage = Memory(StageOptions(tmp_path / "mesh"))
    await stage.open()
    try:
        mesh = stage._mesh
        assigned, grant = await opened(mesh, tokens=190)
        await ask(mesh, assigned, grant)
        await mesh.wait_for_fact(subjects.mesh_subject("model_gateway", "doors", TENANT, TASK), ModelCallReplied)
        await ask(mesh, assigned, grant, "c2")  # It would fit under the limit, but not beside what was spent.
        deferred = await mesh.wait_for_fact(subjects.mesh_subject("model_gateway", "doors", TENANT, TASK), CallDeferred)
        assert deferred.code == "budget_exceeded"
        headers = {"Authorization": f"Bearer {stage.new_key(TENANT, 'eve', 'operator')}"}
        async with httpx.AsyncClient(base_url=stage.url, headers=headers) as http:
            assert (await http.post(f"/v1/tasks/{TASK}/cancel", json={"reason": "enough"})).status_code == 202
        subject = subjects.mesh_subject("planner", "doors", TENANT, TASK)
        assert (await mesh.wait_for_fact(subject, StepCancelRequested)).step_id == "agent"
        assert (await mesh.wait_for_fact(subject, TaskEnded)).status == "cancelled"
    finally:
        await stage.close()
