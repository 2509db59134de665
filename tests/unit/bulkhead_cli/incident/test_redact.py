"""What leaves in an incident file: words, numbers, times; no content, no key, and no more than there is room for."""

import json
from pathlib import Path
from typing import Any

import pytest

from bulkhead_cli.incident import export, redact
from bulkhead_cli.incident.collect import IncidentPart, gather_parts
from bulkhead_cli.output import CommandError, Exit

SECRET = "the harbour code is 4711"


def test_of_a_text_only_one_word_is_left() -> None:
    assert redact.redact_value(["tool_executor", SECRET, "sk-abcdefgh12", 7, None, {"a b": 1}]) == [
        *("tool_executor", "[text]", "[redacted]", 7, None),
        {"[text]": 1},
    ]


def test_a_story_leaves_without_its_texts() -> None:
    call = {"call_id": "c1", "kind": "tool", "name": "pay", "arguments": SECRET, "result": SECRET, "why": SECRET}
    call |= {"outcome": "failed", "failure": f"http_status: {SECRET}", "retried": [SECRET]}
    step = {"step_id": "s1", "title": SECRET, "result": SECRET, "standing_reason": SECRET, "calls": [call]}
    told = {
        **{"task_id": "t1", "status": "failed", "objective": SECRET, "asked_by": "bob", "steps": [step]},
        "reasons": [{"kind": "ended", "what": SECRET, "todo": SECRET, "evidence": ["m1"]}],
        "happened": [{"kind": "refused", "what": SECRET, "at_unix_ms": 5}],
        "plans": [{"version": 1, "by": "bob", "notes": [SECRET]}],
    }
    found = redact.redact_story(told)
    text = json.dumps(found)
    assert "4711" not in text and "bob" not in text
    [kept] = found["steps"][0]["calls"]
    assert (kept["name"], kept["outcome"], kept["failure_code"]) == ("pay", "failed", "http_status")
    assert found["reasons"] == [{"kind": "ended", "evidence": ["m1"]}]


@pytest.mark.parametrize("name", ["bob", "bob@example.org", "oidc:bob", "corp/bob", "bob:7", "7,bob"])
def test_a_limit_and_an_alert_of_a_person_leave_without_the_name(name: str) -> None:
    limit = redact.redact_row("limit", {"target": f"user/{name}", "limit": 5})
    alert = redact.redact_row("alert", {"scope": f"user:t1:{name}:2026-11-24", "kind": "limit"})
    said = redact.own_words(f"the limit of user/{name}, of user:t1:{name}:2026-11-24 too")
    assert "bob" not in f"{limit}{alert}{said}"
    person = limit["target"].removeprefix("user/")
    assert alert["scope"] == f"user:t1:{person}:2026-11-24"
    assert said == f"the limit of user/{person}, of user:t1:{person}:2026-11-24 too"
    assert redact.redact_row("limit", {"target": "user/ann"}) != {"target": f"user/{person}"}
    assert redact.redact_value(["user", "agent/worker.user", "policy/day"]) == [
        "user",
        "agent/worker.user",
        "policy/day",
    ]


def test_words_of_the_mesh_itself_lose_keys_and_what_they_quote() -> None:
    assert redact.own_words(f"redis://user:pass@host says \"{SECRET}\"\n to '{SECRET}'") == (
        "redis://[redacted]host says [text] to [text]"
    )
    assert len(redact.own_words("x" * 5_000)) == redact.MAX_TEXT_CHARS


@pytest.mark.parametrize("said", ["", "no JSON", "[1]", '"x"'])
def test_who_says_nothing_that_can_be_read_does_not_answer(said: str) -> None:
    assert redact.redact_health(said) == {"answers": False}


async def test_what_cannot_be_had_is_said_and_keeps_nothing_else_back() -> None:
    async def fails() -> list[Any]:
        raise CommandError(Exit.UNREACHABLE, "no mesh 'named so' answers")

    async def rows() -> list[Any]:
        return list(range(9))

    found = await gather_parts({"a": (fails, 5), "b": (rows, 5)})
    assert found == {"a": IncidentPart(error="no mesh [text] answers"), "b": IncidentPart([0, 1, 2, 3, 4], 4)}


def test_the_file_is_bounded_and_holds_no_secret_of_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 2_000)
    parts = {"metrics": IncidentPart([{"line": "x" * 100}] * 64), "halts": IncidentPart([{"name": "bk_secretsecret"}])}
    text = export.render_incident_file(parts, 0, 60, "", ("bk_secretsecret",))
    found = json.loads(text)
    assert "bk_secret" not in text and len(text) < 4_000 and found["halts"] == [{"name": "[redacted]"}]
    row = found["manifest"]["parts"]["metrics"]
    assert row["rows"] == len(found["metrics"]) and row["rows"] + row["left_out"] == 64


def test_secrets_of_a_directory_are_its_keys(tmp_path: Path) -> None:
    (tmp_path / "identity" / "services").mkdir(parents=True)
    (tmp_path / "identity" / "operator.nkey").write_text("SUAKEYKEYKEY\n")
    (tmp_path / "credentials.json").write_text('{"operator": "bk_abcdefgh"}')
    (tmp_path / "credentials.json").chmod(0o600)
    assert set(export.secrets_of(tmp_path)) == {"SUAKEYKEYKEY", "bk_abcdefgh"}
