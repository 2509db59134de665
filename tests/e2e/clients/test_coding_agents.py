"""Coding agents as people install them: each reads a file, edits it and says so, in one run of the mesh.

The script knows a program's tools by name; whether it has them, its own words and its history tell.
"""

import json
from pathlib import Path

import pytest

from tests.e2e.clients import mesh as names
from tests.e2e.clients.answers import Call, Turn
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.programs import Ended, Programs

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOTES = {"notes.txt": "The kiln fires at 1180 degrees.\n"}
EDITED = "The kiln fires at 1210 degrees.\n"
DONE = "The notes say 1210 degrees now."
TASK = "{marker}: correct 1180 to 1210 in notes.txt."


def check_session(mesh: ClientMesh, marker: str, work: Path, ended: Ended, api: str) -> None:
    """The file is edited, the program told the last words, and the provider saw every result of a tool."""
    assert ended.code == 0 and DONE in ended.output, ended.output
    assert (work / "notes.txt").read_text() == EDITED, ended.output
    assert not mesh.provider.faults
    seen = mesh.provider.requests_of(marker)
    assert [request.api for request in seen] == [api] * 3, seen
    assert "1180" in seen[1].results[0] and len(seen[2].results) == 2, seen[2].results


@pytest.mark.parametrize(
    ("model", "api", "package"),
    [(names.CHAT, "openai-chat", "@ai-sdk/openai-compatible"), (names.ANTHROPIC, "anthropic", "@ai-sdk/anthropic")],
)
async def test_opencode(mesh: ClientMesh, programs: Programs, model: str, api: str, package: str) -> None:
    marker = f"opencode-{api}"
    work, key = programs.make_workplace(marker, NOTES), mesh.make_key(marker)
    path = str(work / "notes.txt")
    edit = {"filePath": path, "oldString": "1180", "newString": "1210"}
    mesh.provider.play(
        marker, Turn(calls=(Call("read", {"filePath": path}),)), Turn(calls=(Call("edit", edit),)), Turn(DONE)
    )
    url = mesh.openai_url if api == "openai-chat" else f"{mesh.anthropic_url}/v1"
    provider = {"npm": package, "options": {"baseURL": url, "apiKey": key}, "models": {model: {}}}
    (work / "opencode.json").write_text(json.dumps({"provider": {"bulkhead": provider}}))
    ended = await programs.run(
        work, programs.of_npm("opencode"), "run", "-m", f"bulkhead/{model}", TASK.format(marker=marker)
    )
    check_session(mesh, marker, work, ended, api)
