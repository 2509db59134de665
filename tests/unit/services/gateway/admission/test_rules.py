"""A tenant's rules for what comes in, and what a strict delivery asks of a request."""

import pytest

from bulkhead_contracts.output import InputPolicy, OutputPolicy
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import ForkOf, TaskRequested
from bulkhead_services.gateway.admission.rules import find_broken_rule

RULES = InputPolicy(forbidden=("project falcon",), personal_data="refuse")
HELD = OutputPolicy(delivery="held")


def plan(**words: str) -> Plan:
    return Plan(steps=(PlanStep(id="a", **{"title": "", "instruction": "look", **words}),))


@pytest.mark.parametrize(
    ("changes", "policy", "output", "code"),
    [
        ({"check": False}, None, HELD, "check_needed"),
        ({"check": False}, None, OutputPolicy(), None),
        ({"fork": ForkOf(task="t1")}, None, OutputPolicy(delivery="verified"), "fork_not_checked"),
        ({"fork": ForkOf(task="t1")}, None, OutputPolicy(), None),
        ({"objective": "Tell of Project  Falcon."}, RULES, OutputPolicy(), "forbidden_input"),
        ({"plan": plan(acceptance="It names project falcon.")}, RULES, OutputPolicy(), "forbidden_input"),
        ({"plan": plan(title="project falcon")}, RULES, OutputPolicy(), "forbidden_input"),
        ({"objective": "Write to ada@example.org."}, RULES, OutputPolicy(), "personal_data"),
        ({"objective": "Tell of the sea."}, RULES, HELD, None),
    ],
)
def test_a_request_is_held_to_the_rules(changes, policy, output, code):
    refusal = find_broken_rule(TaskRequested(**{"objective": "x", **changes}), policy, output)
    assert (refusal[0] if refusal else None) == code
    assert refusal is None or all(refusal), "each says what happened and what to do"
