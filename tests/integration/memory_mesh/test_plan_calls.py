"""Steps whose plan makes the call, or asks a person: the whole mesh, the policy's real files, and no model at all."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh, Refused
from bulkhead.gateway_api.approvals import ApprovalDocument
from bulkhead_contracts import catalog
from bulkhead_contracts.tool import ToolCallReplied
from tests.integration.memory_mesh.test_tool_policies import policies
from tests.replay.stage import APPROVER, OPERATOR, TENANT, Stage, stage


def counting(step: str, **call: Any) -> dict[str, Any]:
    return {
        "id": step,
        "title": step,
        "instruction": "",
        "kind": "noop",
        "call": {"tool": "counter_increment", "arguments_json": call.pop("json")},
        **call,
    }


RELEASE = {
    "id": "release",
    "title": "Release",
    "instruction": "",
    "kind": "noop",
    "inputs": ["sum"],
    "question": {"text": "Count it?", "roles": ["operator"]},
}
SUM = {
    "id": "sum",
    "title": "Sum",
    "instruction": "",
    "kind": "noop",
    "call": {"tool": "calculate", "arguments_json": '{"expression": "1 + 1"}'},
}


async def waiting(mesh: Mesh) -> ApprovalDocument:
    async with asyncio.timeout(20):
        while not (rows := (await mesh.approvals()).approvals):
            await asyncio.sleep(0.02)
    [row] = rows
    return row


async def replies(on: Stage, task: str) -> list[ToolCallReplied]:
    stored = await on.mesh.messages("INBOX_WORKER", f"mesh.tool_executor.worker.*.{TENANT}.{task}.*")
    bodies = [catalog.decode_body(message.ce_type, message.body) for message in stored]
    return [body for body in bodies if isinstance(body, ToolCallReplied)]


@pytest.mark.slow
async def test_a_plan_calls_asks_and_writes_without_a_model(tmp_path: Path) -> None:
    own_plan = {"steps": [SUM, RELEASE, counting("count", json='{"name": "kept", "amount": 2}', inputs=["release"])]}
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, on.client() as ann:
        task = await ann.submit("Count it.", plan=own_plan)
        async with on.client(APPROVER) as bob:
            row = await waiting(bob)
            assert row.request.preview.splitlines()[0] == "ask_person" and row.question is not None
            assert row.question.text == "Count it?" and row.question.results
            assert "sum: 1 + 1 = 2" in row.request.preview and row.request.roles == ("operator",)
            with pytest.raises(Refused) as refused:
                await bob.grant(row, "I may not")
            assert str(refused.value) == "the role approver may not decide about this question"
            await on.restart("tool_executor", "worker", "planner")
        async with on.client(OPERATOR) as olga:
            await olga.grant(row, "it is due")
        document = await task.wait_until_ended(30)
        assert (document["status"], document["standing"]) == ("succeeded", "ok"), document
        calls = await replies(on, task.id)
        assert on.model.asked == [] and on.counter.counts()["counts"] == {"kept": 2}
    assert [(reply.rule, bool(reply.approval_id)) for reply in calls] == [
        ("default:reads", False),
        ("default:writes", True),
        ("demo:small_counts", False),
    ], "the asker wrote the arguments of the write himself"


@pytest.mark.slow
async def test_a_value_that_nobody_vouches_for_is_asked_about(tmp_path: Path) -> None:
    argument = '{"name": {"$from": "word"}, "amount": 2}'
    word = {"id": "word", "title": "Word", "instruction": "kept", "kind": "noop"}
    own_plan = {"steps": [word, counting("count", json=argument, inputs=["word"])]}
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, on.client() as ann:
        task = await ann.submit("Count it.", plan=own_plan)
        async with on.client(APPROVER) as bob:
            row = await waiting(bob)
            assert row.request.why[0].startswith("/name") or "kept" in row.request.why[0], row.request.why
            assert row.request.arguments_json == '{"amount":2,"name":"kept"}'
            await bob.deny(row, "not this name")
        document = await task.wait_until_ended(30)
        assert document["status"] == "failed" and on.counter.counts()["increments"] == 0
        assert document["failure"]["code"] == "approval_denied" and "not this name" in document["failure"]["message"]
        assert [reply.outcome for reply in await replies(on, task.id)] == ["refused"], "asked once"


@pytest.mark.slow
async def test_a_question_that_nobody_answers_ends_the_task(tmp_path: Path) -> None:
    question = {**RELEASE, "inputs": [], "question": {"text": "Now?", "expires_ms": 50}}
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, on.client() as ann:
        task = await ann.submit("Ask.", plan={"steps": [question]})
        document = await task.wait_until_ended(30)
    assert (document["status"], document["failure"]["code"]) == ("failed", "approval_expired")
