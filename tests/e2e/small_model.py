"""A real, weak language model under the mesh: every task ends within its limits, with an answer or with a reason.

Nightly and not in CI: `make demo MODEL=smollm2` downloads the model first. What the model says is left to it.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.small_model.process import run_small_model

DEADLINE_S = 240.0
MAX_TOKENS = 60_000
HANDBOOK = "Staff have 25 days of paid leave. After five years they have 28 days. Leave is booked a week ahead."
QUESTION = "How many days of paid leave do staff have after five years?"
STEP = {"id": "answer", "title": "Answer", "instruction": QUESTION, "acceptance": "It names the number of days."}
ONE_STEP = {"steps": [{**STEP, "tools": [], "inputs": []}]}
TASKS: dict[str, dict[str, Any]] = {
    "planned": {},
    "planned-unchecked": {"check": False},
    "one-step": {"plan": ONE_STEP},
    "one-step-unchecked": {"plan": ONE_STEP, "check": False},
}


@pytest.mark.timeout(1200)
async def test_every_task_ends_within_its_limits_with_an_answer_or_a_reason(tmp_path: Path) -> None:
    (tmp_path / "handbook.txt").write_text(HANDBOOK)
    async with (
        run_small_model(tmp_path / "small-model.log") as settings,
        LocalMesh(tmp_path / "mesh", offline_model=False, environ={**os.environ, **settings}) as mesh,
        Mesh(mesh.url, mesh.credentials["submitter"]) as client,
    ):
        await client.add_document(tmp_path / "handbook.txt")

        async def one(more: dict[str, Any]) -> dict[str, Any]:
            task = await client.submit(QUESTION, deadline_s=DEADLINE_S, limit_tokens=MAX_TOKENS, **more)
            return await task.wait_until_ended(DEADLINE_S + 60)

        ended = dict(zip(TASKS, await asyncio.gather(*map(one, TASKS.values())), strict=True))
    for name, document in ended.items():
        usage = document["usage"]
        assert usage["input_tokens"] + usage["output_tokens"] <= MAX_TOKENS, (name, usage)
        if document["status"] == "succeeded":
            assert document["answer"].strip(), (name, document)
        else:
            assert document["failure"]["code"] and document["failure"]["message"], (name, document)
    assert {document["status"] for document in ended.values()} <= {"succeeded", "failed", "halted"}
