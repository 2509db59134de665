"""Claude Code and Codex in longer sessions: a file, a command, an edit, a picture and a PDF, at a provider of their own
API and at one of another.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.answer_set.documents import pdf
from tests.e2e.clients import mesh as names
from tests.e2e.clients.answers import Call, Turn
from tests.e2e.clients.conversation import Api, SeenRequest
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.page import Setup, read_setups
from tests.e2e.clients.programs import Programs

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("packages"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

DONE, COMMAND, TOLD = "All of it is done.", "echo shell-$((40+2))", "shell-42"
SETUPS = {setup.program: setup for setup in read_setups()}
OWN_MODELS = {"Claude Code": "claude-sonnet-4-5", "Codex": "gpt-5.5"}
"""Models that the page names for them."""


def png(width: int, height: int) -> bytes:
    """A red picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def script_of(program: str, work: Path, *, freeform: bool) -> list[Call]:
    """Calls of one session. freeform: its tool for patches takes free text."""
    notes, picture, document = (str(work / name) for name in ("notes.txt", "picture.png", "paper.pdf"))
    if program == "Claude Code":
        return [
            Call("Read", {"file_path": notes}),
            Call("Bash", {"command": COMMAND, "description": "Add"}),
            Call("Read", {"file_path": picture}),
            Call("Edit", {"file_path": notes, "old_string": "alpha", "new_string": "omega"}),
            Call("Read", {"file_path": document}),
        ]
    patch = f"*** Begin Patch\n*** Update File: {notes}\n@@\n-alpha\n+omega\n*** End Patch\n"
    return [
        Call("exec_command", {"cmd": f"cat {notes}"}),
        Call("exec_command", {"cmd": COMMAND}),
        Call("view_image", {"path": picture}),
        Call("apply_patch", patch if freeform else {"input": patch}),
    ]


async def play(
    mesh: ClientMesh, programs: Programs, setup: Setup, model: str, *, freeform: bool
) -> Sequence[SeenRequest]:
    """One session, checked for what it did. Returns what the provider saw."""
    marker = f"{setup.program.replace(' ', '-')}-{model}".lower()
    work, key = programs.make_workplace(f"pictures-{marker}", {"notes.txt": "alpha\nbeta\n"}), mesh.make_key(marker)
    (work / "picture.png").write_bytes(png(64, 48))
    (work / "paper.pdf").write_bytes(pdf(["Kilns fire clay."]))
    calls = script_of(setup.program, work, freeform=freeform)
    mesh.provider.play(marker, *(Turn("On it.", (call,)) for call in calls), Turn(DONE))
    shell = setup.shell.replace(OWN_MODELS[setup.program], model).replace("acceptEdits", "bypassPermissions")
    filled = Setup(setup.program, setup.api, shell).fill_in(mesh.local.doors_url, key, marker)
    ended = await programs.run(work, "bash", "-ec", filled, IS_SANDBOX="1")
    assert ended.code == 0 and DONE in ended.output, ended.output
    assert (work / "notes.txt").read_text() == "omega\nbeta\n", ended.output
    assert not mesh.provider.faults
    seen = mesh.provider.requests_of(marker)
    assert len(seen) == len(calls) + 1 == len(seen[-1].results) + 1, ended.output
    assert "alpha" in seen[-1].results[0] and TOLD in seen[-1].results[1], seen[-1].results
    return seen


def has_picture(request: SeenRequest) -> bool:
    return any(image.startswith("data:image/png;base64,") for image in request.images)


def blocks_of(body: Any, kind: str) -> list[Any]:
    """Objects of a type, wherever they stand."""
    if isinstance(body, dict):
        found = [body] if body.get("type") == kind else []
        return found + [row for value in body.values() for row in blocks_of(value, kind)]
    return [row for value in body for row in blocks_of(value, kind)] if isinstance(body, list) else []


async def test_claude_code_shows_its_own_api_pictures_and_pdfs(mesh: ClientMesh, programs: Programs) -> None:
    seen = await play(mesh, programs, SETUPS["Claude Code"], names.ANTHROPIC, freeform=False)
    body = seen[-1].body
    assert seen[-1].api == "anthropic" and has_picture(seen[-1])
    [document] = blocks_of(body["messages"], "document")
    assert base64.b64decode(document["source"]["data"]).startswith(b"%PDF-")
    assert body["context_management"]["edits"] and body["thinking"]["type"] == "enabled"
    assert blocks_of(body, "ephemeral"), "its marks for the cache pass"


async def test_codex_shows_its_own_api_pictures_and_tools_of_free_text(mesh: ClientMesh, programs: Programs) -> None:
    seen = await play(mesh, programs, SETUPS["Codex"], "gpt-5.5", freeform=True)
    body = seen[-1].body
    assert seen[-1].api == "openai-responses" and has_picture(seen[-1])
    assert blocks_of(body["tools"], "custom") and blocks_of(body["tools"], "tool_search")
    assert not blocks_of(body["tools"], "web_search"), "it has no price here"
    assert blocks_of(body["input"], "custom_tool_call") and body["text"] == {"verbosity": "low"}


@pytest.mark.parametrize(("program", "model", "api"), [("Claude Code", names.CHAT, "openai-chat")])
async def test_pictures_are_shown_in_another_api(
    mesh: ClientMesh, programs: Programs, program: str, model: str, api: Api
) -> None:
    seen = await play(mesh, programs, SETUPS[program], model, freeform=False)
    assert seen[-1].api == api and has_picture(seen[-1])
