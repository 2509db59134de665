"""The room of dead letters over the whole mesh in one process: content as text, dismissal by form, what others see."""

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from bulkhead_cli.main import app
from bulkhead_contracts import envelope, subjects
from tests.eventually import until
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, OPERATOR, TENANT, Stage, stage

HOSTILE = "<script>alert(1)</script>"


async def buried(on: Stage) -> list[Any]:
    """A message that the worker cannot read, among the dead letters."""
    head = {
        "ce-specversion": "1.0",
        "ce-id": envelope.derive_id("planner", "", 1),
        "ce-type": "mesh.step.assigned.v1",
        "ce-source": "planner",
        "ce-time": "2026-01-01T00:00:00Z",
        "x-hostile": HOSTILE,
    }
    at = subjects.mesh_subject("planner", "worker", TENANT, "t1")
    await on.mesh.context("planner").bus.publish(at, HOSTILE.encode(), head, "m1")
    found: list[Any] = []

    async def letters() -> bool:
        found[:] = await on.mesh.messages(subjects.DEAD_LETTERS_STREAM)
        return bool(found)

    await until(letters)
    return found


def command(on: Stage, key: str, *words: str) -> Any:
    """What `bulkhead dead-letters` of another machine prints as JSON."""
    options = ["--url", on.url, "--api-key", key, "--json"]
    done = CliRunner().invoke(app, ["dead-letters", *words, *options], env={"BULKHEAD_DATA": "/nowhere"})
    return json.loads(done.stdout or done.stderr)


async def test_a_command_line_elsewhere_lists_shows_and_dismisses(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        [letter] = await buried(on)
        name = letter.headers["bulkhead-dead-id"]
        [row] = (await asyncio.to_thread(command, on, OPERATOR))["letters"]
        assert (row["id"], row["marks"], row["task"]) == (name, [], "t1")
        shown = await asyncio.to_thread(command, on, OPERATOR, "show", name[:8])
        assert shown["body"] == HOSTILE and shown["headers"]["x-hostile"] == HOSTILE
        refused = await asyncio.to_thread(command, on, APPROVER)
        assert refused["error"]["code"] == "forbidden"
        done = await asyncio.to_thread(command, on, OPERATOR, "dismiss", name[:8], "--reason", "seen")
        assert [(mark["what"], mark["by"], mark["reason"]) for mark in done["marks"]] == [
            ("dismissed", "demo/olga", "seen")
        ]
        listed = await asyncio.to_thread(command, on, OPERATOR)
        assert listed == {"letters": [], "content": True, "next": None}
        assert (await asyncio.to_thread(command, on, OPERATOR, "--all"))["letters"] == [done]


async def test_an_operator_reads_a_letter_as_text_and_dismisses_it_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        assert "No dead letter is open" in (await client.get("/dead-letters")).text
        [letter] = await buried(on)
        name = letter.headers["bulkhead-dead-id"]
        listed = (await client.get("/dead-letters")).text
        assert f"/dead-letters/{name}" in listed and "worker" in listed and "/tasks/t1" in listed
        page = (await client.get(f"/dead-letters/{name}")).text
        assert page.count("&lt;script&gt;") == 2 and HOSTILE not in page, "a header and the body"
        assert f"bulkhead dead-letters redrive {name[:12]}" in page
        given = form(page, f'action="/dead-letters/{name}"') | {"reason": HOSTILE}
        for _ in range(2):  # A form that is sent twice.
            done = await client.post(f"/dead-letters/{name}", data=given)
            assert done.status_code == 200 and "dismissed by demo/olga" in done.text and HOSTILE not in done.text
        assert len(await on.mesh.messages(subjects.DEAD_LETTERS_STREAM)) == 2, "one letter, one mark"
        assert "No dead letter is open" in (await client.get("/dead-letters")).text
        assert f"/dead-letters/{name}" in (await client.get("/dead-letters?all=true")).text
        assert "There is no such page" not in (await client.get("/dead-letters/ffffffff")).text
