"""What a service says when it cannot run with its settings: the variable's own name, and no words of the library."""

import pytest
from pydantic import ValidationError

from bulkhead.runtime.process import main as running
from bulkhead.runtime.process.main import main, setting_problems
from bulkhead_infra.processes import supervised
from bulkhead_services.model_gateway.settings import Settings


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({"slots": "many"}, "setting BULKHEAD_SLOTS: Input should be a valid integer"),
        ({"model": "gpt-latest"}, "settings: model 'gpt-latest' names whatever is newest"),
        ({"OPENAI_BASE_URL": 7}, "setting OPENAI_BASE_URL: Input should be a valid string"),
        ({"routes": {"x": {"model": ""}}}, "setting BULKHEAD_ROUTES.x.model: String should have at least 1"),
        ({"model": "nobody-knows-1"}, "settings: no price is known for model 'nobody-knows-1' of tier 'default'"),
    ],
)
def test_a_problem_is_named_by_its_variable(given, begins):
    with pytest.raises(ValidationError) as caught:
        Settings(**given)
    [first, *_] = setting_problems(caught.value, Settings)
    assert first.startswith(begins)


@pytest.mark.parametrize(
    ("name", "value", "example"),
    [
        ("BULKHEAD_FREE_MODELS", "my-model", '["first", "second"]'),
        ("BULKHEAD_ROUTES", "{'judge': 1}", '{"name": "value"}'),
        ("BULKHEAD_PROVIDERS", "", '{"name": "value"}'),
    ],
)
def test_what_is_not_json_is_told_by_its_variable_and_how_to_write_it(monkeypatch, capsys, name, value, example):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main("model_gateway", lambda context, settings: None, Settings)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"model_gateway: setting {name}: its value is not JSON"), said
    assert f"write it as {name}='{example}'" in said and "Traceback" not in said and said.count("\n") == 1


def test_a_file_that_a_setting_names_ends_the_start_with_2_too(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("BULKHEAD_DATA_DIR", str(tmp_path))

    async def serve(*_: object) -> int:
        raise ValueError("cannot read publishers from nowhere; it must hold {...}")

    monkeypatch.setattr(running, "serve", serve)
    with pytest.raises(SystemExit) as ended:
        main("model_gateway", lambda context, settings: None, Settings)
    assert ended.value.code == running.BAD_SETTINGS == supervised.BAD_SETTINGS


def test_an_unknown_price_ends_the_start_with_2(monkeypatch, capsys):
    monkeypatch.setenv("BULKHEAD_MODEL", "nobody-knows-1")
    with pytest.raises(SystemExit) as ended:
        main("model_gateway", lambda context, settings: None, Settings)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("model_gateway: settings: no price is known"), said
    assert "Value error" not in said and "BULKHEAD_:" not in said
