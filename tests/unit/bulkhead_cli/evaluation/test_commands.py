"""`bulkhead eval`: sets that are validated without a mesh, and wrong usage before anything starts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app
from tests.paths import ROOT

EXAMPLE = ROOT / "examples" / "evaluation" / "cases.jsonl"
ROW = {"name": "a", "input": "x", "checks": [{"contains": "x"}], "tags": ["t"]}


def bulkhead(folder: Path, *words: str):
    # Nothing listens there.
    (folder / "mesh.json").write_text(json.dumps({"http_url": "http://127.0.0.1:9"}))
    environ = {"BULKHEAD_DATA": str(folder), "BULKHEAD_API_KEY": "k", "BULKHEAD_URL": None, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["eval", *words], env=environ)


def test_the_example_set_is_valid(tmp_path: Path) -> None:
    done = bulkhead(tmp_path, "check", str(EXAMPLE), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["cases"], document["documents"], document["tags"]["numbers"]) == (6, 2, 3)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"documents": ["none.md"]}, "none.md cannot be read"),
        ({"checks": [{"python": "none.py:check"}]}, "none.py cannot be read"),
        ({"checks": [{"python": "broken.py:check"}]}, "cannot be loaded: SyntaxError"),
        ({"checks": [{"tool": "x"}]}, "unknown field"),
    ],
)
def test_what_is_wrong_with_a_set_is_told_without_a_run(tmp_path: Path, row: dict[str, object], says: str) -> None:
    (tmp_path / "cases.jsonl").write_text(json.dumps(ROW | row))
    (tmp_path / "broken.py").write_text("def check(")
    done = bulkhead(tmp_path, "check", str(tmp_path / "cases.jsonl"))
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "FILE", "--tag", "u"), 2, "has the tag u"),
        (("run", "FILE", "--baseline", "none"), 2, "holds no run that can be read"),
        (("run", "FILE", "--resume", "none"), 2, "holds no run that can be read"),
        (("run", "FILE", "--budget-usd", "0"), 2, "a limit is an amount of dollars"),
        (("run", "FILE", "--min-pass", "2"), 2, "--min-pass"),
        (("run", "FILE"), 3, "no answer from http://127.0.0.1:9"),
        (("compare", "none", "none"), 2, "holds no run that can be read"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "cases.jsonl").write_text(json.dumps(ROW))
    done = bulkhead(tmp_path, *(str(tmp_path / "cases.jsonl") if word == "FILE" else word for word in words))
    assert done.exit_code == code and says in " ".join(done.stderr.split()), done.stderr
