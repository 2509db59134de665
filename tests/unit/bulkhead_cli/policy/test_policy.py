"""`bulkhead policy`: what it prints, and its exit codes."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app
from bulkhead_cli.policy.policies import SHIPPED
from tests.paths import ROOT

PERMITTED = {
    "id": "p",
    "grant": {"tenant": "demo"},
    "sources": [{"content": "count visits by 2", "source": "user"}],
    "call": {"tool": "counter_increment", "arguments": {"name": "visits", "amount": 2}},
    "expect": "permit",
}
ASKED = {
    **PERMITTED,
    "id": "a",
    "call": {"tool": "counter_increment", "arguments": {"name": "evil"}},
    "expect": "default:writes",
}


def run(*words: object, records: list[dict[str, object]] | None = None):
    text = "\n".join(map(json.dumps, records or []))
    return CliRunner().invoke(app, ["policy", *map(str, words)], input=text, env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in SHIPPED.glob("*.cedar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_check_lists_the_rules() -> None:
    answer = run("check", "--json")
    assert answer.exit_code == 0
    rules = {row["file"]: [one["rule"] for one in row["rules"]] for row in json.loads(answer.stdout)["files"]}
    assert rules["demo.cedar"] == ["demo:counters", "demo:pages"]
    assert "demo:counters" in run("check").stdout


def test_check_names_file_and_line_of_a_mistake(folder: Path) -> None:
    (folder / "demo.cedar").write_text('\npermit (principal, action == Action::"cuont", resource);')
    answer = run("check", "--policies", folder)
    assert answer.exit_code == 1 and "demo.cedar:2:" in answer.stderr


def test_check_knows_tools_of_a_file(folder: Path) -> None:
    (folder / "demo.cedar").write_text('permit (principal, action == Action::"pay", resource);')
    assert run("check", "--policies", folder).exit_code == 1
    assert run("check", "--policies", folder, "--tools", ROOT / "tests/security/tools.yaml").exit_code == 0


def test_decide_writes_a_line_for_each_record() -> None:
    answer = run("decide", records=[PERMITTED, {"id": "x"}, ASKED])
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row.get("effect") for row in rows] == ["permit", None, "ask"]
    assert rows[1]["error"]["what"].startswith("call") and answer.exit_code == 1
    assert rows[2]["findings"][0]["text"] == "evil" and len(rows[2]["policy_sha256"]) == 64
    assert run("decide", records=[PERMITTED]).exit_code == 0


def test_test_compares_with_what_is_expected() -> None:
    assert run("test", "-", records=[PERMITTED, ASKED]).exit_code == 0
    answer = run("test", "-", "--json", records=[PERMITTED, {**ASKED, "expect": "permit"}])
    assert answer.exit_code == 1 and [row["id"] for row in json.loads(answer.stdout)["different"]] == ["a"]
    assert run("test", "-", records=[{"call": {"tool": "none"}}]).exit_code == 2


def test_a_rules_bare_name_is_enough_where_one_rule_bears_it() -> None:
    assert run("test", "-", records=[{**ASKED, "expect": "writes"}]).exit_code == 0
    assert run("test", "-", records=[{**ASKED, "expect": "reads"}]).exit_code == 1


def test_packages_bring_their_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "acme_ruled").mkdir()
    (tmp_path / "acme_ruled" / "__init__.py").touch()
    row = {"description": "d", "effect": "write", "idempotent": True, "parameters": {"type": "object"}}
    (tmp_path / "acme_ruled" / "tools.yaml").write_text(json.dumps({"stamp": row}))
    record = {"grant": {"tenant": "t"}, "call": {"tool": "stamp"}, "expect": "ask"}
    assert run("test", "-", "--pack", "acme_ruled", records=[record]).exit_code == 0
    monkeypatch.setenv("BULKHEAD_PACKS", '["acme_ruled"]')
    assert "stamp in tenant t: ask" in run("explain", "-", records=[record]).stdout
    monkeypatch.delenv("BULKHEAD_PACKS")
    assert run("test", "-", records=[record]).exit_code == 2


def test_a_grant_without_tools_has_every_tool_however_many_there_are(tmp_path: Path) -> None:
    row = {"description": "d", "parameters": {"type": "object"}, "effect": "read", "idempotent": True}
    (tmp_path / "tools.yaml").write_text(json.dumps({f"tool_{number}": row for number in range(80)}))
    record = {"grant": {"tenant": "demo"}, "call": {"tool": "tool_79", "arguments": {}}}
    decided = run("decide", "-", "--tools", tmp_path / "tools.yaml", records=[record])
    assert '"permit"' in decided.stdout, decided.output


def test_explain_names_rule_line_and_sources() -> None:
    told = run("explain", "-", records=[PERMITTED]).stdout
    assert "decided by demo:counters (demo.cedar:2)" in told and "/name = visits: user" in told
    row = json.loads(run("explain", "-", "--json", records=[ASKED]).stdout)
    assert row["rule_at"]["line"] and row["values"] == [{"argument": "/name", "value": "evil", "sources": []}]


def test_diff_shows_rules_and_decisions(folder: Path) -> None:
    assert run("diff", SHIPPED, folder).exit_code == 0
    (folder / "demo.cedar").write_text('@id("pages") permit (principal, action == Action::"http_get", resource);')
    records = folder / "records.jsonl"
    records.write_text(json.dumps(PERMITTED))
    answer = run("diff", SHIPPED, folder, "--records", records, "--json")
    found = json.loads(answer.stdout)
    assert answer.exit_code == 1 and (found["removed"], found["changed"]) == (["demo:counters"], ["demo:pages"])
    assert [row["new"]["effect"] for row in found["decisions"]] == ["ask"]


def test_the_record_of_the_page_is_decided_as_it_says() -> None:
    page = (ROOT / "docs/how-to/policy.md").read_text()
    (record,) = re.findall(r"```json\n({\"id\".*?)```", page, re.S)
    assert run("test", "-", records=[json.loads(record)]).exit_code == 0


def test_the_rules_of_the_page_fit_their_tools(folder: Path) -> None:
    page = (ROOT / "docs/how-to/policy.md").read_text()
    (folder / "demo.cedar").write_text("\n".join(re.findall(r"```cedar\n(.*?)```", page, re.S)))
    assert run("check", "--policies", folder, "--tools", ROOT / "tests/security/tools.yaml").exit_code == 0
