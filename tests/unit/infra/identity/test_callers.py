"""The local user's keys: made once, kept, and made anew beside what a backup brought."""

import hashlib
import json
import stat
import time
from pathlib import Path

import pytest

from bulkhead.callers.api_keys import ApiKeys
from bulkhead_infra.identity import callers


def who(api_keys: Path, key: str) -> tuple[str, str]:
    [found] = [
        one
        for one in json.loads(api_keys.read_text())["keys"]
        if one["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    ]
    return found["tenant"], found["role"]


def test_made_once_and_kept(tmp_path: Path) -> None:
    credentials, api_keys = tmp_path / "credentials.json", tmp_path / "api_keys.json"
    callers.ensure_caller_keys(credentials, api_keys, "demo")
    before = credentials.read_text(), api_keys.read_text()
    callers.ensure_caller_keys(credentials, api_keys, "other")
    assert (credentials.read_text(), api_keys.read_text()) == before
    made = json.loads(before[0])
    agent = made.pop("agent")
    [row] = [one for one in json.loads(before[1])["keys"] if one["person"] == "local-agent"]
    assert row["sha256"] == hashlib.sha256(agent.encode()).hexdigest()
    assert (row["tenant"], row["role"], row["agent"]) == ("demo", "submitter", True)
    assert 0 <= time.time() * 1_000 - row["made_unix_ms"] < 60_000, "people see since when a key is there"
    assert set(made) == set(callers.ROLES) and all(who(api_keys, key) == ("demo", role) for role, key in made.items())
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600 and not any(key in before[1] for key in made.values())


def test_a_restored_mesh_gets_keys_beside_the_digests_that_it_brought(tmp_path: Path) -> None:
    credentials, api_keys = tmp_path / "credentials.json", tmp_path / "api_keys.json"
    callers.ensure_caller_keys(credentials, api_keys, "demo")
    old = json.loads(credentials.read_text())
    credentials.unlink()
    callers.ensure_caller_keys(credentials, api_keys, "demo")
    new = json.loads(credentials.read_text())
    assert set(new.values()).isdisjoint(old.values())
    assert [who(api_keys, one["submitter"]) for one in (old, new)] == [("demo", "submitter")] * 2


def test_a_file_of_keys_that_cannot_be_read_is_left_for_the_gateway_to_refuse(tmp_path: Path) -> None:
    credentials, api_keys = tmp_path / "credentials.json", tmp_path / "api_keys.json"
    for content in ("{", "[]", '{"keys": 7}'):
        api_keys.write_text(content)
        callers.ensure_caller_keys(credentials, api_keys, "demo")
        assert api_keys.read_text() == content and not credentials.exists()


def test_one_more_person_gets_a_key_of_a_mesh_that_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(tmp_path), "acme", "ann", "submitter"]
    assert callers.main(asked) == 2 and "a mesh that was started once" in capsys.readouterr().err
    callers.ensure_caller_keys(tmp_path / "credentials.json", tmp_path / "api_keys.json", "demo")
    assert callers.main(asked) == 0
    made = json.loads(capsys.readouterr().out)
    assert who(tmp_path / "api_keys.json", made["api_key"]) == ("acme", "submitter") and made["person"] == "ann"
    assert len(json.loads((tmp_path / "api_keys.json").read_text())["keys"]) == len(callers.ROLES) + 2
    for wrong, said in (("king", "no role king; there are submitter"), ("", "no role")):
        assert callers.main([*asked[:3], wrong]) == 2 and said in capsys.readouterr().err
    assert callers.main([str(tmp_path), "acme", "a/n", "operator"]) == 2 and "is no name" in capsys.readouterr().err


def test_the_key_of_an_agent_is_marked_and_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callers.ensure_caller_keys(tmp_path / "credentials.json", tmp_path / "api_keys.json", "demo")
    assert callers.main([str(tmp_path), "demo", "robot", "submitter", "--agent"]) == 0
    made, keys = json.loads(capsys.readouterr().out), ApiKeys(tmp_path / "api_keys.json")
    keys.load()
    claim = keys.find_owner(made["api_key"])
    assert claim is not None and claim.agent and claim.person == "robot"
    assert callers.main([str(tmp_path), "demo", "robot", "approver", "--agent"]) == 2
    assert "people alone decide" in capsys.readouterr().err
    (tmp_path / "api_keys.json").write_text(
        json.dumps({"keys": [callers.key_row("bk_x", "demo", "robot", "operator", agent=True)]})
    )
    with pytest.raises(ValueError, match="people alone approve"):
        ApiKeys(tmp_path / "api_keys.json").load()
