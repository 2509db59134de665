"""Notes on a limit that is never reached, because something lower ends the work before: it is kept all the same.

In: a target, the units that were set, the limits as they stand with the tenant's policy. Out: sentences, one per unit.
"""

from collections.abc import Mapping
from typing import Any

from bulkhead.amounts import money

DAYS_OF_MONTH = 31
POLICY = "the tenant's policy"
RAISED = "whoever operates the mesh raises it in tenants.yaml"


def of_limit(of: str, units: Mapping[str, int], page: Mapping[str, Any]) -> list[str]:
    """What holds in place of what was set. Nothing where the gateway does not tell the policy."""
    policy = page.get("policy")
    if not policy:
        return []
    stands = {row["target"]: row["limit"] for row in page["limits"]}
    notes = []
    for unit in ("cost_usd_micros", "tokens"):
        wanted = units.get(unit)
        if wanted is None or (lower := _lower(of, unit, policy, stands)) is None or lower[0] >= wanted:
            continue
        most, what, todo = lower
        notes.append(
            f"{_amount(wanted, unit)} for {of} is never reached: {what}, and the lower of both counts, so it "
            f"is {_amount(most, unit)}; {todo}"
        )
    return notes


def _lower(of: str, unit: str, policy: Mapping[str, Any], stands: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """The lowest that holds beside it: how much, what says so, what to do."""
    day, own = policy["day"].get(unit), (stands.get("day") or {}).get(unit)
    found = []
    if day is not None:
        found.append((day, f"{POLICY} allows {_amount(day, unit)} a day", RAISED))
    if own is not None and of != "day":
        found.append((own, f"`day` is limited to {_amount(own, unit)}", "`bulkhead limits set day` raises that"))
    if of == "month":
        found = [
            (
                most * DAYS_OF_MONTH,
                f"{what}, which is {_amount(most * DAYS_OF_MONTH, unit)} in {DAYS_OF_MONTH} days",
                todo,
            )
            for most, what, todo in found
        ]
    if of == "task" and (task := policy["task"].get(unit)) is not None:
        found.append((task, f"{POLICY} allows one task {_amount(task, unit)}", RAISED))
    return min(found, default=None)


def _amount(value: int, unit: str) -> str:
    return money(value) if unit == "cost_usd_micros" else f"{value:,} tokens"
