"""`bulkhead tools`: a package from nothing to a tool that runs, and what is shown of tools. No mesh."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead.tools import catalog
from bulkhead_cli.main import app
from bulkhead_cli.tools.trial import arguments_of

UNSET = dict.fromkeys(("BULKHEAD_PACKS", "BULKHEAD_TOOL_SETTINGS", "BULKHEAD_TOOL_CREDENTIALS"))


def tools(*words: str, **environ: str):
    return CliRunner().invoke(app, ["tools", *words], env={**UNSET, "COLUMNS": "250", **environ})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """A new package, in its folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog.tool_rows.cache_clear()
    name = f"made_for_{abs(hash(request.node.name)) % 10**8}"
    made = tools("new", name, "--in", str(tmp_path), "--json")
    assert made.exit_code == 0, made.output
    folder = Path(json.loads(made.stdout)["folder"])
    monkeypatch.chdir(folder)
    importlib.invalidate_caches()
    return name, folder


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_new_package_is_exported_tried_and_tested(package, tmp_path: Path) -> None:
    name, folder = package
    exported = tools("export", name)
    assert exported.exit_code == 0 and "tools.yaml: written" in exported.stdout, exported.output
    assert tools("export", name, "--check").exit_code == 0
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    tickets.chmod(0o777)  # The sandbox runs tools as a user of their own.
    given = {"BULKHEAD_TOOL_SETTINGS": json.dumps({"ticket_folder": str(tickets)})}
    given["BULKHEAD_TOOL_FOLDERS"] = json.dumps({"open_ticket": [str(tickets)]})
    words = ("try", "open_ticket", "to=billing", "title=17", "--pack", name)
    asked = tools(*words, **given)
    assert asked.exit_code == 4 and "policy asks about open_ticket (rule default:writes)" in asked.stderr
    (rules := folder / "rules").mkdir()
    (rules / "default.cedar").write_text('@id("none") forbid (principal, action, resource);')
    forbidden = json.loads(tools(*words, "--approve", "--json", BULKHEAD_POLICY_DIR=str(rules), **given).stdout)
    assert (forbidden["policy"], forbidden["rule"], forbidden["outcome"]) == ("forbid", "default:none", "refused")
    assert not list(tickets.iterdir())
    words = (*words, "--approve")
    tried = tools(*words, "--json", **given)
    assert tried.exit_code == 0, tried.output
    said = json.loads(json.loads(tried.stdout)["text"])
    assert len(said["ticket"]) == 12 and said["repeat"] is False
    [made] = tickets.iterdir()
    assert json.loads(made.read_text())["title"] == "17", "a text, since its schema says so"
    keyed = (*words, "--key", "k1", "--json")
    again = [json.loads(json.loads(tools(*keyed, **given).stdout)["text"])["repeat"] for _ in range(2)]
    assert again == [False, True], "without a key of its own each try is another call"
    refused = tools("try", "open_ticket", "to=Everybody", "title=x", "--pack", name, **given)
    assert refused.exit_code == 4 and "bad_arguments" in refused.stderr
    unset = tools("try", "open_ticket", "to=billing", "title=x", "--pack", name)
    assert unset.exit_code == 4 and "ticket_folder in BULKHEAD_TOOL_SETTINGS" in unset.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    assert ran.returncode == 0 and "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_changed_function_is_out_of_date_until_it_is_exported(package) -> None:
    name, folder = package
    assert tools("export", name, "--check").exit_code == 1
    assert tools("export", name).exit_code == 0
    file = folder / name / "tools.yaml"
    file.write_text(file.read_text().replace("effect: write", "effect: read"))
    assert tools("export", name, "--check").exit_code == 1
    catalog.tool_rows.cache_clear()
    tried = tools("try", "open_ticket", "--pack", name, BULKHEAD_TOOL_SETTINGS='{"ticket_folder": "x"}')
    assert tried.exit_code == 2 and f"bulkhead tools export {name}" in tried.stderr


def test_a_function_that_is_not_exported_is_named(package) -> None:
    name, folder = package
    words = ("try", "open_ticket", "to=billing", "title=x", "--pack", name)
    assert f"`bulkhead tools export {name}` writes tools.yaml" in tools(*words).stderr
    (folder / name / "tools.yaml").write_text("{}")
    catalog.tool_rows.cache_clear()
    tried = tools(*words)
    assert tried.exit_code == 2 and f"run `bulkhead tools export {name}`" in tried.stderr


def test_a_file_written_by_hand_is_not_replaced(package) -> None:
    name, folder = package
    (folder / name / "tools.yaml").write_text("# mine\n")
    done = tools("export", name)
    assert done.exit_code == 2 and "written by hand" in done.stderr
    assert (folder / name / "tools.yaml").read_text() == "# mine\n"


def test_the_list_tells_effects_sinks_and_who_serves(package) -> None:
    name, _ = package
    tools("export", name)
    found = {row["name"]: row for row in json.loads(tools("list", "--pack", name, "--json").stdout)["tools"]}
    assert found["open_ticket"] | {"parameters": 0, "output": 0, "description": 0} == {
        "name": "open_ticket",
        "description": 0,
        "served_by": "tool_executor",
        "package": name,
        "function": f"{name}.tools:open_ticket",
        "effect": "write",
        "idempotent": True,
        "sinks": {"/to": "recipient"},
        "egress": False,
        "isolation": "process",
        "network": False,
        "most_calls": 0,
        "four_eyes": False,
        "requires": ["ticket_folder"],
        "credentials": [],
        "timeout_ms": 10_000,
        "max_output_bytes": 65_536,
        "check": False,
        "error_if": None,
        "parameters": 0,
        "output": 0,
    }
    assert found["ask_steps"]["served_by"] == "worker" and found["search_documents"]["served_by"] == "rag"
    table = tools("list", BULKHEAD_PACKS=json.dumps([name])).stdout
    assert "write, keyed" in table and "to: recipient" in table and "every argument" in table
    shown = tools("show", "open_ticket", "--pack", name)
    assert "Open a ticket for a team." in shown.stdout and '"pattern"' in shown.stdout


def test_an_installed_package_is_listed_until_somebody_names_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tmp_path.chmod(0o755)
    told = tmp_path / "somebody-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[bulkhead.tools]\nsomebody = somebody.inner.tools\n")
    (tmp_path / "somebody" / "inner").mkdir(parents=True)
    (tmp_path / "somebody" / "inner" / "tools.py").write_text(
        "from bulkhead.tools import tool\n\n@tool()\ndef somebodys() -> str:\n    'Say hello.'\n    return 'hello'\n"
    )
    importlib.invalidate_caches()
    found = json.loads(tools("list", "--json").stdout)
    assert found["installed_and_not_named"] == ["somebody"]
    assert "somebodys" not in {row["name"] for row in found["tools"]}
    assert tools("export", "somebody").exit_code == 0, "its entry point says in which module the tools are"
    tried = tools("try", "somebodys", BULKHEAD_PACKS='["somebody"]')
    assert tried.exit_code == 0 and tried.stdout == "hello\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "calculat"), 2, "calculate"),
        (("list", "--pack", "not_there_at_all"), 2, "install it"),
        (("export", "not_there_at_all"), 2, "cannot be imported"),
        (("export", "json"), 2, "no function with @tool"),
        (("new", "Acme"), 2, "no name of a package"),
        (("new", "class"), 2, "no name of a package"),
        (("try", "calculate", "5"), 2, "NAME=VALUE"),
        (("try", "calculate", "expression=1", "--arguments", "{}"), 2, "given twice"),
        (("try", "calculate", "--arguments", "{"), 4, "not JSON"),
        (("try", "nothing"), 4, "there is no tool"),
        (("try", "calculate", "expression=1/0"), 1, "division_by_zero"),
    ],
)
def test_wrong_words_are_told(words: tuple[str, ...], code: int, says: str) -> None:
    done = tools(*words)
    assert done.exit_code == code and says in done.stderr, done.output


def test_values_are_texts_where_the_schema_wants_texts() -> None:
    schema = {"properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}
    assert arguments_of(("name=17", "n=17", "more=[1]", "other=a=b"), schema) == {
        "name": "17",
        "n": 17,
        "more": [1],
        "other": "a=b",
    }
