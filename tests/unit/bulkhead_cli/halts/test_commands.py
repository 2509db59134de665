"""What the options of `halt` and `resume` mean, and how a breaker is shown."""

import pytest

from bulkhead_cli.halts.commands import Named, Names
from bulkhead_cli.halts.halts import state_of
from bulkhead_cli.output import Exit, Stop
from bulkhead_contracts.control import Breaker


@pytest.mark.parametrize(
    ("options", "tenant", "meant", "words"),
    [
        ({}, "acme", Named("tenant", "acme"), "tenant acme"),
        ({"tool": "http_get"}, "", Named("tool", "http_get"), "tool http_get"),
        ({"tool": "http_get"}, "acme", Named("tool", "http_get", "acme"), "tool http_get of tenant acme"),
        ({"task": "t1"}, "acme", Named("task", "t1", "acme"), "task t1"),
    ],
)
def test_options_name_one_thing(options: dict, tenant: str, meant: Named, words: str) -> None:
    found = Names(**options, tenant=tenant).named()
    assert found == meant and str(found) == words


@pytest.mark.parametrize("options", [{}, {"tool": "a", "model": "b"}])
def test_nothing_and_two_things_are_wrong_usage(options: dict) -> None:
    with pytest.raises(Stop, match="name one thing") as ended:
        Names(**options).named()
    assert ended.value.code is Exit.USAGE


def test_an_open_breaker_whose_time_is_over_lets_trials_through() -> None:
    one = Breaker(scope="tool", tenant="acme", name="x", phase="open", until_unix_ms=10)
    assert [state_of(one, now) for now in (9, 10)] == ["open", "half_open"]
    assert state_of(one.model_copy(update={"phase": "closed"}), 9) == "closed"
