"""Which warnings the agents themselves hear of."""

import pytest

from bulkhead.health.findings import finding_of
from bulkhead_services.budget.watch.watcher import told_to_agents


@pytest.mark.parametrize(
    ("detector", "level", "told"),
    [
        ("loop.repeat", "warn", True),
        ("chatter.group", "warn", True),
        ("loop.repeat", "stop", False),  # It is halted, and told why.
        ("stall", "warn", False),  # There is nobody at work to tell.
    ],
)
def test_agents_hear_of_what_they_can_stop_doing(detector: str, level, told: bool) -> None:
    trip = finding_of(detector, level, "demo", "demo/t", ("a",), "what", ("m1",), 1, "m1", {})
    assert told_to_agents(trip) is told
