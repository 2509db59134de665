"""Limits as the spend page tells them: what holds, whose ceilings those are, and the targets that it offers."""

from typing import Any

from bulkhead_services.gateway.console.spend.room import known_targets, list_limits

LIMITS: dict[str, Any] = {
    "policy": {"day": {"cost_usd_micros": 5_000_000, "tokens": 900}, "task": {"cost_usd_micros": 1_000_000}},
    "limits": [
        {"target": "feature/faq", "limit": {"tool_calls": 7}},
        {"target": "day", "limit": {"cost_usd_micros": 2_000_000, "tokens": None}},
    ],
}


def test_of_policy_and_limit_the_lower_one_of_each_unit_holds() -> None:
    rows = {row.target: (row.holds, row.origin) for row in list_limits(LIMITS)}
    assert rows["a day of the tenant"] == (
        "$2.00, 900 tokens",
        "the lower of policy ($5.00, 900 tokens) and the tenant's limit ($2.00)",
    )
    assert rows["one task"] == ("$1.00", "of the policy")
    assert rows["feature/faq"] == ("7 tool calls", "")


def test_known_targets_are_offered_and_no_name_that_cannot_be_one() -> None:
    names = {"features": ["refunds"], "people": ["ann", "a b"]}
    assert known_targets(LIMITS, names) == [
        "day",
        "month",
        "task",
        "step",
        "feature/faq",
        "feature/refunds",
        "user/ann",
    ]
