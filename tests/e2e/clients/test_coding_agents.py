"""Coding agents as people install them and as the page on them tells: each reads a file, edits it and says so.

The script knows a program's tools by name; whether a program used them, its file and its history tell.
"""

from collections.abc import Callable

import pytest

from tests.e2e.clients.answers import Call, Turn
from tests.e2e.clients.clients_table import ClientRow, check_row
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.page import Setup, read_setups
from tests.e2e.clients.programs import Programs, pinned_versions

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("packages"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

BEFORE, AFTER = "The kiln fires at 1180 degrees.", "The kiln fires at 1210 degrees."
PATCH = "*** Begin Patch\n*** Update File: {}\n@@\n-{}\n+{}\n*** End Patch"
DONE = "The notes say 1210 degrees now."
SETUPS = read_setups()
PACKAGES = {name: f"`{package}` {version}" for name, (package, version) in pinned_versions().items()}
Script = Callable[[str], tuple[Turn, ...]]
"""Turns of a session, by the path of the file."""


def _script(read: Callable[[str], Call], edit: Callable[[str], Call]) -> Script:
    return lambda path: (Turn(calls=(read(path),)), Turn("Found it.", (edit(path),)), Turn(DONE))


def _aider(path: str) -> tuple[Turn, ...]:
    """No tools: an edit is a block of text, and one that does not fit is told to the model."""
    blocks = [
        f"notes.txt\n```text\n<<<<<<< SEARCH\n{old}\n=======\n{AFTER}\n>>>>>>> REPLACE\n```\n" for old in ("x", BEFORE)
    ]
    return Turn(blocks[0]), Turn(blocks[1] + DONE)


SCRIPTS: dict[str, Script] = {
    "Claude Code": _script(
        lambda path: Call("Read", {"file_path": path}),
        lambda path: Call("Edit", {"file_path": path, "old_string": BEFORE, "new_string": AFTER}),
    ),
    "Codex": _script(
        lambda path: Call("exec_command", {"cmd": f"cat {path}"}),
        lambda path: Call("apply_patch", PATCH.format(path, BEFORE, AFTER)),
    ),
    "opencode": _script(
        lambda path: Call("read", {"filePath": path}),
        lambda path: Call("edit", {"filePath": path, "oldString": BEFORE, "newString": AFTER}),
    ),
    # It edits with another tool where the model's name is one of GPT-5's.
    "opencode-openai-responses": _script(
        lambda path: Call("read", {"filePath": path}),
        lambda path: Call("apply_patch", {"patchText": PATCH.format(path, BEFORE, AFTER)}),
    ),
    "qwen-code": _script(
        lambda path: Call("read_file", {"file_path": path}),
        lambda path: Call("edit", {"file_path": path, "old_string": BEFORE, "new_string": AFTER}),
    ),
    "aider": _aider,
    "cline": _script(
        lambda path: Call("read_files", {"files": [{"path": path}]}),
        lambda path: Call("apply_patch", {"input": PATCH.format(path, BEFORE, AFTER)}),
    ),
}


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: f"{setup.program}-{setup.api}")
async def test_a_coding_agent_holds_a_session_with_tools(mesh: ClientMesh, programs: Programs, setup: Setup) -> None:
    marker = f"{setup.program}-{setup.api}".replace(" ", "-")
    work, key = programs.make_workplace(marker, {"notes.txt": f"{BEFORE}\n"}), mesh.make_key(marker)
    script = SCRIPTS.get(marker, SCRIPTS.get(setup.program))
    assert script is not None, f"no script for {setup.program}"
    turns = script(str(work / "notes.txt"))
    mesh.provider.play(marker, *turns)
    calls, tokens = mesh.provider.calls, mesh.provider.tokens
    ended = await programs.run(work, "bash", "-ec", setup.fill_in(mesh.local.doors_url, key, marker))
    assert ended.code == 0 and DONE in ended.output, ended.output
    assert (work / "notes.txt").read_text() == f"{AFTER}\n", ended.output
    assert not mesh.provider.faults
    seen = mesh.provider.requests_of(marker)
    assert [request.api for request in seen] == [setup.api] * len(turns), ended.output
    if turns[0].calls:
        assert "1180" in seen[1].results[0] and len(seen[2].results) == 2, seen[2].results
    works = "tools, streamed" if turns[0].calls else "edits as text, streamed"
    assert all(request.body.get("stream") for request in seen), "it does not stream"
    check_row(ClientRow("Coding agents", (setup.program, PACKAGES[setup.program], setup.api), (works,)))
    charged = await mesh.read_spending(marker)
    assert charged == (mesh.provider.calls - calls, mesh.provider.tokens - tokens)
