"""What people read when the budget says no: which limit, what is spent, what was asked, what to do. Pure text."""

from .core import Ceiling, Sum, Unit

CODE = "budget_exceeded"


def amount(value: int, unit: Unit) -> str:
    """`$0.5012` or `12,000 tokens`."""
    if unit == "tokens":
        return f"{value:,} tokens"
    dollars, micros = divmod(value, 1_000_000)
    digits = f"{micros:06d}".rstrip("0").ljust(2, "0")
    return f"${dollars:,}.{digits}"


def _who(ceiling: Ceiling) -> str:
    kind, tenant, name = ceiling.scope.split(":", 2)
    return f"tenant {tenant}'s day {name} (UTC)" if kind == "day" else f"task {name} of tenant {tenant}"


def _remedy(ceiling: Ceiling) -> str:
    kind, tenant, _ = ceiling.scope.split(":", 2)
    needed = ceiling.spent + ceiling.asked
    if kind == "day":
        return (
            f"Submit again after 00:00 UTC, or have an operator raise day.{ceiling.unit} of tenant {tenant} "
            f"to at least {needed} in the tenants file"
        )
    option = "--limit-tokens" if ceiling.unit == "tokens" else "--limit-usd"
    value = str(needed) if ceiling.unit == "tokens" else f"{needed / 1_000_000:.6f}"
    return (
        f"Submit it again with a higher limit: {option} {value} is what it takes to make this next call; the calls "
        "after it need more, so leave room"
    )


def denied(ceiling: Ceiling) -> str:
    """A call that does not fit under what is left."""
    unit = ceiling.unit
    return (
        f"The budget of {_who(ceiling)} does not cover the next call: limit {amount(ceiling.limit, unit)}, "
        f"spent {amount(ceiling.spent, unit)}, and the call may cost up to {amount(ceiling.asked, unit)}. "
        f"{_remedy(ceiling)}."
    )


def exceeded(ceiling: Ceiling) -> str:
    """A call that cost more than its reservation and passed the limit."""
    unit = ceiling.unit
    return (
        f"The budget of {_who(ceiling)} is exceeded: limit {amount(ceiling.limit, unit)}, "
        f"spent {amount(ceiling.spent, unit)}; a call cost more than was reserved for it. {_remedy(ceiling)}."
    )


def waiting(ceiling: Ceiling) -> str:
    """A call that fits under what is spent, but not beside what is held."""
    unit = ceiling.unit
    return (
        f"Open calls of {_who(ceiling)} hold {amount(ceiling.reserved, unit)}; with {amount(ceiling.spent, unit)} "
        f"spent, {amount(ceiling.asked, unit)} more does not fit under {amount(ceiling.limit, unit)} until they settle."
    )


def spent() -> str:
    """A reservation id whose call was made and paid."""
    return "This reservation is settled: its call was made and paid. Ask for another call under a new id."


def conflict(asked: Sum, held: Sum) -> str:
    """A known reservation id with a larger amount."""
    return (
        f"This reservation id is known with {amount(held.cost_usd_micros, 'cost_usd_micros')} and "
        f"{amount(held.tokens, 'tokens')}; {amount(asked.cost_usd_micros, 'cost_usd_micros')} and "
        f"{amount(asked.tokens, 'tokens')} are asked now. Ask for the larger amount under a new id."
    )
