"""Calls and questions of a plan over a real broker, under the rights that the policy renders: the worker reads what a
call is made of and stores what a search found, the executor reads where values come from."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh
from bulkhead_infra.local.supervisor import LocalMesh
from tests.counter_server import CounterServer

SERVICES = ("signer", "budget", "gateway", "planner", "worker", "rag", "tool_executor")
"""No model among them, and no checker."""


def call_step(name: str, tool: str, arguments: dict[str, Any], *inputs: str) -> dict[str, Any]:
    call = {"tool": tool, "arguments_json": json.dumps(arguments)}
    return {"id": name, "title": name, "instruction": "", "kind": "noop", "inputs": inputs, "call": call}


@pytest.mark.slow
async def test_a_plan_reads_asks_and_writes_with_no_model_in_the_mesh(tmp_path: Path) -> None:
    question = {"text": "Count it?"}
    asks = {"id": "ask", "title": "Ask", "instruction": "", "kind": "noop", "inputs": ["find"], "question": question}
    own_plan = {
        "steps": [
            call_step("sum", "calculate", {"expression": "1 + 1"}),
            call_step("find", "search_documents", {"query": {"$from": "sum"}}, "sum"),
            asks,
            call_step("count", "counter_increment", {"name": "kept", "amount": 2}, "ask"),
        ]
    }
    with CounterServer() as counter:
        env = {name: {"BULKHEAD_COUNTER_URL": counter.url} for name in ("signer", "tool_executor")}
        options: dict[str, Any] = {"services": SERVICES, "durability": "process", "extra_env": env}
        async with LocalMesh(tmp_path, **options) as mesh:
            ann, bob = (mesh.add_api_key("demo", *who) for who in (("ann", "submitter"), ("bob", "approver")))
            async with Mesh(mesh.url, ann) as asker, Mesh(mesh.url, bob) as approver:
                task = await asker.submit("Count it.", plan=own_plan)
                async with asyncio.timeout(60):
                    while not (rows := (await approver.approvals()).approvals):
                        await asyncio.sleep(0.1)
                assert "find: " in rows[0].request.preview and rows[0].question is not None
                await approver.grant(rows[0], "it is due")
                document = await task.wait_until_ended(60)
                assert (document["status"], document["standing"]) == ("succeeded", "ok"), document["failure"]
                assert [row.request.tool for row in (await approver.approvals("all")).approvals] == ["ask_person"]
        assert counter.counts()["counts"] == {"kept": 2}
