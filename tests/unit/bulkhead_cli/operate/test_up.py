"""What `up` says of the tenants by whose ceilings it runs, before it starts anything."""

import json
from pathlib import Path

import pytest

from bulkhead_cli.operate.up import _tell_of_tenants, _tell_of_tools
from bulkhead_infra.identity.policy import TENANTS_FILE


@pytest.mark.parametrize(
    ("before", "given", "said"),
    [
        ("/srv/ours.yaml", None, "not those of /srv/ours.yaml"),
        ("/srv/ours.yaml", Path("ours.yaml"), "tenants: ours.yaml"),
        (str(TENANTS_FILE), None, ""),
        ("", None, ""),
    ],
    ids=["forgotten", "given", "never-had-any", "new"],
)
def test_a_mesh_that_had_tenants_of_its_own_does_not_lose_them_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, given: Path | None, said: str
) -> None:
    if before:
        (tmp_path / "mesh.json").write_text(json.dumps({"tenants_file": before}))
    _tell_of_tenants(tmp_path, given)
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and bool(told) is bool(said)


def test_the_same_tenants_in_the_place_of_another_version_are_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "tenants.yaml"
    copy.write_bytes(TENANTS_FILE.read_bytes())
    (tmp_path / "mesh.json").write_text(json.dumps({"tenants_file": str(copy)}))
    _tell_of_tenants(tmp_path, None)
    assert capsys.readouterr().out == ""
    copy.write_text("tenants: {}")
    _tell_of_tenants(tmp_path, None)
    assert "tenants: those that come with the mesh, and not those" in capsys.readouterr().out


@pytest.mark.parametrize("torn", ["", '{"tenants_file": ', "[]"])
def test_a_torn_file_of_the_mesh_before_does_not_keep_it_from_starting(tmp_path: Path, torn: str) -> None:
    (tmp_path / "mesh.json").write_text(torn)
    _tell_of_tenants(tmp_path, None)


ROW = "{description: d, parameters: {type: object}, effect: read, idempotent: true}"


def test_tools_of_a_pack_that_no_tenant_may_use_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, tenants = tmp_path / "pack_of_the_test_of_up", tmp_path / "ours.yaml"
    pack.mkdir()
    (pack / "__init__.py").write_text("")
    (pack / "tools.yaml").write_text(f"prune_tree: {ROW}\nwater_tree: {ROW}\n")
    monkeypatch.syspath_prepend(tmp_path)
    tenants.write_text(TENANTS_FILE.read_text().replace("tools: [", "tools: [water_tree, ", 1))
    assert "water_tree" in tenants.read_text()
    for given, left in ((None, "prune_tree, water_tree"), (tenants, "prune_tree")):
        _tell_of_tools(f'["{pack.name}"]', given)
        assert " ".join(capsys.readouterr().out.split()).startswith(f"no tenant may use {left}: ")
    for packs in ("", "[]", "{", "7", '["no_such_pack_at_all"]'):
        _tell_of_tools(packs, None)
    assert capsys.readouterr().out == "", "nothing to say, or the mesh itself says what is wrong"
