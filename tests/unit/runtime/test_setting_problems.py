"""What a service says when it cannot run with its settings: the variable's own name, and no words of the library."""

import pytest
from pydantic import ValidationError

from bulkhead.runtime.main import main, setting_problems
from services.model_gateway.settings import Settings


@pytest.mark.parametrize(("given", "begins"), [
    ({"slots": "many"}, "setting BULKHEAD_SLOTS: Input should be a valid integer"),
    ({"model": "gpt-latest"}, "settings: model 'gpt-latest' names whatever is newest"),
    ({"OPENAI_BASE_URL": 7}, "setting OPENAI_BASE_URL: Input should be a valid string"),
    ({"routes": {"x": {"model": ""}}}, "setting BULKHEAD_ROUTES.x.model: String should have at least 1"),
    ({"model": "nobody-knows-1"}, "settings: no price is known for model 'nobody-knows-1' of tier 'default'"),
])
def test_a_problem_is_named_by_its_variable(given, begins):
    with pytest.raises(ValidationError) as caught:
        Settings(**given)
    [first, *_] = setting_problems(caught.value)
    assert first.startswith(begins)


def test_an_unknown_price_ends_the_start_with_2(monkeypatch, capsys):
    monkeypatch.setenv("BULKHEAD_MODEL", "nobody-knows-1")
    with pytest.raises(SystemExit) as ended:
        main("model_gateway", lambda context, settings: None, Settings)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("model_gateway: settings: no price is known"), said
    assert "Value error" not in said and "BULKHEAD_:" not in said
