"""Why a task did what it did, for people with an API key alone: on real processes, from another machine's view."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh, Refused
from bulkhead.gateway_api.histories import StoryQuery
from tests.e2e.fixtures.world import World
from tests.eventually import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t25"
LEAVE = "# Leave\n\nAfter five years every employee has 31 days of paid leave a year.\n"
QUESTION = "How many days of paid leave has an employee after five years? What is 17 * 23?"


async def said(folder: Path, *words: str) -> str:
    """Standard output of a command in a folder where no mesh is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        *words,
        "--data",
        str(folder / "none"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_a_submitters_key_alone_tells_the_story_of_an_ended_task(world: World, tmp_path: Path) -> None:
    key = world.mesh.add_api_key(TENANT, "sue", "submitter")
    async with Mesh(world.mesh.url, key) as mesh:
        await mesh.add_document(LEAVE.encode(), "leave.md", "text/markdown")
        task = await mesh.submit(QUESTION)
        document = await task.wait_until_ended(60)
        assert document["status"] == "succeeded", document
        at = (task.id, "--url", world.mesh.url, "--api-key", key)

        async def whole() -> dict[str, Any] | None:
            """The last settlements may come after the end."""
            told = (await mesh.read_json(StoryQuery(task_id=task.id)))["story"]
            return told if told["usage"]["cost_usd_micros"] >= document["usage"]["cost_usd_micros"] else None

        story = await until(whole, "the story has every cost", 30)
        text = await said(tmp_path, "why", *at)
        calls = [call for step in story["steps"] for call in step["calls"]]
        assert any(call["kind"] == "search" and call["found"] for call in calls)
        (made,) = [call for call in calls if call["name"] == "calculate"]
        assert "17 * 23" in made["arguments"] and "391" in made["result"] and made["outcome"] == "succeeded"
        sources = {(one["kind"], one["name"]) for row in story["answer"] for one in row["sources"]}
        assert ("document", "leave.md") in sources and ("tool_result", "calculate") in sources
        assert story["plans"][0]["origin"] == "drafted" and story["asked_by"] == "sue"
        for line in ("plan 1:", "leave.md, characters", "called calculate(17 * 23)", "searched for", "asked by sue"):
            assert line in text, text
        assert len(text.splitlines()) <= 45, "an ordinary task is told on one screen"
        assert json.loads(await said(tmp_path, "why", *at, "--json"))["task_id"] == task.id

        rows = json.loads(await said(tmp_path, "timeline", *at, "--json"))["rows"]
        (asked,) = [row for row in rows if row["call"] and row["call"]["name"] == "calculate"]
        assert "17 * 23" in asked["call"]["arguments"] and asked["took_ms"] is not None
        assert "calculate(" in await said(tmp_path, "timeline", *at)
        asking = next(row["call"] for row in rows if row["call"] and row["call"]["name"] == "worker.step")
        call = (await task.call(asking["call_id"]))["call"]
        assert call["prompt_id"].startswith("worker.step@") and call["attempts"][0]["usage"]["cost_usd_micros"] > 0
        assert any(QUESTION in piece["text"] for piece in call["given"])

        # Replayed where no mesh is.
        await said(tmp_path, "export", *at, "-o", str(tmp_path / "task.jsonl"))
    replayed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_cli.main",
        "replay",
        str(tmp_path / "task.jsonl"),
        stdout=asyncio.subprocess.PIPE,
    )
    shown, _ = await replayed.communicate()
    assert replayed.returncode == 0, shown.decode()

    other = world.client("t24", "operator")
    for ask in (other.task(task.id).why(), anext(other.task(task.id).timeline())):
        with pytest.raises(Refused) as refused:
            await ask
        assert refused.value.status == 404
    watching = world.client(TENANT, "auditor")
    told = await watching.task(task.id).why()
    assert not told.content and "calculate" in told.text and "31 days" not in told.model_dump_json()
