"""Citations of an answer, at the command line: as cited, after its document was replaced, and after it was erased."""

import asyncio
import json
import sys
from typing import Any

import pytest

from bulkhead.client import Refused
from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t26"
LEAVE = "# Leave\n\nAfter five years every employee has 31 days of paid leave a year.\n"


async def cite(world: World, task: str, *words: str) -> tuple[str, Any]:
    """What `bulkhead cite` prints for people and for programs."""
    key = world.mesh.add_api_key(TENANT, "reader", "submitter")
    said = []
    for form in ((), ("--json",)):
        command = ("cite", *words, "--task", task, "--url", world.mesh.url, "--api-key", key, *form)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bulkhead_cli.main",
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        said.append(out.decode())
    return said[0], json.loads(said[1])


async def test_old_citations_resolve(world: World) -> None:
    client = world.client(TENANT)
    first = await client.add_document(LEAVE.encode(), "leave.md", "text/markdown")
    document = await world.finish(
        await world.submit(TENANT, "How many days of paid leave has an employee after five years? What is 17 * 23?")
    )
    assert document["status"] == "succeeded", document
    task = document["task_id"]
    text, whole = await cite(world, task)
    passages = [row for row in whole["citations"] if row["kind"] == "document"]
    calls = [row for row in whole["citations"] if row["kind"] == "tool_result"]
    assert passages and "31 days of paid leave" in passages[0]["text"] and passages[0]["state"] == "current"
    assert f"leave.md, characters {passages[0]['start']}" in text and "| After five years" in text
    assert calls and calls[0]["call"]["tool"] == "calculate" and "17 * 23" in calls[0]["call"]["arguments_json"]

    second = await client.add_document(LEAVE.replace("31", "33").encode(), "leave.md", "text/markdown")
    marker = passages[0]["marker"]
    text, row = await cite(world, task, f"[#{marker}]")
    assert (row["state"], row["document_sha256"], row["superseded_by"]) == (
        "superseded",
        first["sha256"],
        second["sha256"],
    )
    assert "31 days" in row["text"] and "superseded by" in text and "31 days" in text

    with pytest.raises(Refused) as refused:
        await world.client("t25").task(task).cite(marker)
    assert refused.value.status == 404

    await client.delete_document("leave.md")
    text, row = await cite(world, task, marker)
    assert (row["state"], row["text"]) == ("erased", None) and "31 days" not in text
