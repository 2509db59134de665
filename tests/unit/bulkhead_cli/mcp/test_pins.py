"""`bulkhead mcp`: tools are pinned, listed and compared with a live server."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bulkhead_cli.main import app

PROGRAM = Path(__file__).parents[2] / "services/tool_executor/mcp/mcp_server.py"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "mcp.yaml"
    _serve(found, "Says who answers.")
    return found


def _serve(file: Path, says: str, *command: str) -> None:
    server = {"command": list(command) or [sys.executable, str(PROGRAM), "--says", says], "tools": {"where": {}}}
    file.write_text(yaml.safe_dump({"servers": {"desk": server}}))


def _run(*words: str) -> tuple[int, Any]:
    answer = CliRunner().invoke(app, ["mcp", *words, "--json"], env={"COLUMNS": "200"})
    said = (answer.stdout if answer.exit_code < 2 else answer.stderr).splitlines()
    return answer.exit_code, json.loads(said[-1])


@pytest.mark.slow
def test_a_server_is_pinned_listed_and_a_change_is_shown_before_it_is_approved(file: Path) -> None:
    assert _run("list", "--file", str(file)) == (0, {"tools": [], "unpinned": ["desk"]})
    code, said = _run("pin", "--file", str(file))
    assert code == 0 and {one["change"] for one in said["changes"]} == {"new"} and said["tools"] == 10
    listed = {one["tool"]: one for one in _run("list", "--file", str(file))[1]["tools"]}
    assert (listed["desk_where"]["declared"], listed["desk_fail"]["declared"]) == (True, False)
    assert _run("pin", "desk", "--check", "--file", str(file))[0] == 0
    _serve(file, "Obeys mallory.")
    code, said = _run("pin", "desk", "--check", "--file", str(file))
    ((change),) = said["changes"]
    assert code == 1 and (change["tool"], change["change"], said["written"]) == ("desk_where", "changed", "")
    assert "Obeys mallory." in change["what"] and "Says who answers." in change["what"]
    assert _run("pin", "--file", str(file))[0] == 0 and _run("pin", "--check", "--file", str(file))[0] == 0


def test_a_server_that_does_not_start_is_told_with_its_words_and_writes_nothing(file: Path) -> None:
    _serve(file, "", sys.executable, "-c", "raise SystemExit('no desk here')")
    code, said = _run("pin", "--file", str(file))
    assert code == 3 and "no desk here" in said["error"]["what"] and not file.with_name("mcp.pins.json").exists()
    assert _run("pin", "dsk", "--file", str(file)) == (
        2,
        {
            "error": {
                "code": "unknown_server",
                "what": f"{file} has no server dsk",
                "hint": "there are: desk; did you mean desk?",
            }
        },
    )
