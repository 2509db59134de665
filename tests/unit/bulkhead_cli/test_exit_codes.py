"""Exit codes of all commands, as docs/reference/exit-codes.md has them: wrong usage 2, no mesh 3, a damaged file 1."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bulkhead_cli.main import app
from bulkhead_cli.output import EXIT_CODES, Exit
from tests.paths import HISTORIES, ROOT

NO_MESH = {
    "up": None,
    "completion": None,
    "demo": None,
    "analyze": None,
    "restore": None,  # Need none.
    "doctor": 1,  # Looks for one: that none is there is a finding.
    "render accounts": 0,  # Comes before the mesh.
    "render monitoring": None,
    "incident export": 3,
    "backup": 2,  # Works with a stopped one, too: the folder is not one of a mesh.
    "submit": 3,
    "chat": 3,
    "sessions": 3,
    "watch": 3,
    "tasks": 3,
    "open": 3,
    "show": 3,
    "cancel": 3,
    "rate": 3,
    "quality": 3,
    "timeline": 3,
    "replay": 3,
    "export": 3,
    "why": 3,
    "cite": 3,
    "report": 3,
    "halt": 3,
    "resume": 3,
    "halts": 3,
    "breakers": 3,
    "breakers reset": 3,
    "limits get": 3,
    "limits set": 3,
    "limits remove": 3,
    "doors": 3,
    "mcp serve": 3,
    "spend": 3,
    "topup": 3,
    "sessions erase": 3,
    "documents": 3,
    "documents list": 3,
    "documents show": 3,
    "documents search": 3,
    "documents add": 3,
    "documents delete": 3,
    "dead-letters": 3,
    "dead-letters list": 3,
    "dead-letters show": 3,
    "dead-letters redrive": 3,
    "dead-letters dismiss": 3,
    "plan show": 3,
    "plan approve": 3,
    "plan reject": 3,
    "plan skip": 3,
    "approvals": 3,
    "approvals list": 3,
    "approvals show": 3,
    "approvals grant": 3,
    "approvals deny": 3,
    "workflows": 3,
    "workflows list": 3,
    "workflows show": 3,
    "workflows diff": 3,
    "workflows save": 3,
    "workflows submit-for-review": 3,
    "workflows approve": 3,
    "workflows reject": 3,
    "workflows publish": 3,
    "workflows canary": 3,
    "workflows retire": 3,
    "workflows schedule": 3,
    "workflows trigger": 3,
    "workflows unschedule": 3,
    "workflows run": 3,
    "events publish": 3,
    "workflows schema": None,
    "workflows check": None,
    "workflows draft": None,  # Their files are read first.
    "prompts": 3,
    "prompts list": 3,
    "prompts show": 3,
    "prompts releases": 3,
    "prompts diff": 3,
    "prompts edit": 3,
    "prompts try": 3,
    "prompts promote": 3,
    "prompts rollback": 3,
    "prompts canary": 3,
    "prompts evaluate": 3,
    "prompts export": 3,
    "prompts check": None,
    "prompts publish": None,  # Their files are read first.
    "prompts import": None,
    "writes": 3,
    "writes list": 3,
    "writes resolve": 3,
    "mesh": 3,
    "models": 3,
    "models list": 3,
    "models compare": 3,
    "models probe": 3,
    "eval run": 3,
    "eval models": 3,
    "eval from-tasks": 3,
    "eval labels": 3,
    "eval online": 3,
    "policy check": None,  # Need none.
    "eval check": None,
    "eval calibrate": None,
    "eval compare": None,
    "eval suggest": None,
    "eval keygen": None,
    "eval verify": None,
    "eval serve": None,  # Its sets are read first.
    "tools list": None,
    "tools show": None,
    "tools try": None,
    "tools export": None,
    "tools new": None,
    "mcp": None,
    "mcp list": None,
    "mcp pin": None,
    "agents": None,
    "agents list": None,
    "agents add": None,
    "agents check": None,
    "policy test": None,
    "policy explain": None,
    "policy diff": None,
    "policy decide": None,
}
WORDS = {
    "submit": ["x"],
    "watch": ["t1"],
    "show": ["t1"],
    "cancel": ["t1"],
    "chat": ["What is the fare?"],
    "rate": ["t1", "good"],
    "eval labels": ["--out", "labels.jsonl"],
    "timeline": ["t1"],
    "replay": ["t1"],
    "export": ["t1"],
    "why": ["t1"],
    "cite": ["--task", "t1"],
    "plan show": ["t1"],
    "plan approve": ["t1"],
    "plan reject": ["t1"],
    "plan skip": ["t1", "s1"],
    "approvals show": ["abcd"],
    "approvals grant": ["abcd"],
    "approvals deny": ["abcd"],
    "workflows show": ["report"],
    "workflows diff": ["report"],
    "workflows save": ["t1", "--name", "report"],
    "workflows submit-for-review": ["report"],
    "workflows approve": ["report", "--reason", "y"],
    "workflows reject": ["report", "--reason", "y"],
    "workflows publish": ["report"],
    "workflows canary": ["status", "report"],
    "workflows retire": ["report", "--reason", "y"],
    "workflows schedule": ["report", "--cron", "0 7 * * *"],
    "workflows trigger": ["report", "--on", "order.paid", "--from", "shop"],
    "workflows unschedule": ["report"],
    "workflows run": ["report"],
    "events publish": ["order.paid"],
    "workflows check": ["report.yaml"],
    "workflows draft": ["report.yaml"],
    "prompts show": ["worker.step"],
    "prompts diff": ["worker.step"],
    "prompts edit": ["worker.step"],
    "prompts try": ["worker.step"],
    "prompts promote": ["worker.step", "--reason", "y"],
    "prompts rollback": ["--reason", "y"],
    "prompts canary": ["drop", "--reason", "y"],
    "prompts export": ["prompts"],
    "prompts evaluate": ["worker.step"],
    "prompts publish": ["worker.step.md"],
    "prompts import": ["prompts"],
    "prompts check": ["worker.step.md"],
    "writes resolve": ["abcd", "--happened", "--reason", "y"],
    "halt": ["--tool", "x", "--reason", "y"],
    "resume": ["--tool", "x"],
    "breakers reset": ["tool:x"],
    "limits set": ["day", "--usd", "1"],
    "limits remove": ["day"],
    "topup": ["t1", "--usd", "1", "--reason", "x"],
    "sessions erase": ["--person", "ann"],
    "documents add": [__file__],
    "documents delete": ["x.md"],
    "documents show": ["x.md"],
    "documents search": ["x"],
    "dead-letters show": ["1"],
    "dead-letters redrive": ["1"],
    "dead-letters dismiss": ["1", "--reason", "x"],
    "backup": ["b.bulkhead"],
    "models compare": ["--cases", __file__, "--routes", "a"],
    "models probe": ["--baseline", "b.json", "--routes", "a"],
    "eval run": [__file__],
    "eval models": [__file__, "--route", "a"],
    "eval check": [__file__],
    "eval calibrate": [__file__],
    "eval compare": ["before", "after"],
    "eval suggest": ["report.json", "--min-pass", "0.9"],
    "eval keygen": ["key.pem"],
    "eval verify": ["statement.json", "--key", "0" * 64],
    "eval serve": ["--sets", "sets", "--key", "key.pem"],
}


def commands() -> list[str]:
    """Every command by its words, groups that do something themselves too."""
    found = []
    for name, one in typer.main.get_command(app).commands.items():
        inner = getattr(one, "commands", {})
        found += [f"{name} {each}" for each in inner]
        if not inner or one.invoke_without_command:
            found.append(name)
    return sorted(found)


def ends(words: list[str], folder: Path, text: str = "") -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    answer = CliRunner().invoke(app, words, input=text, env={"COLUMNS": "200", "BULKHEAD_DATA": str(folder / "none")})
    assert not answer.exception or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stderr


def test_limits_unset_is_limits_remove(tmp_path: Path) -> None:
    code, text = ends(["limits", "unset", "day"], tmp_path)
    assert (code, text) == ends(["limits", "remove", "day"], tmp_path) and code == NO_MESH["limits remove"]


def test_every_command_is_here() -> None:
    assert set(commands()) == set(NO_MESH), "say how it ends where no mesh is"


@pytest.mark.parametrize("command", commands())
@pytest.mark.slow
def test_an_option_that_is_not_there_is_wrong_usage(command: str, tmp_path: Path) -> None:
    code, said = ends([*command.split(), "--no-such-option", "--json"], tmp_path)
    assert code == 2 and json.loads(said)["error"]["what"], said


@pytest.mark.parametrize("command", ["doctor", "dead-letters redrive"])
def test_what_reads_the_broker_says_so_to_whom_names_a_gateway(command: str, tmp_path: Path) -> None:
    """And does not read the record of another mesh, which lies in the folder."""
    for option in ("--url=http://127.0.0.1:9", "--api-key=x"):
        code, said = ends([*command.split(), *WORDS.get(command, []), option, "--json"], tmp_path)
        error = json.loads(said)["error"]
        assert code == 2 and "broker" in error["what"] and "--data" in error["hint"], said


@pytest.mark.parametrize(
    "words", [["analyze", "FILE"], ["replay", "FILE", "--json"], ["--help"], ["analyze", "FILE", "--json"]]
)
@pytest.mark.slow
def test_output_that_finds_no_room_is_said_and_no_traceback(words: list[str]) -> None:
    file = str(next(HISTORIES.glob("single_step*")))
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "bulkhead_cli.main", *(one.replace("FILE", file) for one in words)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be written: No space left on device" in done.stderr and "free space" in done.stderr


@pytest.mark.parametrize("command", [one for one, code in NO_MESH.items() if code is not None])
def test_where_no_mesh_is(command: str, tmp_path: Path) -> None:
    words = [*command.split(), *WORDS.get(command, [])]
    code, said = ends([str(tmp_path / one) if one.endswith(".bulkhead") else one for one in words], tmp_path)
    assert code == NO_MESH[command], said
    if code > 1:
        assert said.startswith("error: ") and ("bulkhead up" in said or "--data" in said), "what, and what to do"


@pytest.mark.parametrize(
    "words",
    [
        ["replay", "FILE"],
        ["analyze", "FILE"],
        ["restore", "FILE"],
        ["up", "--tenants", "FILE"],
        ["backup", "x.bulkhead", "--keys-passphrase", "FILE"],
        ["replay", "t1", "--from-step", "1", "--edit", "FILE"],
    ],
)
def test_a_file_that_is_not_there_is_wrong_usage(words: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.json")
    code, said = ends([missing if one == "FILE" else one for one in words], tmp_path)
    assert code == 2 and missing in said and "Traceback" not in said, said


@pytest.mark.parametrize(
    "words", [["replay"], ["analyze"], ["analyze", "--form", "bulkhead"], ["restore"], ["restore", "--check"]]
)
@pytest.mark.parametrize("content", [b"# Notes\n", b"{}\n", b"", b"\x00\xff binary"])
def test_a_file_of_another_kind_is_wrong_usage(words: list[str], content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_bytes(content)
    code, said = ends([*words, str(file)], tmp_path)
    assert code == 2 and ("notes.md" in said or "row 1" in said), said


@pytest.mark.parametrize("command", ["replay", "analyze"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_history_is_something_wrong(command: str, compressed: bool, tmp_path: Path) -> None:
    whole = gzip.decompress(next(HISTORIES.glob("*.jsonl.gz")).read_bytes())
    file = tmp_path / "task.jsonl"
    file.write_bytes(gzip.compress(whole)[:-40] if compressed else whole[:-40])
    code, said = ends([command, str(file)], tmp_path)
    assert code == 1 and "cut off or damaged" in said and "copy it again" in said, said


@pytest.mark.parametrize("folder", ["/proc/x", "/dev/null/x"])
@pytest.mark.parametrize("words", [["up"], ["restore"]])
def test_a_folder_that_cannot_be_used_is_wrong_usage(words: list[str], folder: str, tmp_path: Path) -> None:
    file = tmp_path / "missing"
    code, said = ends([*words, *([str(file)] if words == ["restore"] else []), "--data", folder], tmp_path)
    assert code == 2 and said.count("\n") == 1, said


def test_the_codes_are_the_documented_ones() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}
    assert documented == {int(one) for one in Exit} | {130}
    assert {int(one) for one in re.findall(r"\b(\d) ", EXIT_CODES)} == {int(one) for one in Exit}
    assert re.search(r"Exit codes: 0 ok, 1 .*, 2 .*, 3 .*, 4 ", (ROOT / "README.md").read_text(), re.S)


def test_a_run_is_analyzed_from_standard_input(tmp_path: Path) -> None:
    row = json.dumps({"task": "t1", "agent": "a", "action": "search", "arguments": {"q": "x"}, "result": "nothing"})
    for form in ([], ["--form", "rows"]):
        assert ends(["analyze", "-", *form, "--json"], tmp_path, f"{row}\n" * 12)[0] == 1, "a loop"
        assert ends(["analyze", "-", *form], tmp_path, f"{row}\n")[0] == 0
    whole = next(HISTORIES.glob("answered.jsonl.gz")).read_bytes()
    answer = CliRunner().invoke(app, ["analyze", "-", "--json"], input=whole)
    assert answer.exit_code == 0 and json.loads(answer.stdout)["form"] == "bulkhead", answer.output
    code, said = ends(["analyze", "-"], tmp_path, "# Notes")
    assert code == 2 and "standard input cannot be read in any of the forms that are known: " in said, said
    assert "/tmp" not in said, said
    assert "cannot be read as otel: " in ends(["analyze", "-", "--form", "otel"], tmp_path, "# Notes")[1]
    assert "write it as 0.50" in ends(["limits", "set", "user", "--usd", "abc"], tmp_path)[1]


@pytest.mark.parametrize("command", commands())
def test_every_command_can_speak_json_and_says_what_it_is_for(command: str) -> None:
    found = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    options = {name for one in found.params for name in one.opts}
    assert ("--json" in options) is (command not in ("up", "completion")) and len(found.help or "") > 20
    assert all(getattr(one, "help", None) for one in found.params if one.name != "as_json"), "every option is explained"
