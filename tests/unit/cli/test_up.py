"""What `up` says of the tenants by whose ceilings it runs, before it starts anything."""

import json
from pathlib import Path

import pytest

from bulkhead.cli.up import _tell_of_tenants
from infra.identity.policy import TENANTS_FILE


@pytest.mark.parametrize(
    ("before", "given", "said"),
    [("/srv/ours.yaml", None, "not those of /srv/ours.yaml"),
     ("/srv/ours.yaml", Path("ours.yaml"), "tenants: ours.yaml"), (str(TENANTS_FILE), None, ""), ("", None, "")],
    ids=["forgotten", "given", "never-had-any", "new"],
)  # fmt: skip
def test_a_mesh_that_had_tenants_of_its_own_does_not_lose_them_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, given: Path | None, said: str
) -> None:
    if before:
        (tmp_path / "mesh.json").write_text(json.dumps({"tenants_file": before}))
    _tell_of_tenants(tmp_path, given)
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and bool(told) is bool(said)


@pytest.mark.parametrize("torn", ["", '{"tenants_file": ', "[]"])
def test_a_torn_file_of_the_mesh_before_does_not_keep_it_from_starting(tmp_path: Path, torn: str) -> None:
    (tmp_path / "mesh.json").write_text(torn)
    _tell_of_tenants(tmp_path, None)
