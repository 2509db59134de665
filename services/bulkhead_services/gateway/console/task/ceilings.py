"""The ceiling at which a task ended, and limits under which its next call would have fitted. Pure.

In: a task's document. Out: values of the form that runs it again with more.
"""

import re
from dataclasses import dataclass

from bulkhead_services.gateway.console.api import Json

AMOUNT = r"(\$?[0-9][0-9,.]*[0-9]|[0-9])(?: tokens?)?"
REACHED = re.compile(rf"limit {AMOUNT}, spent {AMOUNT}, and the (?:next )?call may cost up to {AMOUNT}")
"""As the budget says it of a call that it does not admit."""


@dataclass(frozen=True, slots=True)
class RaisedLimits:
    """usd, tokens: limits of a task that is run again, with room for the call that was not admitted. reason: the old
    limit and what that call needed."""

    usd: str
    tokens: int
    reason: str


def raise_limits(task: Json) -> RaisedLimits | None:
    """Limits for a task that ended at its own ceiling; None for any other."""
    failure, limits = task["failure"], task["limits"]
    if failure is None or failure["code"] != "budget_exceeded" or limits is None:
        return None
    match = REACHED.search(failure["message"])
    if match is None or f"The budget of task {task['task_id']} " not in failure["message"]:
        return None
    limit, spent, asked = match.groups()
    needed = _parse_amount(spent) + _parse_amount(asked)
    cost_usd, tokens, unit = limits["cost_usd_micros"] / 1_000_000, limits["tokens"], " tokens"
    if limit.startswith("$"):
        cost_usd, unit = max(cost_usd, needed), ""
    else:
        tokens = max(tokens, round(needed))
    reason = f"Its limit was {limit}{unit}: {spent}{unit} were spent, and the next call needed up to {asked}{unit}."
    return RaisedLimits(f"{cost_usd:.6f}".rstrip("0").rstrip("."), tokens, reason)


def _parse_amount(text: str) -> float:
    return float(text.lstrip("$").replace(",", ""))
