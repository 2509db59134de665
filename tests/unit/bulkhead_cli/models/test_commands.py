"""`bulkhead models`: wrong usage before anything starts, and routes where no mesh of this machine tells them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app
from bulkhead_cli.models.routes import self_judging_models

CASES = json.dumps([{"name": "a", "objective": "x", "checks": [{"contains": "x"}]}])
ENVIRON = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


def bulkhead(folder: Path, *words: str, **environ: str):
    outer = dict.fromkeys((*ENVIRON, "BULKHEAD_PROVIDERS", "BULKHEAD_URL", "BULKHEAD_API_KEY"))
    return CliRunner().invoke(app, ["models", *words], env={**outer, "BULKHEAD_DATA": str(folder), **environ})


def test_without_a_mesh_the_routes_of_the_environment_are_told(tmp_path: Path) -> None:
    done = bulkhead(tmp_path, "list", "--json", OPENAI_API_KEY="k", BULKHEAD_MODEL="gpt-4o-mini-2024-07-18")
    assert done.exit_code == 0, done.output
    assert [(row["route"], row["model"]) for row in json.loads(done.stdout)] == [
        ("default", "gpt-4o-mini-2024-07-18"),
        ("judge", "gpt-4o-mini-2024-07-18"),
    ]
    table = bulkhead(tmp_path, OPENAI_API_KEY="k", BULKHEAD_MODEL="gpt-4o-mini-2024-07-18", COLUMNS="200")
    assert "0.15 / 0.075 / 0.6" in table.stdout and "judges its own answers" in table.stdout
    assert "of this environment" in table.stderr


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({}, 3, "this environment names no provider"),
        ({"OPENAI_API_KEY": "k", "BULKHEAD_MODEL": "gpt-latest"}, 2, "whatever is newest"),
    ],
)
def test_routes_that_cannot_be_known_are_told_why(
    tmp_path: Path, environ: dict[str, str], code: int, says: str
) -> None:
    done = bulkhead(tmp_path, "list", **environ)
    assert done.exit_code == code and says in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compare", "--cases", "FILE", "--routes", "a,a"), "no list of different routes"),
        (("compare", "--cases", "FILE", "--routes", ","), "no list of different routes"),
        (("compare", "--cases", "none.yaml", "--routes", "a"), "cannot be read"),
        (("compare", "--cases", "FILE", "--routes", "a", "--limit-usd", "0"), "a limit is an amount of dollars"),
        (("compare", "--cases", "FILE", "--routes", "a", "--repeat", "0"), "--repeat"),
        (("compare", "--cases", "FILE", "--routes", "a", "--deadline", "soon"), "is no duration"),
        (("compare", "--cases", "FILE", "--routes", "tiny,small"), "no route tiny"),
        (("probe", "--routes", "a", "--baseline", "FILE"), "holds no baseline"),
        (("probe", "--routes", "a", "--baseline", "b.json", "--cases", "none.yaml"), "cannot be read"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(CASES)
    # Nothing listens there.
    (tmp_path / "mesh.json").write_text(json.dumps({"http_url": "http://127.0.0.1:9", "routes": [{"route": "small"}]}))
    done = bulkhead(
        tmp_path, *(str(file) if one == "FILE" else one for one in words), BULKHEAD_API_KEY="k", COLUMNS="200"
    )
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.stderr


def test_a_model_that_judges_itself_is_found_by_provider_and_model() -> None:
    names = (("judge", "openai", "m"), ("a", "openai", "m"), ("b", "azure", "m"), ("c", "openai", "n"))
    rows = [{"route": route, "provider": provider, "model": model} for route, provider, model in names]
    assert self_judging_models(rows, ["a", "b", "c", "unknown"]) == ["openai/m"]
    assert self_judging_models(rows[1:], ["a"]) == []
