"""What the options of `halt` and `resume` mean, and how a breaker is shown."""

import pytest

from bulkhead_cli.halts.commands import HaltTargetOptions, RequestedHaltTarget
from bulkhead_cli.halts.halts import state_of
from bulkhead_cli.output import CommandError, Exit
from bulkhead_contracts.control import Breaker


@pytest.mark.parametrize(
    ("options", "tenant", "meant", "words"),
    [
        ({}, "acme", RequestedHaltTarget("tenant", "acme"), "tenant acme"),
        ({"tool": "http_get"}, "", RequestedHaltTarget("tool", "http_get"), "tool http_get"),
        ({"tool": "http_get"}, "acme", RequestedHaltTarget("tool", "http_get", "acme"), "tool http_get of tenant acme"),
        ({"task": "t1"}, "acme", RequestedHaltTarget("task", "t1", "acme"), "task t1"),
    ],
)
def test_options_name_one_thing(options: dict, tenant: str, meant: RequestedHaltTarget, words: str) -> None:
    found = HaltTargetOptions(**options, tenant=tenant).requested_target()
    assert found == meant and str(found) == words


@pytest.mark.parametrize("options", [{}, {"tool": "a", "model": "b"}])
def test_nothing_and_two_things_are_wrong_usage(options: dict) -> None:
    with pytest.raises(CommandError, match="name one thing") as ended:
        HaltTargetOptions(**options).requested_target()
    assert ended.value.code is Exit.USAGE


def test_an_open_breaker_whose_time_is_over_lets_trials_through() -> None:
    one = Breaker(scope="tool", tenant="acme", name="x", phase="open", until_unix_ms=10)
    assert [state_of(one, now) for now in (9, 10)] == ["open", "half_open"]
    assert state_of(one.model_copy(update={"phase": "closed"}), 9) == "closed"
